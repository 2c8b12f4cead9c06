"""Files in int8 and float16: right ones pass, and every wrong one fails by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError, ModelError, ParityReport
from lstm_onnx.onnxgraph.write import write_model
from lstm_onnx.parity.converted.exact import GRAPH, STORED, Stored, different_interface, different_nodes, read_stored
from lstm_onnx.parity.converted.results import converted_results
from lstm_onnx.parity.golden_file import Golden
from lstm_onnx.parity.golden_file import read as read_golden
from lstm_onnx.testing import ParityError, assert_parity
from tests.quantization.operators import Case, saved

OPTIONS: dict[str, Any] = {"provider": "cpu", "threads": 1, "mutants": "none"}


class Net(nn.Module):
    """An embedding, an LSTM whose states are inputs and outputs, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 20)
        self.lstm = nn.LSTM(20, 32, batch_first=True)
        self.head = nn.Linear(32, 40)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return output


@dataclass(frozen=True)
class Files:
    """A module, and its files in int8 and float16."""

    module: Any
    int8: Path
    float16: Path

    def verified(self, path: Path | None = None, **options: Any) -> ParityReport:
        return lstm_onnx.verify(self.module, path or self.int8, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("bare")
    torch.manual_seed(0)
    module = nn.LSTM(20, 24, num_layers=2)
    for precision in ("int8", "float16"):
        lstm_onnx.export(module, folder / f"{precision}.onnx", precision=precision)
    return Files(module, folder / "int8.onnx", folder / "float16.onnx")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("net")
    torch.manual_seed(0)
    module = Net().eval()
    for precision in ("int8", "float16"):
        lstm_onnx.export(
            module,
            folder / f"{precision}.onnx",
            example_inputs=torch.randint(0, 64, (2, 5)),
            dynamic_shapes={"tokens": {0: "batch", 1: "time"}},
            states="explicit",
            precision=precision,
            check=False,
        )
    return Files(module, folder / "int8.onnx", folder / "float16.onnx")


def changed(source: Path, path: Path, change: Callable[[Stored], None]) -> Path:
    stored = read_stored(source)
    change(stored)
    write_model(stored.model, stored.arrays, path)
    return path


def number(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stored], None]:
    def apply(stored: Stored) -> None:
        array = stored.arrays[name].copy()
        array.reshape(-1)[5] = change(array.reshape(-1)[5])
        stored.arrays[name] = array

    return apply


def all_numbers(suffix: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stored], None]:
    def apply(stored: Stored) -> None:
        names = [name for name in stored.arrays if name.endswith(suffix)]
        assert names
        stored.arrays[names[0]] = change(stored.arrays[names[0]])

    return apply


def next_float(value: np.ndarray) -> np.ndarray:
    return np.nextafter(value, np.float32(9))


def a_zero_point(stored: Stored) -> None:
    names = [name for name, array in stored.arrays.items() if array.dtype == np.uint8]
    assert names
    stored.arrays[names[0]] = stored.arrays[names[0]] - np.uint8(1)


def crossed_states(stored: Stored) -> None:
    """The two state inputs exchanged, wherever they are read."""
    for node in stored.model.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = {"h0": "c0", "c0": "h0"}.get(name, name)


def reversed_direction(stored: Stored) -> None:
    scan = next(node for node in stored.model.graph.node if node.op_type == "Scan")
    for item in scan.attribute:
        if item.name in ("scan_input_directions", "scan_output_directions"):
            item.ints[:] = [1 - direction for direction in item.ints]


def crossed_pairs(stored: Stored) -> None:
    for item in stored.model.metadata_props:
        if item.key == "lstm_onnx.states":
            item.value = json.dumps({"c0": "hn", "h0": "cn"})


