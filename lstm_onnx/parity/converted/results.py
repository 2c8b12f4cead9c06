"""The verification of a file with smaller weights against the float32 export of the same model, without torch."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ...atomic_io import temporary_folder
from ...errors import InputError, LSTMOnnxError, RunError
from ...exporter.float16_weights import with_float16_weights
from ...onnxgraph.write import write_model
from ...quantization.arithmetic import ROW_LIMIT
from ...quantization.int8_file import quantized_model
from ...quantization.kernels import SAME_BITS_ALONE
from ...quantization.probe import Probe
from ...runtime import Model, load
from ..expected import Expected, as_float64
from ..report import ParityReport
from ..results import OTHER_WEIGHTS, CaseResult, Drift, MutantResult
from .drift import LIMIT, drifts, limit_case, precision_of
from .exact import GRAPH, Stored, compare_numbers, different_interface, different_nodes, read_stored
from .layers import compare_layers, layer_cases, row_results
from .mutants import int8_mutants

_WHOLE = ("whole", "values", "data", "sweep")
"""Kinds of cases whose calls are independent of each other."""
_ROUNDED = (
    "the weights are rounded to float16 and used in float32: the file is compared with the float32 file whose weights "
    "are rounded, and the drift is the cost of rounding"
)


@dataclass
class Converted:
    """The results for a file with smaller weights."""

    cases: list[CaseResult] = field(default_factory=list)
    drift: tuple[Drift, ...] = ()
    mutants: list[MutantResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def converted_results(
    float32: str | os.PathLike[str],
    model: Model,
    expected: Sequence[Expected],
    *,
    mutants: str = "quick",
    max_drift: float | None = None,
    drift_label: str = LIMIT,
) -> Converted:
    """Compare a file with its source's float32 file converted to the file's precision.

    Args:
        float32: the float32 file.
        model: the file, open.
        expected: the cases of the float32 file.
        mutants: how many wrong copies of the file are tried.
        max_drift: the largest difference from the float64 model, relative to each output, by root mean square.
        drift_label: the label of the case on `max_drift`.
    """
    found = Converted()
    try:
        file = read_stored(model.path)
        if precision_of(model) == "int8":
            _int8(found, float32, file, model, expected, mutants)
        else:
            _float16(found, float32, file, model, expected)
    except LSTMOnnxError as error:
        found.cases.append(CaseResult(GRAPH, error=str(error), kind="stored"))
    found.drift = drifts(model, expected)
    if max_drift is not None:
        found.cases.append(limit_case(found.drift, max_drift, drift_label))
    return found


def _int8(
    found: Converted,
    float32: str | os.PathLike[str],
    file: Stored,
    model: Model,
    expected: Sequence[Expected],
    mutants: str,
) -> None:
    quantization = model.metadata.quantization
    assert quantization is not None  # noqa: S101 - it is an int8 file
    source = quantized_model(float32, **asdict(quantization))
    _compare_stored(found, file, Stored(source.model, source.initializers), model, expected)
    rewritten = replace(source, model=file.model, initializers=file.arrays)
    probe = Probe(rewritten, model.path, model.provider)
    cases = layer_cases(expected)
    results = [compare_layers(rewritten, probe, model, case) for case in cases]
    found.cases += [result for result in results if result.tensors]  # not every case takes a branch of an If
    compared = {tensor.output for result in results for tensor in result.tensors}
    if missing := [name for name in rewritten.quantized if name not in compared]:
        found.notes.append(
            f"{', '.join(missing)}: only the stored numbers and the graph were compared, since there was no case in "
            "which it ran and gave finite numbers"
        )
    if quantization.kernel in SAME_BITS_ALONE:
        for alone in row_results(rewritten, probe, model, cases):
            (found.notes if isinstance(alone, str) else found.cases).append(alone)  # type: ignore[arg-type]
    if mutants != "none" and cases and all(case.passed for case in found.cases):
        stored = Stored(source.model, source.initializers)
        told = [(len(result.tensors), _telling(case)) for case, result in zip(cases, results, strict=True)]
        found.mutants += int8_mutants(rewritten, stored, model, cases[told.index(max(told))], mutants)


def _telling(case: Expected) -> tuple[int, bool, int]:
    """How much a case reveals: whether states are given, whether steps have an order, how many numbers there are."""
    feeds = case.calls[0].feeds
    times = [feeds[name].shape[axis] for name, axis in case.time_axes.items() if name in feeds]
    return len(feeds), min(times, default=1) > 1, sum(array.size for array in feeds.values())


def _float16(
    found: Converted, float32: str | os.PathLike[str], file: Stored, model: Model, expected: Sequence[Expected]
) -> None:
    found.notes.append(_ROUNDED)
    plain = read_stored(float32)
    rounded, stored, _ = with_float16_weights(plain.model, plain.arrays)
    _compare_stored(found, file, Stored(rounded, stored), model, expected)
    # The same graph with rounded weights as float32: each Cast must give exactly these.
    twin = {name: stored.get(f"{name}/float16", array).astype(array.dtype) for name, array in plain.arrays.items()}
    with _opened(Stored(plain.model, twin), model) as reference:
        for case in layer_cases(expected):
            call = case.calls[0]
            outputs = as_float64(reference.run(call.feeds))
            predicted = {name: array for name, array in outputs.items() if name in call.reference}
            result = case.as_if(predicted).judge([model.run(call.feeds)])
            found.cases.append(replace(result, label=f"rounded weights, {result.label}"))


def _compare_stored(found: Converted, file: Stored, source: Stored, model: Model, expected: Sequence[Expected]) -> None:
    """The cases on numbers and on the graph, which must be equal, or at least compute the same bits."""
    interface = different_interface(file.model, source.model)
    nodes = "" if interface else different_nodes(file.model, source.model)
    other_form = bool(nodes) and _same_outputs(source, model, expected)
    found.cases.append(compare_numbers(file.arrays, source.arrays, other_form=other_form))
    if interface:
        found.cases.append(CaseResult(GRAPH, error=interface, kind="stored"))
    if not nodes:
        return
    versions = model.metadata.versions
    written = f"lstm-onnx {versions.get('lstm_onnx')}" + (f", torch {versions['torch']}" if "torch" in versions else "")
    if other_form:
        found.notes.append(
            f"the file was written by {written}, and its graph is not the one that this version writes, but gives "
            f"the same bits in all outputs: {nodes}"
        )
    else:
        found.cases.append(CaseResult(GRAPH, error=f"{nodes} (written by {written})", kind="stored"))


def _same_outputs(source: Stored, model: Model, expected: Sequence[Expected]) -> bool:
    """Whether a graph and a file give the same bits in all cases but those in chunks, and for unusual inputs."""
    ordinary = layer_cases(expected)[:1]
    others = [case for case in expected if case.kind in _WHOLE and case not in ordinary]
    calls = [call.feeds for case in [*ordinary, *others] for call in case.calls]
    feeds = itertools.chain(
        *(_unusual(case) for case in ordinary), calls, (_with_states(model, one) for one in calls if model.states)
    )
    try:
        with _opened(source, model) as other, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # about a NaN
            return all(_bits(model, each) == _bits(other, each) for each in feeds)
    except LSTMOnnxError:
        return False


def _unusual(case: Expected) -> Iterator[Mapping[str, np.ndarray]]:
    """Larger sizes, and each input in other ranges, between two integers of its row, with zeros, a NaN, an infinity.

    The last two are in one row of every layer's state, or of every step.
    """
    feeds = case.calls[0].feeds
    for name, array in feeds.items():
        if array.dtype.kind == "f" and array.size:
            yield {**feeds, name: _ties(array)}
            for number in (np.nan, np.inf):
                changed = array.copy()
                changed.reshape(array.shape[0] if array.ndim else 1, -1)[:, 0] = number
                yield {**feeds, name: changed}
            if name in case.time_axes:
                ended = array.copy()
                np.moveaxis(ended, case.time_axes[name], 0)[-1] = 0
                yield {**feeds, name: ended}
            for other in (
                0 * array,
                array / 100,
                array / 10**7,
                array * 1000,
                np.abs(array) % 1,
                array + 20,
                array - 20,
            ):
                yield {**feeds, name: np.asarray(other, array.dtype)}
    yield {
        name: _repeated(array, (case.batch_axes.get(name), case.time_axes.get(name))) for name, array in feeds.items()
    }


def _with_states(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`feeds` with random states, also those that PyTorch does not have: in whole sequences each cache is empty."""
    rng = np.random.default_rng(0)
    complete = model.completed(dict(feeds))
    states = {name: complete[name] for name in model.states if complete[name].dtype.kind == "f"}
    return complete | {
        name: np.asarray(rng.standard_normal(array.shape), array.dtype) for name, array in states.items()
    }


