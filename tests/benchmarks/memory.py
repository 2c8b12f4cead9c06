"""The peak memory of `Model.map` over many sequences, beside the working set that it cannot do without.

``python -m tests.benchmarks.memory SOURCE [SEQUENCES]``, where SOURCE is the .toml of a bare LSTM.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lstm_onnx.exporter.sources.source import LSTMSource, load_source
from lstm_onnx.spec import LSTMSpec

from .processes import child, write_lstm

_TINY = LSTMSpec(input_size=4, hidden_size=3)


@dataclass(frozen=True)
class Memory:
    """The peak memory of a process that runs `Model.map`; sequences are made one by one, outputs are dropped.

    The working set has three parts: `base_bytes`, the peak of a process that opened a tiny model and ran one
    step; `model_bytes`, the size of the file; and `ahead_bytes`, the maximum, over time, of the inputs that map
    had consumed without having returned their results, and of these results.

    Attributes:
        peak_bytes: the largest resident set of the process.
        base_bytes, model_bytes, ahead_bytes: the parts of the working set.
        ahead_sequences: the maximum number of sequences consumed and not yet returned.
    """

    peak_bytes: int
    base_bytes: int
    model_bytes: int
    ahead_bytes: int
    ahead_sequences: int

    @property
    def working_set_bytes(self) -> int:
        """The sum of its parts."""
        return self.base_bytes + self.model_bytes + self.ahead_bytes

    @property
    def ratio(self) -> float:
        """Peak over working set."""
        return self.peak_bytes / self.working_set_bytes

    def __str__(self) -> str:
        """Two lines."""
        parts = (("base", self.base_bytes), ("model", self.model_bytes), ("ahead", self.ahead_bytes))
        sizes = " + ".join(f"{name} {size / 1e6:,.1f}" for name, size in parts)
        return (
            f"peak {self.peak_bytes / 1e6:,.1f} MB is {self.ratio:.2f} times the working set, "
            f"{self.working_set_bytes / 1e6:,.1f} MB\n({sizes}; at most {self.ahead_sequences} sequences ahead)"
        )


def map_memory(source: LSTMSource, sequences: int, folder: Path, *, threads: int = 1, seed: int = 0) -> Memory:
    """Measure it in processes of their own.

    Raises:
        RunError: a process failed.
    """
    path = folder / "model.onnx"
    source.with_options(lengths=True).export(path, check=False)
    base = _measure([write_lstm(_TINY, folder / "tiny.onnx"), "cpu", str(threads), "0", str(seed)])
    full = _measure([str(path), "cpu", str(threads), str(sequences), str(seed)])
    return Memory(
        peak_bytes=full["peak_bytes"],
        base_bytes=base["peak_bytes"],
        model_bytes=path.stat().st_size,
        ahead_bytes=full["ahead_bytes"],
        ahead_sequences=full["ahead_sequences"],
    )


def _measure(arguments: list[str]) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(child(["-m", f"{__package__}.map_child", *arguments]))
    return measured


def main() -> None:
    """Print it."""
    source = load_source(sys.argv[1])
    if not isinstance(source, LSTMSource):
        sys.exit("memory is measured for bare LSTMs")
    with TemporaryDirectory() as folder:
        print(map_memory(source, int(sys.argv[2]) if len(sys.argv) > 2 else 512, Path(folder)))


if __name__ == "__main__":
    main()
