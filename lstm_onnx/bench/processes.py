"""What only a fresh process can tell: how long a start takes, and how much memory `map` needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..exporter.bare_lstm import export_lstm
from ..runtime.providers import CPU, CUDA
from ..spec import ExportOptions, LSTMSpec
from .cases import RUNTIME, Task
from .grid import Point
from .measure import Contender
from .report import Memory
from .subject import Subject

_MEGABYTE = LSTMSpec(input_size=128, hidden_size=192)
"""A model of 1 MB."""
_TINY = LSTMSpec(input_size=4, hidden_size=3)
_BARE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
onnxruntime.InferenceSession(sys.argv[1], options, providers=sys.argv[3].split(","))
"""
_OURS = """
import sys, lstm_onnx
lstm_onnx.load(sys.argv[1], threads=int(sys.argv[2]), provider=sys.argv[3])
"""


def child(arguments: list[str], bytecode: Path | None = None) -> str:
    """What a Python process prints; ``-P`` keeps the current folder off its path.

    Args:
        arguments: of the interpreter.
        bytecode: a folder where it keeps compiled modules, for the next one to find there: all of them, so
            that it does not matter which packages were installed with theirs.

    Raises:
        RunError: it failed; with its last words.
    """
    own = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)} if bytecode else {}
    done = subprocess.run(  # noqa: S603 - this very interpreter, on our own code
        [sys.executable, "-P", *arguments], capture_output=True, text=True, check=False, env=os.environ | own
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunError(f"a process that bench started failed: {last}")
    return done.stdout


def _written(spec: LSTMSpec, path: Path) -> str:
    rng = np.random.default_rng(0)
    state = {
        name: (0.1 * rng.standard_normal(shape)).astype(spec.dtype) for name, shape in spec.parameter_shapes().items()
    }
    export_lstm(spec, ExportOptions(), state, path)
    return str(path)


@contextmanager
def starts(subject: Subject, folder: Path) -> Iterator[Task]:
    """A process that imports what it needs and opens a model of 1 MB, beside one that does so by hand."""
    path, threads, provider = _written(_MEGABYTE, folder / "start.onnx"), str(subject.threads), subject.model.provider
    providers = ",".join([CUDA, CPU] if provider == "cuda" else [CPU])
    baseline = "numpy, onnxruntime, InferenceSession"

    def run(script: str, where: str) -> Callable[[], str]:
        return lambda: child(["-c", script, path, threads, where], folder / "bytecode")

    contenders = [
        Contender(baseline, run(_BARE, providers)),
        Contender(f"{RUNTIME} load", run(_OURS, provider), ours=True),
    ]
    yield Task(contenders, baseline, "start", {}, None)


def memory(subject: Subject, point: Point, folder: Path) -> Memory:
    """The peak of `map` in a process of its own, and the working set (see `Memory`).

    Raises:
        RunError: a process failed.
    """
    opened = subject.padded
    assert opened is not None  # noqa: S101 - the caller's condition
    path = opened.model.path
    tiny = _written(_TINY, folder / "tiny.onnx")
    tail = [opened.model.provider, str(subject.threads)]
    base = _measured([tiny, *tail, "0", str(subject.seed)])
    full = _measured([path, *tail, str(point.batch), str(subject.seed)])
    return Memory(
        label=str(point),
        peak_bytes=full["peak_bytes"],
        base_bytes=base["peak_bytes"],
        model_bytes=Path(path).stat().st_size,
        ahead_bytes=full["ahead_bytes"],
        ahead_sequences=full["ahead_sequences"],
    )


def _measured(arguments: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(child(["-m", f"{__package__}.map_child", *arguments]))
    return found
