"""What K is settled on: how far off are right models, and how far the weakest of wrong ones?

A part of it runs always; the whole sample, whose figures stand in `parity.criterion`, is marked slow:

    python -m tests.parity.test_criterion_evidence --models 600
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx import LSTMSpec, WeightsError
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.sources.torch_lstm import module_of, seeded_state
from lstm_onnx.exporter.weights import validate_state_dict
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.tolerances import K
from lstm_onnx.parity.verification import make_report
from lstm_onnx.spec import ExportOptions

_BANDS = (0.03, 0.3, 4.0)
"""Where the sizes of weights are told apart, from x0.001 on."""
_SMALLEST_HALF_FOLD = 0.1


@dataclass
class Sample:
    """Ratios of right tensors by dtype, and of each wrong model's worst by the size of its weights."""

    right: dict[str, list[float]] = field(default_factory=dict)
    wrong: dict[float, list[float]] = field(default_factory=dict)
    names: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def _drawn(rng: np.random.Generator) -> tuple[LSTMSpec, ExportOptions, float, tuple[tuple[int, int], ...]]:
    hidden = int(rng.integers(1, 65))
    projected = hidden > 1 and rng.random() < 0.4
    spec = LSTMSpec(
        input_size=int(rng.integers(1, 65)),
        hidden_size=hidden,
        num_layers=int(rng.integers(1, 5)),
        bias=bool(rng.random() < 0.8),
        batch_first=bool(rng.random() < 0.5),
        bidirectional=bool(rng.random() < 0.5),
        proj_size=int(rng.integers(1, hidden)) if projected else 0,
    )
    options = ExportOptions(lengths=bool(rng.random() < 0.5), projection="fold" if rng.random() < 0.5 else "scan")
    scale = float(np.exp(rng.uniform(np.log(0.001), np.log(4.0))))
    kind = rng.random()
    if kind < 0.15:
        spec = replace(spec, dtype="float16")
        options = replace(options, projection="scan") if scale < _SMALLEST_HALF_FOLD else options
    elif kind < 0.25 and projected:  # ONNX Runtime runs only the Scan in float64
        spec, options = replace(spec, dtype="float64"), replace(options, projection="scan")
    return spec, options, scale, ((1, 1), (3, 7), (3, int(rng.integers(2, 81))))


def sampled(models: int, seed: int = 0) -> Sample:
    """Right models and all of their mutants: of each mutant the largest ratio that its rejection had."""
    rng = np.random.default_rng([2026, 11, seed])
    found = Sample()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        for _ in range(models):
            spec, options, scale, shapes = _drawn(rng)
            wide = seeded_state(replace(spec, dtype="float32"), int(rng.integers(2**31)))
            state = validate_state_dict(
                spec, {name: np.float32(scale) * value for name, value in wide.items()}, where="drawn"
            )
            try:
                export_lstm(spec, options, state, path)
            except WeightsError:
                found.counts["folds refused"] += 1
                export_lstm(spec, replace(options, projection="scan"), state, path)
            model = lstm_onnx.load(path, provider="cpu", threads=1)
            verification = LSTMVerification(model, module_of(spec, state), shapes=shapes)
            verification.sweeps = []  # what is sampled is rounding, which sizes do not change
            report = make_report(verification, verification.results(), mutants="all")
            found.counts["right models"] += 1
            found.counts["right models rejected"] += not report.in_parity
            found.counts["mutants survived"] += len(report.survivors)
            found.counts["inconclusive cases"] += len(report.cases) - len(report.judged)
            ratios = [tensor.ratio for case in report.judged for tensor in case.tensors]
            found.right.setdefault(spec.dtype, []).extend(ratios)
            band = next(band for band in _BANDS if scale <= band)
            for mutant in report.mutants:
                if mutant.outcome != "equivalent" and np.isfinite(mutant.ratio):
                    found.wrong.setdefault(band, []).append(mutant.ratio)
                    name = f"{mutant.name.partition(',')[0]} ({spec.dtype}, weights x{scale:.2g})"
                    found.names[name] = min(found.names.get(name, np.inf), mutant.ratio)
    return found


def _line(label: str, values: list[float], quantiles: tuple[float, ...]) -> str:
    shown = ", ".join(f"q{100 * at:g} {np.quantile(values, at):.3g}" for at in quantiles)
    return f"{label}: {len(values)}; {shown}"


def main(models: int, seed: int) -> int:
    """Print the sample's figures; 1 where a right model is rejected or a wrong one is not."""
    found = sampled(models, seed)
    print(dict(found.counts))
    for dtype, values in sorted(found.right.items()):
        print(_line(f"right tensors, {dtype}", values, (0.5, 0.99, 0.999, 1.0)))
    for band, values in sorted(found.wrong.items()):
        print(_line(f"wrong models, weights up to x{band:g}", values, (0.0, 0.01, 0.1, 0.5)))
    for name, ratio in sorted(found.names.items(), key=lambda item: item[1])[:8]:
        print(f"weakest: {ratio:.3g} {name}")
    return int(bool(found.counts["right models rejected"] or found.counts["mutants survived"]))


def _check(found: Sample, largest: float) -> None:
    assert found.counts["right models rejected"] == 0
    assert found.counts["mutants survived"] == 0
    assert max(max(values) for values in found.right.values()) < largest
    assert min(min(values) for values in found.wrong.values()) > K


def test_right_models_are_far_below_k_and_wrong_ones_above() -> None:
    found = sampled(4)
    assert found.counts["right models"] == 4
    assert set(found.right) == {"float16", "float32", "float64"}
    assert sum(map(len, found.wrong.values())) > 60
    _check(found, K)


@pytest.mark.slow
def test_the_whole_sample() -> None:
    found = sampled(600)
    assert set(found.right) == {"float16", "float32", "float64"}
    assert set(found.wrong) == set(_BANDS)
    _check(found, K)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(main(arguments.models, arguments.seed))
