"""Checkpoints in several files, and archives that hold one."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lstm_onnx import FileError, WeightsError
from lstm_onnx.exporter.sources.checkpoint import load_state_dict

from .test_checkpoint import NAMES, _module, _state


def _archive(kind: str, path: Path) -> None:
    """A file at `path` that torch.save did not write."""
    torch.save(_state(), path.with_suffix(".inner"))
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            archive.add(path.with_suffix(".inner"), "net.bin")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(path.with_suffix(".inner"), "policy.pth")
    elif kind == "hdf5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    else:
        torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path.with_suffix(".pt2"))
        path.with_suffix(".pt2").rename(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tar", "is a tar archive; unpack it"),
        ("zip", r"is a zip archive; unpack it, and name the checkpoint in it, such as policy\.pth"),
        ("hdf5", "is an HDF5 file, such as Keras's"),
        ("program", r"is an ExportedProgram \(torch\.export\.save\)"),
    ],
)
def test_archives_of_other_kinds_are_named(kind: str, words: str, tmp_path: Path) -> None:
    _archive(kind, tmp_path / "net.bin")
    with pytest.raises(WeightsError, match=words):
        load_state_dict(tmp_path / "net.bin")


def _sharded(folder: Path, suffix: str) -> Path:
    """A module's state dict in two files and their index."""
    state = {name: value.detach() for name, value in _module().state_dict().items()}
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    files = {name: f"{stem}-0000{1 + name.startswith('lstm')}-of-00002{suffix}" for name in state}
    for file in set(files.values()):
        part = {name: value for name, value in state.items() if files[name] == file}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_sharded_checkpoints(suffix: str, tmp_path: Path) -> None:
    index = _sharded(tmp_path, suffix)
    expected = _module().state_dict()
    found = load_state_dict(index, module_names=expected)
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name].numpy())
    assert set(load_state_dict(index, "lstm.")) == NAMES
    part = next(path for path in tmp_path.iterdir() if "-00001-of" in path.name)
    for names, words in ((expected, "lacks lstm.*"), (None, "has no LSTM.*")):
        with pytest.raises(WeightsError, match=rf"{words}; it is one of several files .*: name {index}$"):
            load_state_dict(part, module_names=names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "has no file for each tensor"),
        ('{"weight_map": {}}', "has no file for each tensor"),
        ('{"weight_map": {"weight_ih_l0": 3}}', "has no file for each tensor"),
        ('{"weight_map": {"weight_ih_l0": "a.bin"', "is not the index of a sharded checkpoint"),
        ('{"weight_map": {"weight_ih_l0": "a.bin", "weight_ih_l0": "b.bin"}}', "the key 'weight_ih_l0' occurs twice"),
        ('{"weight_map": {"weight_ih_l0": "../a.bin"}}', "only files in its own folder are read"),
        ('{"weight_map": {"weight_ih_l0": "/a.bin"}}', "only files in its own folder are read"),
        ('{"weight_map": {"weight_ih_l0": ".."}}', "only files in its own folder are read"),
        ('{"weight_map": {"weight_ih_l0": "b.index.json"}}', "which can hold no tensors"),
        ('{"weight_map": {"weight_ih_l0": "gone.bin"}}', "gone.bin: No such file"),
        ('{"weight_map": {"x.weight_ih_l0": "a.bin"}}', "a.bin: does not hold x.weight_ih_l0"),
    ],
)
def test_a_wrong_index(content: str, words: str, tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "a.bin")
    (tmp_path / "m.index.json").write_text(content)
    with pytest.raises((WeightsError, FileError), match=words):
        load_state_dict(tmp_path / "m.index.json", "x." if "x." in content and "index" not in content else "")
