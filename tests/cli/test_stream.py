"""``lstm-onnx stream``, and the other commands on its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.streaming.test_convert import conv_lstm, saved, weights

from .conftest import Invoke


def test_a_file_is_written_and_reported(invoke: Invoke, tmp_path: Path) -> None:
    source, target = str(saved(conv_lstm((1, 1)), tmp_path / "m.onnx")), str(tmp_path / "s.onnx")
    code, output = invoke("stream", source, "-o", target, "--time", "x=2", "--max-delay", "1", "--json")
    assert code == 0
    found = json.loads(output)
    assert (found["streaming"]["delay"], found["streaming"]["time"]) == (1, {"x": 2})
    code, output = invoke("inspect", target)
    assert code == 0
    assert "streams yes, in chunks of any length: delay 1, hop 1" in output
    code, output = invoke("check", target)
    assert code == 0, output
    assert "it takes chunks of any length of x: delay 1 step, hop 1" in output
    np.savez(tmp_path / "x.npz", x=weights(2, 4, 20))
    for name, options in (("whole", ()), ("chunks", ("--chunk", "6")), ("steps", ("--stream",))):
        code, output = invoke("run", target, str(tmp_path / "x.npz"), "-o", str(tmp_path / f"{name}.npz"), *options)
        assert code == 0, output
    found = [np.load(tmp_path / f"{name}.npz")["y"] for name in ("whole", "chunks", "steps")]
    assert found[0].shape == (20, 1, 2, 3)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time", "x"), "'x' is not INPUT=AXIS"),
        (("--time", "x=a"), "'x=a' is not INPUT=AXIS"),
        (("--time", "x=--1"), "'x=--1' is not INPUT=AXIS"),
        (("--time", "x=2", "--time", "x=1"), "x was given twice"),
        (("--time", "y=2"), "is not an input"),
        (("--time", "x=2"), "max_delay=1 (--max-delay 1) accepts that"),
        (("--time", "x=2", "--state", "h"), "'h' is not INPUT=OUTPUT"),
        (("--time", "x=2", "--state", "h=a", "--state", "h=b"), "h was given twice"),
        (
            ("--time", "x=2", "--max-delay", "1", "--chunk", "2"),
            "its first or last chunk gives another number of steps than the others",
        ),
        (("-o", "-"), "is not written to stdout"),
    ],
)
def test_wrong_options(invoke: Invoke, options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    source = str(saved(conv_lstm((1, 1)), tmp_path / "m.onnx"))
    target = () if "-o" in options else ("-o", str(tmp_path / "s.onnx"))
    code, output = invoke("stream", source, *target, *options)
    assert code == 2
    assert message in output
    assert not (tmp_path / "s.onnx").exists()