WRONG = {
    "one byte of W": (number("l0/W/int8", lambda value: value ^ 1), STORED),
    "one byte of R": (number("l1/R/int8", lambda value: value ^ 1), STORED),
    "one scale": (number("l0/R/scale", next_float), STORED),
    "one bias": (all_numbers("/bias", lambda array: np.concatenate([[next_float(array[0])], array[1:]])), STORED),
    "one zero point": (a_zero_point, STORED),
    "states crossed": (crossed_states, GRAPH),
    "a direction flipped": (reversed_direction, GRAPH),
    "pairs of states crossed": (crossed_pairs, GRAPH),
}


def failed(report: ParityReport) -> set[str]:
    return {case.label for case in report.cases if not case.passed}


@pytest.fixture(scope="module")
def stored(bare: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Golden]:
    """The float32 file of the bare LSTM, and its cases."""
    folder = tmp_path_factory.mktemp("stored")
    assert bare.verified(golden=folder / "g.npz")
    golden = read_golden(folder / "g.npz")
    assert golden.float32 is not None
    (folder / "float32.onnx").write_bytes(golden.float32)
    return folder / "float32.onnx", golden


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_int8_file_fails(name: str, bare: Files, stored: tuple[Path, Golden], tmp_path: Path) -> None:
    change, label = WRONG[name]
    path = changed(bare.int8, tmp_path / "wrong.onnx", change)
    with lstm_onnx.load(path, provider="cpu", threads=1, trial=None) as model:
        found = converted_results(stored[0], model, stored[1].cases, mutants="none")
    assert label in {case.label for case in found.cases if not case.passed}


def test_a_wrong_int8_file_is_not_in_parity(bare: Files, tmp_path: Path) -> None:
    report = bare.verified(changed(bare.int8, tmp_path / "wrong.onnx", WRONG["one scale"][0]))
    assert not report
    assert failed(report) == {STORED}
    assert "l0/R/scale" in str(report)
    assert "1 of 96 numbers differ from the source's" in str(report)


def test_a_file_with_other_nodes_and_the_same_bits_passes_with_a_note(
    bare: Files, stored: tuple[Path, Golden], tmp_path: Path
) -> None:
    def renamed(file: Stored) -> None:
        file.model.graph.node[0].name = "of another version"

    with lstm_onnx.load(changed(bare.int8, tmp_path / "m.onnx", renamed), provider="cpu", threads=1) as model:
        found = converted_results(stored[0], model, stored[1].cases, mutants="none")
    assert all(case.passed for case in found.cases)
    (note,) = found.notes
    assert note.startswith("the file was written by lstm-onnx")
    assert "with the same bits in all outputs: the node of another version" in note


def test_another_modules_weights_fail(bare: Files) -> None:
    torch.manual_seed(1)
    report = lstm_onnx.verify(nn.LSTM(20, 24, num_layers=2), bare.int8, **OPTIONS)
    assert not report
    assert STORED in failed(report)
    assert "the file was exported from other weights than these (its digest differs)" in report.notes


