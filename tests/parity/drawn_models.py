"""Drawn LSTMs, right and wrong: how far off are right files, and does any wrong copy of one pass?

    python tests/parity/drawn_models.py --models 2000 --mutants all

Draws nn.LSTMs (weights x0.001 to x4, H 1-96, L 1-4, T to 400, both directions, lengths, projections by both
lowerings, float16 and float64 among them), verifies a fresh export of each, and tries the file's mutants.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import lstm_onnx
from lstm_onnx import ExportOptions, LSTMSpec, ParityReport, WeightsError
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.sources.torch_lstm import module_of, seeded_state
from lstm_onnx.exporter.weights import validate_state_dict
from lstm_onnx.parity.cases import SHAPES
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.verification import make_report

_SCALES = (0.001, 4.0)
_SMALLEST_HALF_FOLD = 0.1
"""Below it float16 has no digits left for R W_hr."""
_LONGEST = 400


@dataclass(frozen=True)
class DrawnModel:
    """A configuration, the size of its weights, and the shapes that it is compared at."""

    number: int
    spec: LSTMSpec
    options: ExportOptions
    scale: float
    seed: int
    shapes: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"model {self.number} (weights x{self.scale:.3g}, {self.spec}, {self.options})"


def drawn_model(number: int) -> DrawnModel:
    """The same for the same number, whichever others are drawn."""
    rng = np.random.default_rng([2026, number])
    hidden_size = int(np.exp(rng.uniform(0, np.log(97))))
    projected = hidden_size > 1 and rng.random() < 0.4
    precision = rng.random()
    spec = LSTMSpec(
        input_size=int(np.exp(rng.uniform(0, np.log(97)))),
        hidden_size=hidden_size,
        num_layers=int(rng.integers(1, 5)),
        bias=bool(rng.random() < 0.8),
        batch_first=bool(rng.random() < 0.5),
        bidirectional=bool(rng.random() < 0.5),
        proj_size=int(rng.integers(1, hidden_size)) if projected else 0,
    )
    options = ExportOptions(lengths=bool(rng.random() < 0.5), projection="fold" if rng.random() < 0.5 else "scan")
    scale = float(np.exp(rng.uniform(*np.log(_SCALES))))
    if precision < 0.1:
        spec = replace(spec, dtype="float16")
        if scale < _SMALLEST_HALF_FOLD:
            options = replace(options, projection="scan")
    elif precision < 0.2 and projected:  # ONNX Runtime runs only the Scan in float64
        spec, options = replace(spec, dtype="float64"), replace(options, projection="scan")
    longest = int(np.exp(rng.uniform(np.log(13), np.log(_LONGEST + 1))))
    return DrawnModel(
        number,
        spec,
        options,
        scale,
        int(rng.integers(2**31)),
        (*SHAPES, (int(rng.integers(1, 5)), longest)),
    )


def verified(drawn: DrawnModel, folder: Path, mutants: str) -> ParityReport:
    """The report on a fresh export; a fold that is refused is exported as a Scan."""
    wide = seeded_state(replace(drawn.spec, dtype="float32"), drawn.seed)
    state = validate_state_dict(
        drawn.spec, {name: np.float32(drawn.scale) * value for name, value in wide.items()}, where="drawn"
    )
    path = folder / "m.onnx"
    try:
        export_lstm(drawn.spec, drawn.options, state, path)
    except WeightsError:
        export_lstm(drawn.spec, replace(drawn.options, projection="scan"), state, path)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    verification = LSTMVerification(model, module_of(drawn.spec, state), seed=drawn.seed % 1000, shapes=drawn.shapes)
    return make_report(verification, verification.results(), mutants=mutants)


def reports(numbers: range, mutants: str) -> Iterator[tuple[DrawnModel, ParityReport]]:
    """Model by model."""
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            drawn = drawn_model(number)
            yield drawn, verified(drawn, Path(folder), mutants)


def _quantiles(values: list[float]) -> str:
    if not values:
        return "none"
    shown = ", ".join(f"{name} {np.quantile(values, at):.3g}" for name, at in (("median", 0.5), ("p99", 0.99)))
    return f"{shown}, largest {max(values):.3g}"


def main(numbers: range, mutants: str) -> int:
    """Print what came of it; 1 where a right model was rejected, or a wrong one was not."""
    counts: Counter[str] = Counter()
    right: list[float] = []
    for drawn, report in reports(numbers, mutants):
        right += [tensor.ratio for case in report.judged for tensor in case.tensors]
        counts["right models"] += 1
        counts["cases"] += len(report.cases)
        counts["inconclusive cases"] += len(report.cases) - len(report.judged)
        counts.update(f"mutants {mutant.outcome}" for mutant in report.mutants)
        counts["right models rejected"] += not report.in_parity
        if not report.in_parity:
            print(f"REJECTED {drawn}\n{report}", flush=True)
        for mutant in report.survivors:
            print(f"SURVIVED {drawn}: {mutant.name}, ratio {mutant.ratio:.3g} at {mutant.case}", flush=True)
    print("; ".join(f"{count} {name}" for name, count in counts.items()))
    print(f"{len(right)} tensors of right models, in units of PyTorch's own error: {_quantiles(right)}")
    return int(bool(counts["right models rejected"] or counts["mutants survived"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--mutants", choices=("none", "quick", "all"), default="all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(main(range(arguments.first, arguments.first + arguments.models), arguments.mutants))
