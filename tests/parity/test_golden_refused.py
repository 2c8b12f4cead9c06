"""What is not a golden file is refused, before it is believed or unpacked; and none needs torch."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_onnx import FileError
from lstm_onnx.parity.golden_file import read, write

from .golden_cases import replayed_golden, with_another_weight


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
            {"golden": np.frombuffer(b'{"version": 4}', np.uint8)},
            "version 4, and this lstm-onnx reads version 3; upgrade it",
        ),
        (
            {"golden": np.frombuffer(b'{"version": 2}', np.uint8)},
            "version 2, and this lstm-onnx reads version 3; recreate it",
        ),
        ({"golden": np.frombuffer(b'{"version": true}', np.uint8)}, "'version' is not of the type int"),
        ({"golden": np.frombuffer(b'{"version": 3}', np.uint8)}, "'source' is not of the type str"),
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


def _call_of(header: dict[str, Any], case: int = 0) -> dict[str, Any]:
    return header["cases"][case]["calls"][0]


@pytest.mark.sweep(4)
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
        (lambda h: h["cases"][0].update(dtype="bfloat16"), "'dtype' is not one of float16, float32, float64"),
        (lambda h: h["cases"][0].update(kind="run"), "'kind' is not one of whole"),
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
        (lambda h: _call_of(h)["own"].update(output=_call_of(h, 1)["own"]["output"]), "do not fit each other"),
        (lambda h: h["cases"][0]["calls"].append({"feeds": _call_of(h)["feeds"], "own": {}}), "'reference' is not"),
        (
            lambda h: h["cases"][0]["calls"].append({**_call_of(h, 1), "feeds": {"x": _call_of(h)["feeds"]["h0"]}}),
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
        (lambda h: _case_of(h, "pool")["calls"][0]["feeds"].update(c0=_call_of(h)["feeds"]["c0"]), "rows of a pool"),
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
    assert replayed_golden(made[0], tmp_path / "m.npz")


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
    with_another_weight(made[0], tmp_path / "wrong.onnx")
    arguments = [str(made[0]), str(made[1]), str(tmp_path / "wrong.onnx")]
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKED, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "no torch\n"
