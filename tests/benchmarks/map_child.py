"""The peak memory of a process that runs `Model.map`, or one step; prints it as JSON.

``python -m tests.benchmarks.map_child PATH PROVIDER THREADS COUNT SEED``; with a COUNT of 0 one step is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lstm_onnx.bench.sizes import draw_lengths, random_sequence
from lstm_onnx.runtime import Model, load

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The largest resident set of this process so far.

    On Linux ``ru_maxrss`` is inherited from the parent process, so /proc is read there.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Ahead:
    """Sequences made one by one, counting those that were consumed and whose results have not come back.

    Attributes:
        most_bytes: the maximum of the bytes of their inputs and outputs.
        most: the maximum of their number.
    """

    def __init__(self, lengths: list[int], features: int, outputs: int, dtype: str, seed: int) -> None:
        self.most_bytes = self.most = 0
        self._lengths, self._features, self._dtype, self._seed = lengths, features, dtype, seed
        self._row = (features + outputs) * np.dtype(dtype).itemsize
        self._taken = self._back = self._bytes = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """The sequences."""
        for index, length in enumerate(self._lengths):
            self._taken += 1
            self._bytes += length * self._row
            self.most_bytes = max(self.most_bytes, self._bytes)
            self.most = max(self.most, self._taken - self._back)
            yield random_sequence(length, self._features, self._dtype, self._seed + index)

    def gave_back(self) -> None:
        """The next result has come."""
        self._bytes -= self._lengths[self._back] * self._row
        self._back += 1


def _mapped(model: Model, count: int, seed: int, workers: int) -> Ahead:
    spec = model.spec
    assert spec is not None
    ahead = Ahead(draw_lengths(count, seed), spec.input_size, spec.output_size, spec.dtype, seed)
    for _ in model.map(ahead, workers=workers):
        ahead.gave_back()
    return ahead


def main() -> None:
    """Run, and print the peak."""
    path, provider, threads, count, seed = sys.argv[1:]
    model = load(path, provider=provider, threads=int(threads))
    found = {"ahead_bytes": 0, "ahead_sequences": 0}
    if int(count):
        ahead = _mapped(model, int(count), int(seed), int(threads))
        found = {"ahead_bytes": ahead.most_bytes, "ahead_sequences": ahead.most}
    else:
        model.warm_up()
    print(json.dumps({"peak_bytes": peak_bytes(), **found}))


if __name__ == "__main__":
    main()
