"""Verifies a file against a golden file, without PyTorch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from ..atomic_io import temporary_folder
from ..errors import ConfigError
from ..runtime import Model
from ..runtime.unchanged import unchanged
from .build import build_report, with_mutants
from .converted.drift import precision_of, require_drift, with_limited_drift
from .criterion import TensorResult
from .expected import Call, Expected, first_difference
from .golden_file import Golden, read
from .growth import ALONE
from .own_states import file_only
from .replay import replay
from .report import ParityReport
from .results import CaseResult
from .runtimes import ONNXRUNTIME, load_like, load_on, require_judgeable, require_open, require_runtime, running

_MOST_TIPPED = 1 / 16
"""The largest share of calls with integers in which some may differ, such as an argmax of nearly equal numbers."""


def verify_golden(
    path: str | os.PathLike[str] | Model,
    golden: str | os.PathLike[str],
    *,
    provider: str = "auto",
    runtime: str = ONNXRUNTIME,
    threads: int | None = None,
    mutants: str = "none",
    max_drift: float | None = None,
) -> ParityReport:
    """Compare a file with the golden file of its model; PyTorch is not needed.

    Args:
        path: the .onnx file, or what `load` returned, which keeps its own provider and threads.
        golden: what `verify` stored.
        provider: where the file runs: "auto", "cpu" or "cuda".
        runtime: the engine that runs it, as in `verify`.
        threads: ONNX Runtime's threads.
        mutants: how many mutants are tried, as in `verify`; they need onnx.
        max_drift: as in `verify`.

    Returns:
        A report like that of `verify`, on the same cases by the same criterion.

    Raises:
        ConfigError: the file has other inputs or outputs than the golden file's model, or `mutants` is not a level.
        FileError: a file is missing, or the golden file is damaged or has a newer version of the format.
        ModelError, ProviderError: the file cannot be opened.
    """
    started = time.perf_counter()
    if not (isinstance(mutants, str) and mutants == "none"):
        from .mutants.self_test import require_level  # needs onnx

        require_level(mutants)
    require_runtime(runtime, provider, threads)
    require_drift(max_drift)
    require_open(path, runtime)
    with unchanged(path, "verified"), running(runtime, threads) as engine:
        model = path if isinstance(path, Model) else load_on(engine, path, provider, threads)
        report = _verified(model, golden, mutants, max_drift)
    return replace(report, seconds=time.perf_counter() - started)


def _verified(model: Model, golden: str | os.PathLike[str], mutants: str, max_drift: float | None) -> ParityReport:
    stored = read(golden)
    _require_same_names(model, stored, golden)
    require_judgeable(model, precision_of(model))
    if precision_of(model):
        return _converted(model, stored, golden, mutants, max_drift)
    return with_limited_drift(_compared(model, stored, golden, mutants), model, stored.cases, max_drift)


def _compared(model: Model, stored: Golden, golden: str | os.PathLike[str], mutants: str) -> ParityReport:
    """The report on the file of `model` as it is."""
    notes = list(stored.notes)
    if stored.digest is not None and model.metadata.digest not in (None, stored.digest):
        notes.append("the file was exported from other weights than the golden file's (its digest differs)")
    pairs = _judged(model, stored.cases)
    report = build_report(
        model,
        f"{stored.source} (golden file {os.fspath(golden)})",
        [result for _, result in pairs],
        pairs,
        notes,
        torch_versions={name: version for name, version in stored.versions.items() if name == "torch"},
    )
    wrong = [(case, result) for case, result in pairs if not result.inconclusive and not result.passed]
    report = replace(report, location=first_difference(wrong))
    if mutants != "none" and report.in_parity:
        report = with_mutants(report, model, stored.cases, mutants)
    return report


def _judged(model: Model, cases: Sequence[Expected]) -> list[tuple[Expected, CaseResult]]:
    """The cases and their results, in which differing integers fail if they differ in too many calls.

    That is for golden files that do not say which integers rounding may change, as it often does in float16.
    """
    pairs = [(case, replay(model, case)) for case in cases]
    alone = [(case, result) for case, result in pairs if case.kind in ALONE and case.dtype != "float16"]
    calls = sum(_has_integers(call) for case, _ in alone for call in case.calls)
    differing = [replace(case, calls=(call,)) for case, result in alone if _tipped(result) for call in case.calls]
    count = sum(_tipped(replay(model, one)) for one in differing)
    if count <= max(1.0, _MOST_TIPPED * calls):
        return pairs
    problem = f"differs in integers, as in {count} of {calls} calls: more than rounding explains"

    def strict(tensor: TensorResult) -> TensorResult:
        return replace(tensor, ratio=math.inf, problem=problem) if tensor.tipped else tensor

    return [(case, replace(result, tensors=tuple(map(strict, result.tensors)))) for case, result in pairs]


def _has_integers(call: Call) -> bool:
    return any(array.dtype.kind in "iub" for array in call.reference.values())


def _tipped(result: CaseResult) -> bool:
    return any(tensor.tipped for tensor in result.tensors)


def _converted(
    model: Model, stored: Golden, golden: str | os.PathLike[str], mutants: str, max_drift: float | None
) -> ParityReport:
    """The report on a file with smaller weights, based on the float32 file that the golden file holds."""
    if model.metadata.generation is not None:
        raise ConfigError(
            f"{model.path}: repeats a step with {precision_of(model)} weights, for which there are no golden files; "
            "verify it with its PyTorch model"
        )
    if stored.float32 is None:
        raise ConfigError(
            f"{model.path}: has {precision_of(model)} weights, but {os.fspath(golden)} is from a file without; store "
            "one with lstm-onnx verify SOURCE FILE --golden"
        )
    from .converted.results import converted_report

    with temporary_folder() as folder:
        path = folder / "float32.onnx"
        path.write_bytes(stored.float32)
        with load_like(model, path) as float32:
            # Mutants of the float32 file show how well it is compared with PyTorch.
            level, cases = mutants, stored
            if stored.reference != "PyTorch":  # then the errors over time say nothing about a model
                level, cases = "none", replace(stored, cases=tuple(replace(c, time_axes={}) for c in stored.cases))
            report = replace(_compared(float32, cases, golden, level), reference=stored.reference)
        return converted_report(report, path, model, stored.cases, mutants=mutants, max_drift=max_drift)


def _require_same_names(model: Model, golden: Golden, place: str | os.PathLike[str]) -> None:
    inputs = {name for case in golden.cases for call in case.calls for name in call.feeds}
    outputs = {name for case in golden.cases for call in case.calls for name in call.reference}
    optional = {*model.states, *file_only(model.metadata), *(["lengths"] if model.spec is not None else [])}
    if not set(model.inputs) - optional <= inputs <= set(model.inputs) or not outputs <= set(model.outputs):
        raise ConfigError(
            f"{model.path}: has inputs {', '.join(model.inputs)} and outputs {', '.join(model.outputs)}, and {place} "
            f"is from a model with inputs {', '.join(sorted(inputs))} and outputs {', '.join(sorted(outputs))}; "
            "is it this file's golden file?"
        )
