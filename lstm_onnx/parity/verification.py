"""From a PyTorch model and a file to a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from torch import nn

from ..atomic_io import require_path, temporary_folder
from ..errors import ConfigError, ExportError, ModelError
from ..exporter import export
from ..exporter.copies.caller_state import caller_state_kept
from ..exporter.copies.clone import clone_module
from ..exporter.sources.module_argument import unwrap_module
from ..exporter.sources.source import LSTMSource, ModuleSource, Source, load_source
from ..exporter.sources.torch_lstm import is_bare_lstm
from ..exporter.weights import validate_state_dict
from ..input_spec import InputSpec
from ..runtime import Model, load
from .build import build_report, with_mutants
from .comparison import Verification
from .golden_file import Golden
from .lstm.verification import LSTMVerification
from .modules.verification import ModuleVerification
from .mutants import require_level
from .report import CaseResult, ParityReport
from .user_data import UserData

Progress: TypeAlias = Callable[[Iterator[CaseResult], str, int], AbstractContextManager[Iterable[CaseResult]]]
"""Wraps results, a label and their number, to show a progress bar."""


@dataclass(frozen=True)
class Verified:
    """A report, and its cases as a golden file stores them."""

    report: ParityReport
    golden: Golden


@caller_state_kept()
def verify_all(
    source: nn.Module | str | os.PathLike[str] | Source,
    file: str | os.PathLike[str] | Model | None = None,
    *,
    example_inputs: Any = None,
    providers: Sequence[str] = ("auto",),
    precisions: Sequence[str] = (),
    threads: int | None = None,
    seed: int = 0,
    mutants: str = "quick",
    data: Sequence[Mapping[str, Any]] | UserData = (),
    command: str = "",
    progress: Progress | None = None,
) -> list[Verified]:
    """Compare a model with a file, or with its fresh exports, on each provider; see `verify`.

    Args:
        source: as in `verify`, or a source that was loaded.
        file: as in `verify`.
        example_inputs: as in `verify`.
        providers: each gives a report of its own.
        precisions: "float16", "float32" or "float64": fresh exports to compare, instead of one in the source's own.
        threads: ONNX Runtime's threads.
        seed: for the inputs and states that are drawn.
        mutants: as in `verify`.
        data: as in `verify`, or a data file that was read.
        command: the command line, for the report.
        progress: shows the progress.

    Raises:
        ConfigError: a combination of arguments is not possible.
        LSTMOnnxError: see `verify`.
    """
    if isinstance(source, (str, os.PathLike)):
        require_path(source, "a model's .toml, or package.module:callable")
        source = load_source(os.fspath(source))
    configured = isinstance(source, (LSTMSource, ModuleSource))
    if configured and example_inputs is not None:
        raise ConfigError(f"{source.name}: describes its own inputs; leave example_inputs out")
    if precisions and file is not None:
        raise ConfigError(f"--precision is for fresh exports, and {file} has its own; leave one of them out")
    if precisions and not configured:
        raise ConfigError("precisions are for configured models; cast the module itself, as in module.half()")
    done = []
    with ExitStack() as stack:
        for compared, opened, name in _files(source, file, precisions, example_inputs, stack):
            for provider in providers:
                with ExitStack() as models:
                    model = opened
                    if not isinstance(model, Model):
                        model = models.enter_context(load(model, provider=provider, threads=threads, trial=None))
                    feeds, notes = data.feeds(model) if isinstance(data, UserData) else (data, [])
                    if configured:
                        verification = verification_of_source(compared, model, seed=seed, data=feeds)
                    else:
                        verification = verification_of(
                            model, compared, seed=seed, example_inputs=example_inputs, data=feeds
                        )
                    verification.notes += notes
                    results = _run(verification, progress)
                    if configured:
                        results += _source_problems(compared, model)
                    label = compared.name if configured else None
                    report = make_report(verification, results, source=label, file=name, mutants=mutants)
                    report = replace(report, command=command)
                    done.append(Verified(report, Golden.of(report, verification)))
    return done


def _run(verification: Verification, progress: Progress | None) -> list[CaseResult]:
    if progress is None:
        return list(verification.results())
    with progress(verification.results(), "verifying", verification.planned) as results:
        return list(results)


def _files(
    source: nn.Module | Source,
    file: str | os.PathLike[str] | Model | None,
    precisions: Sequence[str],
    example_inputs: Any,
    stack: ExitStack,
) -> Iterator[tuple[Any, Any, str | None]]:
    """What is compared: the source, the file, and the report's name of it."""
    if file is not None:
        yield source, file, None
        return
    folder = stack.enter_context(temporary_folder())
    if not isinstance(source, (LSTMSource, ModuleSource)):
        export(source, folder / "model.onnx", example_inputs=example_inputs, check=False)
        yield source, folder / "model.onnx", "a fresh export"
        return
    for precision in precisions or (None,):
        cast = source if precision is None else in_precision(source, precision)
        path = folder / f"{precision or 'model'}.onnx"
        cast.export(path, check=False)
        yield cast, path, f"a fresh export in {precision}" if precision else "a fresh export"


