"""How long a process takes to import what it needs and open a model of 1 MB: this runtime beside plain ONNX Runtime.

``python -m tests.benchmarks.start [ROUNDS]``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from lstm_onnx.bench.measure import Candidate, Spread, interleaved, ratios
from lstm_onnx.spec import LSTMSpec

from .processes import child, write_lstm

ONE_MEGABYTE = LSTMSpec(input_size=128, hidden_size=192)
PLAIN, RUNTIME = "numpy, onnxruntime, InferenceSession", "lstm-onnx load"
_SCRIPTS = {
    PLAIN: """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
""",
    RUNTIME: """
import sys, lstm_onnx
lstm_onnx.load(sys.argv[1], threads=1, provider="cpu")
""",
}


def start_times(folder: Path, rounds: int) -> dict[str, list[float]]:
    """The seconds of each start, by the candidate's name."""
    path = write_lstm(ONE_MEGABYTE, folder / "start.onnx")

    def run(script: str) -> Callable[[], str]:
        return lambda: child(["-c", script, path], folder / "bytecode")

    return interleaved([Candidate(name, run(script)) for name, script in _SCRIPTS.items()], rounds=rounds)


def main() -> None:
    """Print the medians and their ratio."""
    with TemporaryDirectory() as folder:
        times = start_times(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 15)
    for name, samples in times.items():
        ratio = ratios(samples, times[PLAIN])
        print(f"{name}: {Spread.of(samples).median:.3f} s, {ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")


if __name__ == "__main__":
    main()
