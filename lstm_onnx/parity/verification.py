"""Compares a PyTorch model with a file, and makes the report."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeAlias

import onnx
import torch
from torch import nn

from ..atomic_io import require_path, temporary_folder
from ..errors import ConfigError, ExportError
from ..exporter import export
from ..exporter.copies.caller_state import caller_state_kept, one_thread_if_small
from ..exporter.precision import example_in_dtype
from ..exporter.sources.module_argument import unwrap_module
from ..exporter.sources.source import LSTMSource, ModuleSource, Source, load_source
from ..exporter.sources.torch_lstm import is_bare_lstm
from ..input_spec import InputSpec
from ..runtime import Model
from ..runtime.unchanged import unchanged
from ..spec import INT8_KERNELS
from .build import INTERFACE, build_report, with_mutants
from .comparison import Verification
from .converted.drift import precision_of, require_drift, with_limited_drift
from .converted.results import converted_report
from .converted.source import export_float32, source_in_dtype
from .expected import constant_outputs, steady_outputs
from .generation.step_file import export_step, joined_report, step_loop
from .generation.verification import GenerationVerification
from .golden_file import Golden
from .lstm.verification import LSTMVerification
from .modules.verification import ModuleVerification
from .mutants.catalogue import changes_recurrence
from .mutants.self_test import require_level
from .report import ParityReport
from .results import CaseResult
from .runtimes import (
    ONNXRUNTIME,
    load_like,
    load_on,
    require_judgeable,
    require_open,
    require_runtime,
    running,
)
from .source_changes import changed_options, inputs_with_axes_of, interface_problems, renamed_outputs
from .special_values import probes, special_results
from .user_data import UserData

Progress: TypeAlias = Callable[[Iterator[CaseResult], str, int], AbstractContextManager[Iterable[CaseResult]]]
"""Wraps results, a label and their number, to show a progress bar."""


@dataclass(frozen=True)
class Verified:
    """A report, and its cases as stored in a golden file."""

    report: ParityReport
    golden: Golden


@caller_state_kept()
def verify_all(
    source: nn.Module | str | os.PathLike[str] | Source,
    file: str | os.PathLike[str] | Model | None = None,
    *,
    example_inputs: Any = None,
    providers: Sequence[str] = ("auto",),
    runtimes: Sequence[str] = (ONNXRUNTIME,),
    precisions: Sequence[str] = (),
    threads: int | None = None,
    seed: int = 0,
    mutants: str = "quick",
    data: Sequence[Mapping[str, Any]] | UserData = (),
    max_drift: float | None = None,
    golden: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> list[Verified]:
    """Compare a model with a file, or with its fresh exports, on each provider; see `verify`.

    Args:
        source: as in `verify`, or a loaded source.
        file: as in `verify`.
        example_inputs: as in `verify`.
        providers: the execution providers, each with its own report.
        runtimes: engines of `runtimes.RUNTIMES`, each with its own report.
        precisions: as in `export`: the precisions of fresh exports to compare, instead of the source's own.
        threads: the number of ONNX Runtime's threads.
        seed: the seed of the random inputs and states.
        mutants: as in `verify`.
        data: as in `verify`, or a data file that has been read.
        max_drift: as in `verify`.
        golden: whether the cases are for a golden file.
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
        raise ConfigError(f"precisions are for fresh exports, but {file} has its own; leave one of them out")
    if precisions and not configured:
        raise ConfigError("precisions are for configured models; export the module itself with precision=")
    require_drift(max_drift)
    for runtime, provider in itertools.product(runtimes, providers):
        require_runtime(runtime, provider, threads)
    require_open(file, *runtimes)
    done = []
    with unchanged(file, "verified"), ExitStack() as stack:
        for compared, opened, name in _files(source, file, precisions, example_inputs, stack):
            for runtime, provider in itertools.product(runtimes, providers):
                with ExitStack() as models:
                    model = opened
                    if not isinstance(model, Model):
                        engine = models.enter_context(running(runtime, threads))
                        model = models.enter_context(load_on(engine, model, provider, threads))
                    feeds, notes = data.feeds(model) if isinstance(data, UserData) else (data, [])
                    if isinstance(compared, Source):
                        notes = [*notes, *changed_options(compared, model)]
                    report, cases = _Comparison(
                        compared, model, example_inputs, seed, feeds, mutants, name, max_drift, golden, notes, progress
                    ).run()
                    done.append(Verified(replace(report, command=command), cases))
    return done


