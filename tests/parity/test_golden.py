"""Golden files: what was compared comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ConfigError, FileError, Model, ParityReport
from lstm_onnx.parity import make_report, verification_of
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.parity.golden import verify_golden
from lstm_onnx.parity.golden_file import Golden, read, write

from ..module_files import module_file


def _lstm(scale: float = 1.0, hidden_size: int = 6, dtype: torch.dtype = torch.float32, **arguments: object) -> nn.LSTM:
    torch.manual_seed(3)
    module = nn.LSTM(4, hidden_size, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    return module


def _stored(module: nn.Module, path: Path, out: Path, **arguments: Any) -> tuple[ParityReport, Golden]:
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    verification = verification_of(model, module, **arguments)
    report = make_report(verification, verification.results(), mutants="none")
    kept = Golden.of(report, verification)
    write(out, kept)
    return report, kept


def _replayed(path: Path | Model, out: Path) -> ParityReport:
    return verify_golden(path, out, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An .onnx file and its golden file, which nobody may change."""
    folder = tmp_path_factory.mktemp("golden")
    module = _lstm()
    lstm_onnx.export(module, folder / "m.onnx")
    _stored(module, folder / "m.onnx", folder / "m.npz")
    return folder / "m.onnx", folder / "m.npz"


class Steps(nn.Module):
    """float and integer inputs, an integer output, and a state in an attribute that streams."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 3)
        self.lstm = nn.LSTM(5, 4)
        self.hidden = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        y, self.hidden = self.lstm(torch.cat([x, self.embedding(tokens)], dim=-1), self.hidden)
        return y, y.argmax(-1)


def _steps(path: Path) -> Steps:
    torch.manual_seed(0)
    module = Steps()
    shapes = {name: {0: "time", 1: "batch"} for name in ("x", "tokens")}
    example = (torch.randn(3, 2, 2), torch.arange(6).reshape(3, 2))
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes)
    return module


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bidirectional": True, "num_layers": 2, "batch_first": True},
        {"proj_size": 3},
        {"dtype": torch.float16},
        {"dtype": torch.float64, "proj_size": 3},
        {"scale": 40.0, "hidden_size": 64},
        {"scale": 1e-3},
    ],
    ids=lambda arguments: " ".join(arguments) or "plain",
)
def test_a_replay_gives_what_the_verification_gave(arguments: dict[str, Any], tmp_path: Path) -> None:
    module, path, out = _lstm(**arguments), tmp_path / "m.onnx", tmp_path / "m.npz"
    lstm_onnx.export(module, path, lengths="bidirectional" in arguments)
    report, _ = _stored(module, path, out)
    again = _replayed(path, out)
    assert report
    assert again
    assert again.cases == tuple(case for case in report.cases if not case.label.startswith("weights amplified"))
    assert again.notes == report.notes
    assert again.versions["torch"] == torch.__version__
    assert {case.kind for case in again.cases} >= ({"whole", "steps"} if "hidden_size" in arguments else {"whole"})
    assert ({"chunks", "pool"} <= {case.kind for case in again.cases}) is not ("bidirectional" in arguments)


def test_modules_with_states_chunks_pools_and_integers(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.npz"
    report, kept = _stored(_steps(path), path, out)
    again = _replayed(path, out)
    assert again, str(again)
    assert again.cases == tuple(case for case in report.cases if not case.label.startswith("weights amplified"))
    assert {case.kind for case in again.cases} >= {"whole", "chunks", "pool"}
    assert {call.feeds["tokens"].dtype for case in read(out).cases for call in case.calls} == {np.dtype(np.int64)}
    assert any(case.least for case in kept.cases)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.npz"
    _, kept = _stored(_steps(path), path, out)
    found = read(out)
    assert (found.source, found.digest, found.notes) == ("Steps", kept.digest, kept.notes)
    assert found.digest == lstm_onnx.load(path, provider="cpu").metadata.digest
    assert found.versions == kept.versions
    for mine, theirs in zip(found.cases, kept.cases, strict=True):
        assert replace(mine, calls=()) == replace(theirs, calls=())
        for one, other in zip(mine.calls, theirs.calls, strict=True):
            for part in ("feeds", "native", "reference"):
                ours, right = getattr(one, part), getattr(other, part)
                assert list(ours) == list(right)
                for name, array in ours.items():
                    assert array.dtype == right[name].dtype
                    np.testing.assert_array_equal(array, right[name])


def test_equal_goldens_are_equal_bytes_and_a_plain_npz(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = made
    write(tmp_path / "again.npz", read(out))
    assert (tmp_path / "again.npz").read_bytes() == out.read_bytes()
    with np.load(out, allow_pickle=False) as arrays:
        assert json.loads(arrays["golden"].tobytes())["version"] == 2
        assert arrays["0.0.feeds.input"].shape == (1, 1, 4)
        assert arrays["0.0.own.output"].dtype == np.float32
        assert arrays["0.0.reference.output"].dtype == np.float64


def test_arrays_that_are_equal_are_kept_once(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.npz"
    _, kept = _stored(_steps(path), path, out)
    pool = next(at for at, case in enumerate(kept.cases) if case.kind == "pool")
    with zipfile.ZipFile(out) as archive:
        # A pool's case is that of the chunks before it.
        assert not any(name.startswith(f"{pool}.") for name in archive.namelist())


def test_inputs_keep_their_dtype_and_outputs_come_back_as_float64(tmp_path: Path) -> None:
    """Zeros of a float64 model's state are float64, also where float16 would hold them."""
    feeds = {name: np.zeros((1, 2), dtype) for name, dtype in (("a", "f8"), ("b", "f4"), ("c", "?"), ("d", "u1"))}
    outputs = {"y": np.zeros((1, 2)), "n": np.array([[3, 4]])}
    call = Call(feeds, outputs, outputs)
    write(tmp_path / "m.npz", Golden("x", (Expected("a", (call,), "float64", 1.0),)))
    (found,) = read(tmp_path / "m.npz").cases[0].calls
    assert {name: array.dtype for name, array in found.feeds.items()} == {n: array.dtype for n, array in feeds.items()}
    assert {name: array.dtype.kind for name, array in found.native.items()} == {"y": "f", "n": "i"}
    assert found.native["y"].dtype == found.reference["y"].dtype == np.float64


