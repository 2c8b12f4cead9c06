"""A file says itself whether it is as lstm-onnx wrote it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from lstm_onnx.checksum import KEY, is_intact
from lstm_onnx.metadata import Metadata

from .runtime.models import exported


@pytest.fixture
def path(tmp_path: Path) -> Path:
    exported(tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_what_was_exported_is_intact_and_says_the_same_story(path: Path):
    assert is_intact(path)
    entries = {entry.key: entry.value for entry in onnx.load_model(path).metadata_props}
    assert next(iter(entries)) == KEY
    rest = {key: value for key, value in entries.items() if key != KEY}
    assert Metadata.from_metadata(entries) == Metadata.from_metadata(rest)
    exported(path.with_name("again.onnx"))
    assert path.with_name("again.onnx").read_bytes() == path.read_bytes()


def test_every_changed_byte_is_noticed(path: Path):
    content = path.read_bytes()
    for at in (*range(0, len(content), 7), len(content) - 1):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert not is_intact(path), at
    path.write_bytes(content + b"\0")
    assert not is_intact(path)
    path.write_bytes(content[:-1])
    assert not is_intact(path)
    path.write_bytes(content)
    assert is_intact(path)


def test_what_another_tool_writes_is_not_ours_any_more(path: Path):
    model = onnx.load_model(path)
    model.graph.node[0].name = "renamed"
    onnx.save_model(model, path)
    assert not is_intact(path)
    del model.metadata_props[:]
    onnx.save_model(model, path)
    assert not is_intact(path)


def test_what_cannot_be_read_is_not_ours(tmp_path: Path, path: Path):
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for place in (empty, tmp_path / "none.onnx", tmp_path, "a\0b"):
        assert not is_intact(place)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert not is_intact(tmp_path / "pipe")  # and does not wait for somebody to write into it


def test_weights_that_hold_the_same_words_do_not_mislead(tmp_path: Path):
    from lstm_onnx.checksum import UNKNOWN, with_checksum
    from lstm_onnx.onnxgraph.write import write_model

    mark = b"\n\x12" + KEY.encode() + b"\x12\x0a" + UNKNOWN.encode()
    weights = np.frombuffer(mark, np.uint8)
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    write_model(model, {"w": weights}, tmp_path / "m.onnx")
    assert is_intact(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="subsection not found"):
        with_checksum(b"no entry")