@dataclass(frozen=True)
class _Comparison:
    """One file and what it is compared with; see `verify_all`."""

    source: nn.Module | Source
    model: Model
    example_inputs: Any
    seed: int
    data: Sequence[Mapping[str, Any]]
    mutants: str
    name: str | None
    """The report's name of the file."""
    max_drift: float | None
    golden: bool
    notes: Sequence[str]
    progress: Progress | None

    def run(self) -> tuple[ParityReport, Golden]:
        """The report, and its cases for a golden file."""
        precision = precision_of(self.model)
        require_judgeable(self.model, precision)
        if precision and self.model.metadata.generation is not None:
            return self._by_step()
        if not precision:
            report, golden = self._compared(self.model)
            return with_limited_drift(report, self.model, golden.cases, self.max_drift), golden
        with temporary_folder() as folder:
            path = folder / "float32.onnx"
            export_float32(self.source, self.model, path, example_inputs=self.example_inputs, seed=self.seed)
            with load_like(self.model, path) as float32:
                report, golden = self._compared(float32)
            if len(list(folder.iterdir())) == 1:  # weights over 2 GB are in a file beside it
                golden = replace(golden, float32=path.read_bytes())
            report = converted_report(
                report, path, self.model, golden.cases, mutants=self.mutants, max_drift=self.max_drift
            )
        return replace(report, file=self.name or self.model.path), golden

    def _by_step(self) -> tuple[ParityReport, Golden]:
        """The report on a generating file with smaller weights, from its step's own file and a loop around that."""
        quantization = self.model.metadata.quantization
        if quantization is not None and quantization.kernel != INT8_KERNELS[0]:
            raise ConfigError(
                f"{self.model.path}: repeats a step by the kernel {quantization.kernel}, which may round otherwise "
                f"in a loop; verify the step's own file, or use {INT8_KERNELS[0]}"
            )
        source = self.source
        if isinstance(source, ModuleSource):
            source = replace(source, options=replace(source.options, generation=None))
        with temporary_folder() as folder:
            path = folder / "step.onnx"
            export_step(source, self.model, path, example_inputs=self.example_inputs, seed=self.seed)
            with load_like(self.model, path) as step:
                report, _ = replace(self, source=source, model=step, data=(), name=None, notes=()).run()
                verification = step_loop(self.model, step, source, seed=self.seed, data=self.data)
                verification.notes += self.notes
                results = self._results(verification)
                level = self.mutants if report.in_parity else "none"
                loop = make_report(verification, results, source=report.source, file=self.name, mutants=level)
        return joined_report(report, loop), Golden(report.source, ())

    def _compared(self, model: Model) -> tuple[ParityReport, Golden]:
        """Compare a file with PyTorch in the dtype in which it computes."""
        dtype = model.metadata.options.dtype if model.metadata.options is not None else None
        source = source_in_dtype(self.source, dtype)
        notes = self.notes
        if isinstance(source, Source):
            module = source.module()
            described, more = _described_inputs(source, model)
            notes = [*notes, *more]
        else:
            example = self.example_inputs
            if dtype is not None and example is not None:
                example = example_in_dtype(example, dtype)
            module, described = unwrap_module(source), {"example_inputs": example}
        with one_thread_if_small(module):
            verification = verification_of(model, module, seed=self.seed, data=self.data, **described)
            verification.notes += notes
            if isinstance(verification, ModuleVerification):
                verification.notes += renamed_outputs(source, verification.subject.own.outputs, model)
            results = self._results(verification)
            if all(result.passed or result.inconclusive for result in results):
                failed, found = special_results(verification.model, probes(verification))
                results += failed
                verification.notes += found
                if isinstance(verification, LSTMVerification) and verification.other_sizes:
                    results.append(CaseResult(INTERFACE, error=verification.other_sizes, kind="described"))
            label = None
            if isinstance(source, Source):
                results += [
                    CaseResult(INTERFACE, error=problem, kind="described")
                    for problem in interface_problems(source, model)
                ]
                label = source.name
            report = make_report(verification, results, source=label, file=self.name, mutants=self.mutants)
            return report, Golden.of(report, verification, near_ties=self.golden and bool(report))

    def _results(self, verification: Verification) -> list[CaseResult]:
        if self.progress is None:
            return list(verification.results())
        with self.progress(verification.results(), "verifying", verification.planned) as results:
            return list(results)