def test_calls_of_a_stream_that_is_given_states_once_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((2, 1, 3)), "h": rng.standard_normal((1, 1, 4))}]
    feeds.append({"x": rng.standard_normal((5, 1, 3))})
    calls = tuple(Call(each, {"y": each["x"]}, {"y": each["x"]}) for each in feeds)
    write(tmp_path / "m.npz", Golden("x", (Expected("a", calls, "float64", 1.0, kind="chunks"),)))
    found = read(tmp_path / "m.npz").cases[0].calls
    assert [sorted(call.feeds) for call in found] == [["h", "x"], ["x"]]
    for call, each in zip(found, feeds, strict=True):
        for name, array in each.items():
            np.testing.assert_array_equal(call.feeds[name], array)
    write(tmp_path / "m.npz", Golden("x", (Expected("a", calls, "float64", 1.0),)))
    with pytest.raises(FileError, match="calls of one case differ in inputs"):
        read(tmp_path / "m.npz")


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 1e300, 5e-324, -0.0]])
    call = Call({"input": values}, {"output": values}, {"output": values})
    write(tmp_path / "m.npz", Golden("x", (Expected("a", (call,), "float32", math.inf),)))
    case = read(tmp_path / "m.npz").cases[0]
    np.testing.assert_array_equal(case.calls[0].native["output"], values)
    assert np.signbit(case.calls[0].reference["output"][0, -1])
    assert case.scale == math.inf


def _edited(path: Path, out: Path) -> None:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "l0/R":
            wrong = numpy_helper.to_array(tensor).copy()
            wrong[0, 0, 0] += 0.01
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    onnx.save(model, out)


def test_a_wrong_file_fails(made: tuple[Path, Path], tmp_path: Path) -> None:
    path, out = made
    _edited(path, tmp_path / "wrong.onnx")
    report = _replayed(tmp_path / "wrong.onnx", out)
    assert not report
    assert report.notes == ()
    assert report.file == str(tmp_path / "wrong.onnx")
    assert report.source == f"LSTM (golden file {out})"
    assert report.location is not None
    assert (report.location.case, report.location.output) == ("batch 1, time 1, states", "output")
    assert (report.location.step, report.location.layer) == (0, None)


def test_other_weights_fail_and_are_said(made: tuple[Path, Path], tmp_path: Path) -> None:
    lstm_onnx.export(_lstm(scale=1.1), tmp_path / "other.onnx")
    report = _replayed(tmp_path / "other.onnx", made[1])
    assert not report
    assert any("other weights than the golden file's" in note for note in report.notes)


def test_other_sizes_fail_case_by_case(made: tuple[Path, Path], tmp_path: Path) -> None:
    lstm_onnx.export(_lstm(hidden_size=7), tmp_path / "other.onnx")
    report = _replayed(tmp_path / "other.onnx", made[1])
    assert not report
    assert "axis 2 must be 7" in report.cases[0].error


