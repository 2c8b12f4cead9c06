"""What the metadata says of chunks and rows, in a file that another tool has changed since."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic

import lstm_onnx
from lstm_onnx import InputError
from lstm_onnx.checksum import KEY
from lstm_onnx.runtime.streamable import is_proven, require_separate_rows
from lstm_onnx.serving.whole import _batch_axes
from tests.module_files import module_file

from ..streaming.test_convert import conv_lstm, saved
from .models import exported, randoms


@pytest.mark.parametrize("kind", ["bare", "module"])
def test_a_scale_that_steps_and_rows_share(kind: str, tmp_path: Path) -> None:
    """ONNX Runtime's own quantization keeps the metadata, and what it says is not true any more."""
    source = tmp_path / "m.onnx"
    if kind == "bare":
        exported(source)
    else:
        source = module_file("exogenous_forecaster", "explicit")
    quantize_dynamic(source, tmp_path / "q.onnx")
    model = lstm_onnx.load(tmp_path / "q.onnx", "cpu", threads=1)
    for function in (model.stream, model.pool):
        with pytest.raises(InputError, match=r"cannot be streamed: 6 steps in chunks of .* than all at once"):
            function()
    with pytest.raises(InputError, match="cannot be stepped together"):
        require_separate_rows(model)
    assert _batch_axes(model) is None
    model.stream(check=False)


def test_a_scale_that_sequences_of_a_map_share(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx")
    model = lstm_onnx.load(tmp_path / "q.onnx", "cpu", threads=1)
    sequences = [randoms(5, 4) * scale for scale in (1, 50, 0.1)]
    for sequence, (output, _) in zip(sequences, model.map(sequences), strict=True):
        assert np.array_equal(output, model(sequence)[0])


def test_a_file_made_for_chunks_that_cannot_be_compared_again(tmp_path: Path) -> None:
    """It counts steps, and no drawn states fit such an input."""
    saved(conv_lstm((1, 1)), tmp_path / "m.onnx")
    lstm_onnx.make_streaming(tmp_path / "m.onnx", tmp_path / "s.onnx", time={"x": 2}, max_delay=1)
    lstm_onnx.load(tmp_path / "s.onnx", "cpu").stream()
    quantize_dynamic(tmp_path / "s.onnx", tmp_path / "q.onnx")
    model = lstm_onnx.load(tmp_path / "q.onnx", "cpu")
    with pytest.raises(InputError, match="was made for chunks, and another tool has changed it since"):
        model.stream()
    model.stream(check=False)


def test_our_metadata_without_a_checksum_proves_nothing(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    copied = onnx.load(tmp_path / "m.onnx")
    copied.metadata_props.remove(next(item for item in copied.metadata_props if item.key == KEY))
    onnx.save(copied, tmp_path / "c.onnx")
    assert not is_proven(lstm_onnx.load(tmp_path / "c.onnx", "cpu"))
    del copied.metadata_props[:]
    onnx.save(copied, tmp_path / "n.onnx")
    assert is_proven(lstm_onnx.load(tmp_path / "n.onnx", "cpu"))


def test_a_change_that_changes_no_result(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    assert is_proven(lstm_onnx.load(tmp_path / "m.onnx", "cpu"))
    changed = onnx.load(tmp_path / "m.onnx")
    changed.doc_string = "of another tool"
    onnx.save(changed, tmp_path / "m.onnx")
    model = lstm_onnx.load(tmp_path / "m.onnx", "cpu", threads=1)
    assert not is_proven(model)
    with lstm_onnx.Batcher(model) as batcher, batcher.open() as stream:
        assert np.array_equal(stream.step(randoms(1, 1, 4)), model(randoms(1, 1, 4))[0])