def _repeated(array: np.ndarray, axes: tuple[int | None, ...]) -> np.ndarray:
    """`array` five times along each of these axes."""
    for axis in axes:
        array = array if axis is None else np.concatenate([array] * 5, axis)
    return array


def _ties(array: np.ndarray) -> np.ndarray:
    """Numbers below 1 in rows whose scale is a power of 2; all but the first of a row lie between two integers."""
    halves = np.arange(array.size) % ROW_LIMIT + 0.5
    halves[1::2] *= -1
    numbers = np.minimum(halves, ROW_LIMIT - 0.5).reshape(array.shape)
    numbers[..., 0] = ROW_LIMIT
    return np.asarray(numbers / (ROW_LIMIT + 1), array.dtype)


def _bits(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, bytes] | None:
    """The bits of each output, with all NaNs alike; None if the file does not run on these inputs."""
    try:
        outputs = {name: np.array(array) for name, array in model.run(feeds).items()}
    except (InputError, RunError):
        return None
    for array in outputs.values():
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan
    return {name: array.tobytes() for name, array in outputs.items()}


def _opened(stored: Stored, model: Model) -> Any:
    """A graph, opened on the provider of `model`."""
    with temporary_folder() as folder:
        write_model(stored.model, stored.arrays, folder / "model.onnx")
        return load(folder / "model.onnx", provider=model.provider, threads=1, trial=None)