def in_precision(source: Source, dtype: str) -> Source:
    """`source` with its parameters and floating-point inputs in `dtype`: "float16", "float32" or "float64".

    Raises:
        WeightsError: a weight is too large for float16.
    """
    if isinstance(source, LSTMSource):
        spec = replace(source.spec, dtype=dtype)
        return replace(source, spec=spec, state=validate_state_dict(spec, source.state, where=source.name))
    kind: torch.dtype = getattr(torch, dtype)
    inputs = tuple(replace(spec, dtype=dtype) if np.dtype(spec.dtype).kind == "f" else spec for spec in source.inputs)
    example = source.example
    if example is not None:
        tensors = {
            name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in example.tensors.items()
        }
        example = replace(example, tensors=tensors)
    return replace(source, nn_module=clone_module(source.nn_module, kind), inputs=inputs, example=example)


def _source_problems(source: Source, model: Model) -> list[CaseResult]:
    """A failing case for a file without the lengths that its source asks for."""
    if not source.options.lengths or "lengths" in model.inputs:
        return []
    return [CaseResult("lengths", error=f"{source.name} asks for the input lengths, and the file has none")]


def verification_of_source(
    source: Source, model: Model, *, seed: int = 0, data: Sequence[Mapping[str, Any]] = ()
) -> Verification:
    """The verification of `model` against a source, whose description of its inputs overrides the file's."""
    if isinstance(source, LSTMSource):
        return verification_of(model, source.module(), seed=seed, data=data)
    # A file from elsewhere does not say what its inputs are; the source's own example does.
    own = source.example if not source.inputs and not model.metadata.inputs else None
    example = None if own is None else own.as_example_inputs()
    return verification_of(model, source.module(), seed=seed, inputs=source.inputs, example_inputs=example, data=data)


def verification_of(
    model: Model,
    module: nn.Module,
    *,
    seed: int = 0,
    inputs: Sequence[InputSpec] = (),
    example_inputs: Any = None,
    data: Sequence[Mapping[str, Any]] = (),
) -> Verification:
    """The verification of `model` against `module`.

    `inputs` are those that a source describes, instead of the file's metadata; `data` as in `verify`.
    """
    if model.metadata.quantization is not None:
        raise ModelError(
            "it is an int8 file, whose numbers are not PyTorch's",
            path=model.path,
            hint="verify the float32 file that it was made from; quantize has proven the rest",
        )
    module = unwrap_module(module)
    bare = is_bare_lstm(module)
    if model.metadata.spec is not None and not bare:
        raise ExportError(
            f"{type(module).__name__} is not an nn.LSTM, and {model.path} was exported from one; "
            "verify the file with the module that it came from"
        )
    if bare and not model.metadata.inputs and example_inputs is None:
        return LSTMVerification(model, module, seed=seed, data=data)
    return ModuleVerification(model, module, seed=seed, inputs=inputs, example_inputs=example_inputs, data=data)


def make_report(
    verification: Verification,
    results: Iterable[CaseResult],
    *,
    source: str | None = None,
    file: str | None = None,
    mutants: str = "quick",
) -> ParityReport:
    """The report on `results`, with the location and causes of a difference, or the results of the self-test.

    Args:
        verification: what gave the results.
        results: all of them.
        source: the report's name of the module.
        file: the report's name of the file.
        mutants: a level of the self-test, of `mutants.LEVELS`.

    Raises:
        ConfigError: `mutants` is not a level.
    """
    require_level(mutants)
    results = list(results)
    report = build_report(
        verification.model,
        source or type(verification.module).__name__,
        results,
        verification.pairs,
        verification.notes,
        file=file,
        torch_versions={"torch": str(torch.__version__), "onnx": onnx.__version__},
    )
    notes = list(report.notes)
    if any(case.inconclusive for case in results):
        notes.append(f"PyTorch's own error is too large in some cases (a chaotic model); {verification.chaotic_note}")
    if report.in_parity:
        report = with_mutants(
            report,
            verification.model,
            verification.expected,
            mutants,
            verification.seed,
            amplified=verification.amplified if mutants != "none" else None,
            harder=verification.harder(),
        )
        if mutants != "none" and not report.mutants:
            notes.append("the self-test found no LSTM, GRU or RNN operator in the file to change")
    else:
        location, causes = verification.diagnosis()
        report = replace(report, location=location, causes=causes)
    return replace(report, notes=tuple(notes), seconds=perf_counter() - verification.started)
