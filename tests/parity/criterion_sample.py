"""The sample that K is settled on: how far off are right models, and how far wrong ones?

    python tests/parity/criterion_sample.py --models 300

Draws nn.LSTMs (weights x0.001 to x4, H 1-64, L 1-4, T to 40, both directions, lengths, projections by
both lowerings), runs `verify`'s cases on each, and makes two wrong models of each (mutants.py, those
that run at every shape and are not within a thousandth of right).

300 models, seed 0, torch 2.13.0 and onnxruntime 1.31.1 on a 2-core AVX2 CPU, 37 s; worst output of a wrong model:

    right: 6714 tensors, median 0.13, p99 1.53, p99.9 3.34, largest 6.49; none inconclusive, none rejected
    wrong, weights x0.3 to x4: 196 models, smallest 2.8e5, p1 5.6e5
    wrong, weights x0.03 to x0.3: 168 models, smallest 1450, p1 4.2e4
    wrong, weights x0.001 to x0.03: 236 models, smallest 95, p1 1500, p10 1.1e4

No wrong model passes K = 32.  Without the sweep's loud cases one did: two gates swapped at weights x0.0014, H 5,
P 2, ratio 6.1, where all gates are a half to within a few units of float32's rounding.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import torch

import lstm_onnx
from lstm_onnx import LSTMSpec, WeightsError
from lstm_onnx.exporter.torch_lstm import module_of, seeded_state
from lstm_onnx.parity import K, Report, sweep

if __name__ == "__main__":  # run by its path, its folder is where Python looks
    mutants = importlib.import_module("mutants")
else:
    from . import mutants

_BANDS = ((0.001, 0.03), (0.03, 0.3), (0.3, 4.0))


def _draw(rng: np.random.Generator) -> LSTMSpec:
    hidden_size = int(rng.integers(1, 65))
    projected = hidden_size > 1 and rng.random() < 0.5
    return LSTMSpec(
        input_size=int(rng.integers(1, 65)),
        hidden_size=hidden_size,
        num_layers=int(rng.integers(1, 5)),
        bias=bool(rng.random() < 0.8),
        batch_first=bool(rng.random() < 0.5),
        bidirectional=bool(rng.random() < 0.5),
        proj_size=int(rng.integers(1, hidden_size)) if projected else 0,
    )


def _ratios(report: Report) -> list[float]:
    return [tensor.ratio for case in report.judged for tensor in case.tensors]


def _line(label: str, values: list[float], *quantiles: float) -> str:
    if not values:
        return f"{label}: none"
    shown = " ".join(f"q{100 * q:g} {np.quantile(values, q):.3g}" for q in quantiles)
    return f"{label}: {len(values)} n, {shown}"


def main(models: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    right: list[float] = []
    wrong: dict[tuple[float, float], list[float]] = {band: [] for band in _BANDS}
    low: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        for _ in range(models):
            spec, lengths = _draw(rng), bool(rng.random() < 0.5)
            scale = float(np.exp(rng.uniform(np.log(0.001), np.log(4.0))))
            drawn = seeded_state(spec, int(rng.integers(2**31)))
            module = module_of(spec, {name: np.float32(scale) * value for name, value in drawn.items()})
            sweep.SHAPES = ((1, 1), (3, int(rng.integers(2, 41))))
            projection = "fold" if rng.random() < 0.5 else "scan"
            try:
                lstm_onnx.export(module, path, lengths=lengths, projection=projection)
            except WeightsError:
                counts["folds refused"] += 1
                lstm_onnx.export(module, path, lengths=lengths)
            case_seed = int(rng.integers(2**31))
            report = lstm_onnx.verify(module, path, provider="cpu", threads=1, seed=case_seed)
            right += _ratios(report)
            counts["inconclusive cases"] += len(report.cases) - len(report.judged)
            counts["right models rejected"] += not report
            model = onnx.load(path)
            kinds = [m for m in mutants.MUTANTS if m.kind == "numeric"]
            made = 0
            for index in rng.permutation(len(kinds)):
                copy = mutants.mutated(model, kinds[index])
                # With sizes of 1 some mistakes are none: a transposed 1 x 1 matrix, for one.
                if copy is None or copy == model:
                    continue
                onnx.save(copy, path)
                report = lstm_onnx.verify(module, path, provider="cpu", threads=1, seed=case_seed)
                worst = max(_ratios(report), default=0.0)
                band = next(band for band in _BANDS if scale <= band[1] or band is _BANDS[-1])
                wrong[band].append(worst)
                if report:
                    low.append(f"{kinds[index].name} (x{scale:.2g}, H {spec.hidden_size}, P {spec.proj_size})")
                made += 1
                if made == 2:
                    break
    print(_line("right, tensors", right, 0.5, 0.99, 0.999, 1.0), dict(counts))
    for band, values in wrong.items():
        print(_line(f"wrong, weights x{band[0]:g} to x{band[1]:g}", values, 0.0, 0.01, 0.1, 0.5))
    print(f"wrong models that pass K = {K:g}: {len(low)}", *low[:12], sep="; ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Figures for parity.criterion.K")
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(main(arguments.models, arguments.seed))