def converted_report(
    report: ParityReport,
    float32: str | os.PathLike[str],
    model: Model,
    expected: Sequence[Expected],
    *,
    mutants: str = "quick",
    max_drift: float | None = None,
    drift_label: str = LIMIT,
) -> ParityReport:
    """The report on the file of `model`.

    Args:
        report: on `float32`; without cases where that is not compared with PyTorch.
        float32: the file that it was made of.
        model: the file, open.
        expected: the cases of `float32`.
        mutants: how many wrong copies of the file are tried.
        max_drift, drift_label: see `converted_results`.
    """
    level = mutants if report.in_parity or not report.cases else "none"
    found = converted_results(float32, model, expected, mutants=level, max_drift=max_drift, drift_label=drift_label)
    labels = [replace(case, label=f"in float32: {case.label}") for case in report.cases]
    location = report.location and replace(report.location, case=f"in float32: {report.location.case}")
    notes = [*report.notes, *found.notes]
    if report.digest is not None and model.metadata.digest not in (None, report.digest):
        of_float32 = "the file was exported from other weights than the float32 file's (its digest differs)"
        notes.append(OTHER_WEIGHTS if report.reference == "PyTorch" else of_float32)
    return replace(
        report,
        file=model.path,
        digest=model.metadata.digest,
        cases=(*labels, *found.cases),
        location=location,
        mutants=(*report.mutants, *found.mutants),
        notes=tuple(notes),
        precision=precision_of(model),
        drift=found.drift,
    )
