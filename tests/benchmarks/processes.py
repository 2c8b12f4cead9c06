"""What the benchmarks that measure fresh processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from lstm_onnx.errors import RunError
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.spec import ExportOptions, LSTMSpec


def child(arguments: list[str], bytecode: Path | None = None) -> str:
    """The output of a Python process.

    Args:
        arguments: of the interpreter.
        bytecode: a folder for compiled modules, which the next process finds there: so it does not matter which
            packages were installed with theirs.

    Raises:
        RunError: it failed; the message has the last line of its stderr.
    """
    cache = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)} if bytecode else {}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=os.environ | cache
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunError(f"a process that the benchmark started failed: {last}")
    return done.stdout


def write_lstm(spec: LSTMSpec, path: Path) -> str:
    """Export an LSTM with random weights, and return the path."""
    rng = np.random.default_rng(0)
    state = {
        name: (0.1 * rng.standard_normal(shape)).astype(spec.dtype) for name, shape in spec.parameter_shapes().items()
    }
    export_lstm(spec, ExportOptions(), state, path)
    return str(path)