def _files(
    source: nn.Module | Source,
    file: str | os.PathLike[str] | Model | None,
    precisions: Sequence[str],
    example_inputs: Any,
    stack: ExitStack,
) -> Iterator[tuple[Any, Any, str | None]]:
    """The comparisons to make: the source, the file, and the file's name in the report."""
    if file is not None:
        yield source, file, None
        return
    folder = stack.enter_context(temporary_folder())
    if not isinstance(source, (LSTMSource, ModuleSource)):
        export(source, folder / "model.onnx", example_inputs=example_inputs, check=False)
        yield source, folder / "model.onnx", "a fresh export"
        return
    for precision in precisions or (None,):
        chosen = source.with_options(precision=precision)
        path = folder / f"{precision or 'model'}.onnx"
        chosen.export(path, check=False)
        yield chosen, path, f"a fresh export in {precision}" if precision else "a fresh export"


def _described_inputs(source: Source, model: Model) -> tuple[dict[str, Any], list[str]]:
    """The inputs that a source describes, which override those of the file's metadata, and notes."""
    if isinstance(source, LSTMSource):
        return {}, []
    # A file from another tool has no description of its inputs, but the source has an example.
    own = source.example if not source.inputs and not model.metadata.inputs else None
    inputs, notes = inputs_with_axes_of(source, model)
    return {"inputs": inputs, "example_inputs": None if own is None else own.as_example_inputs()}, notes


def verification_of(
    model: Model,
    module: nn.Module,
    *,
    seed: int = 0,
    inputs: Sequence[InputSpec] = (),
    example_inputs: Any = None,
    data: Sequence[Mapping[str, Any]] = (),
) -> Verification:
    """Make the verification of `model` against `module`.

    `inputs` are those that a source describes, in place of those in the file's metadata; `data` is as in `verify`.
    """
    module = unwrap_module(module)
    bare = is_bare_lstm(module)
    options: dict[str, Any] = {"seed": seed, "inputs": inputs, "example_inputs": example_inputs, "data": data}
    if model.metadata.generation is not None:
        return GenerationVerification.of_module(model, module, **options)
    if model.metadata.spec is not None and not bare:
        raise ExportError(
            f"{type(module).__name__} is not an nn.LSTM, but {model.path} was exported from one; "
            "verify the file with the module that it came from"
        )
    if bare and not model.metadata.inputs and example_inputs is None:
        return LSTMVerification(model, module, seed=seed, data=data)
    return ModuleVerification(model, module, **options)


def make_report(
    verification: Verification,
    results: Iterable[CaseResult],
    *,
    source: str | None = None,
    file: str | None = None,
    mutants: str = "quick",
) -> ParityReport:
    """Make the report on `results`, with the location and causes of a difference, or the results of the self-test.

    Args:
        verification: the verification that made the results.
        results: all results.
        source: the module's name in the report.
        file: the file's name in the report.
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
    judged = [expected for expected, result in verification.pairs if not result.inconclusive]
    constant = {name: str(value) for name, value in constant_outputs(judged).items()}
    constant |= {name: "the same" for name in sorted(steady_outputs(judged)) if name not in constant}
    notes += [
        f"{name} was {value} in every case, so what makes it differ was not put to the test; add such inputs (data)"
        for name, value in constant.items()
    ]
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
        if mutants != "none" and not any(changes_recurrence(result.name) for result in report.mutants):
            notes.append("the self-test found no LSTM, GRU, RNN or Scan operator in the file to change")
    else:
        location, causes = verification.diagnosis()
        report = replace(report, location=location, causes=causes)
    return replace(report, notes=tuple(notes), seconds=perf_counter() - verification.started)
