"""Verify rejects wrong graphs and accepts the right ones that they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from torch import nn

import lstm_onnx
from lstm_onnx import ExportOptions, LSTMSpec, ModelError
from lstm_onnx.exporter.torch_lstm import module_of, seeded_state
from lstm_onnx.parity import K, Report, TensorResult

from .mutants import MUTANTS, Mutant, mutated

BASES = {
    "plain": (LSTMSpec(5, 8), ExportOptions()),
    "stacked": (LSTMSpec(5, 8, num_layers=2, bidirectional=True, batch_first=True), ExportOptions(lengths=True)),
    "scan": (
        LSTMSpec(5, 8, num_layers=2, bidirectional=True, proj_size=3),
        ExportOptions(lengths=True),
    ),
    "scan forward": (LSTMSpec(5, 8, batch_first=True, proj_size=3), ExportOptions()),
    "fold": (LSTMSpec(5, 8, num_layers=2, proj_size=3), ExportOptions(lengths=True, projection="fold")),
    "fold both ways": (LSTMSpec(5, 8, bidirectional=True, proj_size=3), ExportOptions(projection="fold")),
}
SCALES = (1.0, 0.01)


@dataclass(frozen=True)
class Base:
    module: nn.LSTM
    model: onnx.ModelProto


def _make(name: str, scale: float, path: Path) -> Base:
    spec, options = BASES[name]
    state = {key: (value * scale).astype(value.dtype) for key, value in seeded_state(spec, 7).items()}
    module = module_of(spec, state)
    lstm_onnx.export(module, path, lengths=options.lengths, projection=options.projection)
    return Base(module, onnx.load(path))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, float], Base]:
    folder = tmp_path_factory.mktemp("bases")
    return {(name, scale): _make(name, scale, folder / "base.onnx") for name in BASES for scale in SCALES}


def _applicable() -> Iterator[tuple[str, Mutant]]:
    """Told from the sizes alone, so that a mutator which stops applying is seen."""
    for name, (spec, options) in BASES.items():
        scan = spec.proj_size > 0 and options.projection == "scan"
        excluded = {
            "R transposed": scan,
            "recurrent bias dropped": scan,
            "directions exchanged": not spec.bidirectional,
            "run backwards": spec.bidirectional,
            "h0 of two layers exchanged": spec.num_layers == 1,
            "c0 of two layers exchanged": spec.num_layers == 1,
            # A bidirectional operator gives both directions at once, without a Concat.
            "hn of two layers exchanged": spec.num_layers == 1,
            "cn of two layers exchanged": spec.num_layers == 1,
            "h0 and c0 swapped": spec.proj_size > 0,
            "hn and cn swapped": spec.proj_size > 0,
            "lengths ignored": not options.lengths,
            "one step too many": not (scan and options.lengths),
            "reverse output unreversed": not (scan and spec.bidirectional),
            "reverse input unreversed": not (scan and spec.bidirectional),
            "projection dropped": spec.proj_size == 0,
            "projection reshaped": spec.proj_size == 0,
            "projection transposed": spec.proj_size == 0,
            "h0 not unprojected": spec.proj_size == 0 or scan,
            # With two directions the Scan's R is in two matrices, by other names.
            "R a thousandth too large": scan and spec.bidirectional,
        }
        for mutant in MUTANTS:
            if not excluded.get(mutant.name, False):
                yield name, mutant


def _worst_ratio(report: Report) -> float:
    return max(tensor.ratio for _, tensor in report.worst.values())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", BASES)
def test_the_right_model_is_in_parity(
    name: str, scale: float, bases: dict[tuple[str, float], Base], tmp_path: Path
) -> None:
    base = bases[name, scale]
    path = tmp_path / "right.onnx"
    onnx.save(base.model, path)
    report = lstm_onnx.verify(base.module, path, provider="cpu", threads=1)
    assert report, str(report)
    assert _worst_ratio(report) < K / 3


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "mutant"), [pytest.param(n, m, id=f"{n}-{m.name}") for n, m in _applicable()])
def test_a_wrong_model_is_rejected(
    name: str, mutant: Mutant, scale: float, bases: dict[tuple[str, float], Base], tmp_path: Path
) -> None:
    if mutant.kind == "slight" and scale != 1.0:
        # A thousandth of weights a hundred times smaller is within a few units of rounding of being right.
        scale = 4.0
        base = _make(name, scale, tmp_path / "large.onnx")
    else:
        base = bases[name, scale]
    wrong = mutated(base.model, mutant)
    assert wrong is not None
    assert wrong.SerializeToString(deterministic=True) != base.model.SerializeToString(deterministic=True)
    path = tmp_path / "wrong.onnx"
    onnx.save(wrong, path)
    try:
        report = lstm_onnx.verify(base.module, path, provider="cpu", threads=1)
    except ModelError:
        assert mutant.kind == "structural"
        return
    assert not report, str(report)
    if mutant.kind == "structural":
        assert any(case.error or _infinite(case.tensors) for case in report.cases), str(report)
        return
    assert not any(case.error for case in report.cases), str(report)
    # Small projections shrink h, and with it every trace of what is wrong.
    faint = mutant.kind == "slight" or (base.module.proj_size > 0 and scale < 1.0)
    assert _worst_ratio(report) > (K if faint else 10 * K), str(report)


def _infinite(tensors: tuple[TensorResult, ...]) -> bool:
    return any(tensor.ratio == float("inf") for tensor in tensors)


def test_every_mutant_is_used() -> None:
    assert {mutant.name for mutant in MUTANTS} == {mutant.name for _, mutant in _applicable()}


def test_the_table_of_what_applies_is_right(bases: dict[tuple[str, float], Base]) -> None:
    """A mutator that declines a base is meant to, so none is left out by mistake."""
    used = {(name, mutant.name) for name, mutant in _applicable()}
    applied = {(n, m.name) for n in BASES for m in MUTANTS if mutated(bases[n, 1.0].model, m) is not None}
    assert applied == used