def test_a_file_that_takes_or_gives_other_things_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is it this file's golden file") as caught:
        _replayed(module_file("sentiment_last_hidden"), made[1])
    assert "is of a model with inputs c0, h0, input and outputs cn, hn, output" in str(caught.value)
    lstm_onnx.export(_lstm(), tmp_path / "l.onnx", lengths=True)
    _stored(_lstm(), tmp_path / "l.onnx", tmp_path / "l.npz")
    with pytest.raises(ConfigError, match="inputs c0, h0, input, lengths"):
        _replayed(made[0], tmp_path / "l.npz")
    # The other way about, lengths are every sequence whole, as they are for a caller.
    assert _replayed(tmp_path / "l.onnx", made[1])


def test_a_file_whose_output_cannot_be_put_together_fails(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A graph that loses the time axis of its output, which chunks and slots want to join along."""
    model = onnx.load(made[0])
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == "output":
                node.output[at] = "whole"
    axes = numpy_helper.from_array(np.array([0, 1, 2]), "axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["whole", "axes"], ["output"], keepdims=0))
    next(o for o in model.graph.output if o.name == "output").type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "wrong.onnx")
    report = _replayed(tmp_path / "wrong.onnx", made[1])
    assert not any(case.passed for case in report.cases)
    assert {case.kind for case in report.cases} >= {"whole", "chunks", "pool", "sweep"}


def test_a_golden_of_one_provider_is_run_on_a_loaded_model(made: tuple[Path, Path]) -> None:
    model = lstm_onnx.load(made[0], provider="cpu", threads=1)
    report = verify_golden(model, made[1])
    assert report
    assert report.provider == "cpu"


# --- what is not a golden file ----------------------------------------------------------------------


def test_a_name_that_is_no_npz_is_refused_before_anything_is_written(made: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("m.onnx", "-", "golden"):
        with pytest.raises(FileError, match=r"golden files must end in \.npz"):
            write(tmp_path / name if name != "-" else name, read(made[1]))
    with pytest.raises(FileError, match=r"the folder .* does not exist"):
        write(tmp_path / "none" / "m.npz", read(made[1]))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="expected a golden file, as lstm-onnx verify SOURCE --golden writes it"):
        read(tmp_path / "none.npz")


def test_every_shorter_file_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    whole = made[1].read_bytes()
    cut = tmp_path / "cut.npz"
    for size in range(0, len(whole), 1013):
        cut.write_bytes(whole[:size])
        with pytest.raises(FileError) as caught:
            read(cut)
        assert "\n" not in str(caught.value)
        assert str(cut) in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": np.zeros(3)}, "is not a golden file: it holds no array 'golden' of bytes"),
        ({"golden": np.zeros(3)}, "holds no array 'golden' of bytes"),
        ({"golden": np.zeros((2, 2), np.uint8)}, "holds no array 'golden' of bytes"),
        ({"golden": np.frombuffer(b"", np.uint8)}, "is a damaged golden file"),
        ({"golden": np.frombuffer(b"{", np.uint8)}, "is a damaged golden file"),
        ({"golden": np.frombuffer(b"\xff\xfe", np.uint8)}, "is a damaged golden file"),
        ({"golden": np.frombuffer(b"[" * 100_000, np.uint8)}, "is a damaged golden file"),
        ({"golden": np.frombuffer(b"[1]", np.uint8)}, "no object with 'version'"),
        (
            {"golden": np.frombuffer(b'{"version": 3}', np.uint8)},
            "version 3, and this lstm-onnx reads up to 2; upgrade",
        ),
        ({"golden": np.frombuffer(b'{"version": true}', np.uint8)}, "'version' is not of the type int"),
        ({"golden": np.frombuffer(b'{"version": 2}', np.uint8)}, "'source' is not of the type str"),
    ],
)
def test_foreign_files_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(FileError, match=message):
        read(tmp_path / "m.npz")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path / "sprung").touch, ()

    trap = np.empty(1, object)
    trap[0] = Trap()
    np.savez(tmp_path / "m.npz", golden=trap)
    assert pickle.dumps(Trap())
    with pytest.raises(FileError, match="a pickle"):
        read(tmp_path / "m.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    packed = zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED)
    with packed as archive, archive.open("golden.npy", "w", force_zip64=True) as member:
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(FileError, match=r"unpacks to .* times its size"):
        read(tmp_path / "m.npz")


def _header_of(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(path) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    return json.loads(held.pop("golden").tobytes()), held


def _case_of(header: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(case for case in header["cases"] if case["kind"] == kind)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(cases=[]), "'cases' are empty"),
        (lambda h: h.update(cases={}), "'cases' is not of the type list"),
        (lambda h: h.update(cases=[3]), "no object with 'calls'"),
        (lambda h: h.update(digest=3), "'digest' is not of the type str"),
        (lambda h: h.update(notes=[3]), "'notes' is not of the type str"),
        (lambda h: h.update(versions={"torch": None}), "'versions' is not of the type str"),
        (lambda h: h["cases"][0].update(calls=[]), "'calls' are empty"),
        (lambda h: h["cases"][0].update(dtype="bfloat16"), "'dtype' is none of float16, float32, float64"),
        (lambda h: h["cases"][0].update(kind="run"), "'kind' is none of whole"),
        (lambda h: h["cases"][0].update(scale=-1.0), "a scale is negative"),
        (lambda h: h["cases"][0].update(scale=math.nan), "a scale is negative or not a number"),
        (lambda h: h["cases"][0].update(scale=10**400), "a scale is negative or not a number"),
        (lambda h: h["cases"][0].update(scale="1"), "'scale' is not of the type float"),
        (lambda h: h["cases"][0].update(least={"output": math.nan}), "a scale is negative or not a number"),
        (lambda h: h["cases"][0].update(scales={"output": -1}), "a scale is negative or not a number"),
        (lambda h: h["cases"][0].update(chunkings=[[1], [2]]), "do not add up"),
        (lambda h: h["cases"][0]["time_axes"].update(output=3), "'output' has no such axis in time_axes"),
        (lambda h: h["cases"][0]["batch_axes"].update(input=-1), "'input' has no such axis in batch_axes"),
        (lambda h: h["cases"][0]["time_axes"].update(output=1.0), "'time_axes' is not of the type int"),
        (lambda h: h["cases"][0]["calls"][0]["feeds"].update(input="9.9.feeds.input"), "'9.9.feeds.input' is missing"),
        (lambda h: h["cases"][0]["calls"][0].update(feeds={}), "a call has no inputs"),
        (lambda h: h["cases"][0]["calls"][0].update(own={}), "do not fit each other"),
        (lambda h: h["cases"][0]["calls"][0].update(own={}, reference={}), "do not fit each other"),
        (lambda h: h["cases"][0]["calls"][0]["own"].update(output="1.0.own.output"), "do not fit each other"),
        (lambda h: h["cases"][0]["calls"].append({"feeds": {"x": "0.0.feeds.input"}, "own": {}}), "'reference' is not"),
        (
            lambda h: h["cases"][0]["calls"].append({**h["cases"][1]["calls"][0], "feeds": {"x": "0.0.feeds.h0"}}),
            "differ",
        ),
        (lambda h: _case_of(h, "chunks").update(chunkings=[[3, 3]]), "do not add up"),
        (lambda h: _case_of(h, "chunks").update(chunkings=[[]]), "do not add up"),
        (lambda h: _case_of(h, "chunks").update(chunkings=[[8, -1]]), "do not add up"),
        (lambda h: _case_of(h, "chunks").update(time_axes={}), "do not add up"),
        (lambda h: _case_of(h, "chunks")["calls"].append(_case_of(h, "chunks")["calls"][0]), "do not add up"),
        (lambda h: _case_of(h, "pool")["batch_axes"].pop("cn"), "rows of a pool"),
        (lambda h: _case_of(h, "pool").update(time_axes={}), "rows of a pool"),
        (lambda h: _case_of(h, "pool")["time_axes"].update(input=1), "an axis is time and batch at once"),
        (lambda h: _case_of(h, "pool")["calls"][0]["feeds"].update(c0="0.0.feeds.c0"), "rows of a pool"),
    ],
)
def test_a_header_that_does_not_hold_together_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    header, arrays = _header_of(made[1])
    change(header)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "m.npz", golden=text, **arrays)
    with pytest.raises(FileError, match=message) as caught:
        read(tmp_path / "m.npz")
    assert "recreate it with lstm-onnx verify SOURCE --golden" in str(caught.value)


def test_a_header_that_is_whole_passes_the_same_way(made: tuple[Path, Path], tmp_path: Path) -> None:
    header, arrays = _header_of(made[1])
    header["cases"][0]["scale"] = 2  # a whole number is a float too
    np.savez(tmp_path / "m.npz", golden=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    assert read(tmp_path / "m.npz").cases[0].scale == 2.0
    assert _replayed(made[0], tmp_path / "m.npz")


_BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "onnx_ir", "click", "safetensors"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
import lstm_onnx
report = lstm_onnx.verify_golden(sys.argv[1], sys.argv[2], provider="cpu", threads=1)
assert report, str(report)
assert isinstance(report, lstm_onnx.ParityReport)
report.to_dict()
assert not lstm_onnx.verify_golden(sys.argv[3], sys.argv[2], provider="cpu", threads=1)
try:
    import torch
except ImportError:
    print("no torch")
"""


def test_no_torch_and_no_onnx_are_imported(made: tuple[Path, Path], tmp_path: Path) -> None:
    _edited(made[0], tmp_path / "wrong.onnx")
    arguments = [str(made[0]), str(made[1]), str(tmp_path / "wrong.onnx")]
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKED, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "no torch\n"