@pytest.mark.parametrize("files", ["bare", "net"])
def test_a_right_int8_file_passes_and_its_mutants_do_not(
    files: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Files = request.getfixturevalue(files)
    report = found.verified(mutants="quick")
    assert report, str(report)
    assert report.precision == "int8"
    assert sum("(" in mutant.name and "/" in mutant.name for mutant in report.mutants) >= 8
    labels = {case.label for case in report.cases}
    assert {STORED, "int8 layers, alone", "int8 layers, step by step"} <= labels
    for drift in report.drift:
        assert 1e-4 < drift.relative < 0.1
        assert drift.inputs == "drawn"
        assert bool(drift.over_time) is (drift.output in ("output", "0")), drift.output
    assert "drift: output is off by" in str(report)
    assert "in parity with PyTorch but for int8 weights" in str(report)
    assert report.to_dict()["drift"][0]["output"] == "output"  # type: ignore[index]
    from lstm_onnx.parity.reports.page import page

    assert "<h3>Drift</h3>" in page([report])


def test_a_file_of_quantize_is_the_same_as_an_export(bare: Files, tmp_path: Path) -> None:
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert (tmp_path / "q.onnx").read_bytes() == bare.int8.read_bytes()


def test_layers_are_recurrent_alone_by_an_option(net: Files, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = lstm_onnx.export(
        net.module,
        path,
        example_inputs=torch.randint(0, 64, (2, 5)),
        dynamic_shapes={"tokens": {0: "batch", 1: "time"}},
        precision="int8",
        layers="recurrent",
        check=False,
    )
    assert result.options.layers == "recurrent"
    kinds = {name: array.dtype.name for name, array in read_stored(path).arrays.items()}
    assert kinds["embedding.weight"] == "float32"
    assert "int8" in kinds.values()
    with pytest.raises(ConfigError, match='it goes with precision = "int8"'):
        lstm_onnx.export(net.module.lstm, path, layers="recurrent")
    assert net.verified(path)


# --- float16 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["bare", "net"])
def test_a_float16_file_has_exactly_the_rounded_weights(files: str, request: pytest.FixtureRequest) -> None:
    found: Files = request.getfixturevalue(files)
    report = found.verified(found.float16)
    assert report, str(report)
    assert report.precision == "float16"
    assert all(1e-6 < drift.relative < 2e-3 for drift in report.drift)
    assert any(case.label.startswith("rounded weights, ") for case in report.cases)
    state = found.module.state_dict()
    name, parameter = ("l0/R/float16", "weight_hh_l0") if files == "bare" else ("embedding.weight/float16", None)
    stored = read_stored(found.float16).arrays[name]
    assert stored.dtype == np.float16
    if parameter is None:
        assert np.array_equal(stored, state["embedding.weight"].numpy().astype(np.float16))
    else:
        gates = state[parameter].numpy().astype(np.float16).reshape(4, 24, 24)[[0, 3, 1, 2]]
        assert np.array_equal(stored[0], gates.reshape(96, 24))


def test_a_float16_file_gives_what_pytorch_gives_with_rounded_weights(bare: Files) -> None:
    rounded = copy.deepcopy(bare.module)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if name.startswith("weight"):  # biases stay float32
                parameter.copy_(parameter.half().float())
    report = lstm_onnx.verify(rounded, bare.float16, **OPTIONS, max_drift=1e-6)
    assert report, str(report)
    assert any(note.startswith("the weights are rounded to float16") for note in report.notes)
    report = lstm_onnx.verify(bare.module, bare.float16, **OPTIONS, max_drift=1e-6)
    assert failed(report) == {"the drift from float64"}


def test_a_wrong_float16_file_fails(bare: Files, tmp_path: Path) -> None:
    half = number("l0/W/float16", lambda value: np.nextafter(value, np.float16(9)))
    report = bare.verified(changed(bare.float16, tmp_path / "wrong.onnx", half))
    assert not report
    assert STORED in failed(report)


def test_a_float16_file_is_half_as_large_and_runs_in_float32(tmp_path: Path) -> None:
    module = nn.LSTM(64, 128)
    sizes = {
        precision: lstm_onnx.export(module, tmp_path / f"{precision}.onnx", precision=precision).num_bytes
        for precision in ("float32", "float16", "int8")
    }
    assert sizes["float16"] <= 0.55 * sizes["float32"]
    assert sizes["int8"] <= 0.3 * sizes["float32"]
    x = np.random.default_rng(0).standard_normal((5, 2, 64)).astype(np.float32)
    full, half = (
        lstm_onnx.load(tmp_path / f"{name}.onnx", provider="cpu", threads=1).run({"input": x})["output"]
        for name in ("float32", "float16")
    )
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 1e-3
    with pytest.raises(ModelError, match="has float16 weights; quantise the float32 file"):
        lstm_onnx.quantize(tmp_path / "float16.onnx", tmp_path / "q.onnx")


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float16, "int8"), (torch.bfloat16, "float16"), (torch.float64, "float32")]
)
def test_modules_of_other_dtypes(dtype: torch.dtype, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(20, 24).to(dtype)
    result = lstm_onnx.export(module, tmp_path / "m.onnx", precision=precision)
    assert result.spec is not None
    assert result.spec.dtype == "float32"
    assert next(module.parameters()).dtype == dtype
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", **OPTIONS)
    assert report, str(report)


# --- the limit of the drift, golden files, assertions ----------------------------------------------------


def test_the_drift_has_a_limit_and_data_count(bare: Files) -> None:
    data = [{"input": np.full((30, 1, 20), 0.3, np.float32)}]
    report = bare.verified(max_drift=0.2, data=data)
    assert report, str(report)
    assert {(drift.output, drift.inputs) for drift in report.drift} >= {("output", "data"), ("output", "drawn")}
    report = bare.verified(max_drift=1e-5)
    assert not report
    assert failed(report) == {"the drift from float64"}
    assert "DRIFTS FARTHER than allowed" in str(report)
    with pytest.raises(ConfigError, match="max_drift"):
        bare.verified(max_drift=-1)


def test_a_float_file_drifts_by_rounding_alone(bare: Files, tmp_path: Path) -> None:
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    report = bare.verified(tmp_path / "m.onnx", max_drift=1e-6)
    assert report, str(report)
    assert all(drift.relative < 1e-6 for drift in report.drift)


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_golden_files_hold_the_float32_file(precision: str, bare: Files, tmp_path: Path) -> None:
    path = getattr(bare, precision)
    assert bare.verified(path, golden=tmp_path / "g.npz")
    assert_parity(path, golden=tmp_path / "g.npz", max_drift=0.2)
    report = lstm_onnx.verify_golden(path, tmp_path / "g.npz", mutants="quick")
    assert report, str(report)
    assert report.precision == precision
    assert report.mutants
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    assert lstm_onnx.verify_golden(tmp_path / "m.onnx", tmp_path / "g.npz")
    name = "l0/W/int8" if precision == "int8" else "l0/W/float16"
    wrong = changed(path, tmp_path / "wrong.onnx", all_numbers(name, lambda array: np.roll(array, 1)))
    with pytest.raises(ParityError, match="numbers differ from the source's"):
        assert_parity(wrong, golden=tmp_path / "g.npz")


def test_a_golden_file_of_a_float32_file_is_refused(bare: Files, tmp_path: Path) -> None:
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    assert bare.verified(tmp_path / "m.onnx", golden=tmp_path / "g.npz")
    with pytest.raises(ConfigError, match=r"int8\.onnx: has int8 weights, and .*g\.npz is of a file without"):
        lstm_onnx.verify_golden(bare.int8, tmp_path / "g.npz")


def test_an_int8_file_of_anothers_is_refused_with_what_to_verify(bare: Files, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", Case("LSTM").model())
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    with pytest.raises(ModelError, match=r"q\.onnx: was made of a file that lstm-onnx did not export.*verify FLOAT32"):
        bare.verified(tmp_path / "q.onnx")


def test_graphs_are_compared_whatever_the_order_of_their_nodes(bare: Files) -> None:
    one, other = read_stored(bare.int8).model, read_stored(bare.int8).model
    nodes = list(other.graph.node)
    del other.graph.node[:]
    other.graph.node.extend(reversed(nodes))
    assert different_nodes(one, other) == different_interface(one, other) == ""
    other.graph.node[0].name = "renamed"
    assert "renamed" in different_nodes(other, one)
    del other.graph.node[0]
    assert "is missing in the file" in different_nodes(other, one)
    assert "is not of the source" in different_nodes(one, other)
    other.graph.output[0].name = "y"
    assert different_interface(other, one) == "the outputs are y, hn, cn, the source's output, hn, cn"


def test_numbers_over_2_gb_would_be_read_beside_the_file(bare: Files, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(bare.int8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    stored = read_stored(tmp_path / "m.onnx").arrays
    assert all(np.array_equal(stored[t.name], numpy_helper.to_array(t)) for t in onnx.load(bare.int8).graph.initializer)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match=r"its weights in m\.data cannot be read"):
        read_stored(tmp_path / "m.onnx")
