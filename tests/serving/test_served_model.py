"""What a model says of itself, without a server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from lstm_onnx.runtime import load
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.serving.errors import RequestError
from lstm_onnx.serving.metrics import Metrics, Statistics
from lstm_onnx.serving.served_model import ServedModel
from lstm_onnx.serving.settings import Settings
from lstm_onnx.serving.streams import open_stream

from ..runtime.models import exported


def test_a_model_without_states_says_how_it_gets_them(tmp_path: Path) -> None:
    """The file may be ours, exported with states="zero", or another tool's."""
    exported(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "m.onnx")
    with load(tmp_path / "m.onnx", "cpu", threads=1) as model, ThreadPoolExecutor(1) as executor:
        served = ServedModel("m", model, "", Settings(), executor, Metrics(), Statistics())
        with pytest.raises(RequestError, match='export it with states="explicit"; lstm-onnx serve --state'):
            served.require_batcher()


def test_nobody_waits_for_a_step_that_runs_when_its_model_is_retired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path / "m.onnx")
    running = threading.Event()
    closed = threading.Event()

    def close(self: ServedModel) -> None:
        assert running.wait(30)
        closed.set()

    monkeypatch.setattr(ServedModel, "close", close)
    with load(tmp_path / "m.onnx", "cpu", threads=1) as model, ThreadPoolExecutor(1) as executor:
        ServedModel("m", model, "", Settings(), executor, Metrics(), Statistics()).retire()
        assert not closed.is_set()
        running.set()
        assert closed.wait(30)


def test_a_stream_opens_although_the_one_before_it_still_runs(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    with load(tmp_path / "m.onnx", "cpu", threads=1) as model, ThreadPoolExecutor(1) as executor:
        served = ServedModel("m", model, "", Settings(max_streams=1), executor, Metrics(), Statistics())
        assert isinstance(served.batcher, Batcher)
        first = open_stream(served)
        with pytest.raises(RequestError, match="all 1 streams of m are open; try again later"):
            open_stream(served)
        opened = threading.Event()
        thread = threading.Thread(target=lambda: (open_stream(served), opened.set()), daemon=True)
        with served.batcher.pool._lock:  # as a step holds it
            first.close()
            thread.start()
            assert opened.wait(5)
        served.close()
