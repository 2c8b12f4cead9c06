"""Does a file give what PyTorch gives?"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from .. import __version__
from ..errors import ExportError
from ..exporter.sources.torch_lstm import is_bare_lstm, unwrap_module
from ..input_spec import InputSpec
from ..runtime import Model, load
from ..runtime.providers import onnxruntime
from .golden import Golden, require_name, write
from .interface import interface_case, interface_problems
from .lstm import LSTMVerification
from .modules import ModuleVerification
from .mutants import require_level, self_test
from .options import require_drawing
from .ranges import ranges_of
from .report import CaseResult, ParityReport


def verify(
    module: nn.Module,
    path: str | os.PathLike[str] | Model,
    *,
    example_inputs: Any = None,
    provider: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    mutants: str = "quick",
    data: Sequence[Mapping[str, Any]] = (),
    golden: str | os.PathLike[str] | None = None,
) -> ParityReport:
    """Compare an exported file with the module that it came from.

    Every shape of the sweep (`parity.sweep.SHAPES`) is run with explicit states and without, with
    lengths where the file takes them, and in chunks through the streaming runtime; see
    `parity.criterion` for when an output is right.  The inputs of a module that is more than an nn.LSTM
    are drawn from the ranges in the file's metadata.  A file that is not in parity is asked where it
    first differs and why; of one that is, wrong copies are made, which the comparison must reject.

    Args:
        module: the nn.LSTM or the module; it is not changed, whatever its mode and device.
        path: the .onnx file, or what `load` made of it, which then has its own provider and threads.
        example_inputs: for a module, as in `export`: needed where its forward takes more than tensors
            in dicts and lists, or where the file is not from lstm-onnx.
        provider: where the file runs: "auto", "cpu" or "cuda".
        threads: ONNX Runtime's threads.
        seed: for the inputs and states that are drawn.
        mutants: how many wrong copies are tried: "none", "quick" (one of each kind) or "all".
        data: inputs to be compared on beside those that are drawn, each by the file's input names.
        golden: where to store what was compared, once it has passed, for `verify_golden`; ends in .npz.

    Returns:
        A report, truthy when the file is in parity and no wrong copy passes for right.

    Raises:
        ConfigError: `mutants` is none of these, or `seed` or `data` is not possible.
        ExportError: the module cannot be run as the file is.
        ConfigError: the file's inputs are not those of the module.
        FileError, ModelError, ProviderError: the file cannot be opened; a file that opens and then
            cannot run a case is a report that fails.
    """
    require_drawing(seed, data)
    require_level(mutants)
    if golden is not None:
        require_name(golden)
    model = path if isinstance(path, Model) else load(path, provider=provider, threads=threads, trial=None)
    verification = verification_of(model, module, seed=seed, example_inputs=example_inputs, data=data)
    report = make_report(verification, verification.results(), mutants=mutants)
    if golden is not None and report:
        write(golden, Golden.of(report, verification))
    return report


def verification_of(
    model: Model,
    module: nn.Module,
    *,
    seed: int = 0,
    inputs: Sequence[InputSpec] = (),
    example_inputs: Any = None,
    data: Sequence[Mapping[str, Any]] = (),
) -> LSTMVerification | ModuleVerification:
    """What compares `model` with `module`: its `planned` cases, its `results`, its `notes`.

    `inputs` are those that a source describes, in the place of what the file says; `data` as in `verify`.
    """
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
    verification: LSTMVerification | ModuleVerification,
    results: Iterable[CaseResult],
    *,
    source: str | None = None,
    file: str | None = None,
    mutants: str = "quick",
) -> ParityReport:
    """The report on `results`, with where and why the file differs, or what its wrong copies came to.

    Args:
        verification: what the results are of.
        results: all of them.
        source: what the report calls the module.
        file: what the report calls the file.
        mutants: a level of the self-test, of `mutants.LEVELS`.

    Raises:
        ConfigError: `mutants` is no level.
    """
    require_level(mutants)
    done = tuple(results)
    notes = list(verification.notes)
    problems = list(interface_problems(verification.model, verification.expected))
    if problems and verification.model.metadata.versions:
        # lstm-onnx's own files have nothing beside what the module has.
        done = (*done, interface_case(problems))
    else:
        notes += problems
    if any(case.inconclusive for case in done):
        how = (
            "they were compared in pairs of steps and single steps"
            if isinstance(verification, LSTMVerification)
            else "the other cases were judged"
        )
        notes.append(f"PyTorch's own error is too large in some cases (a chaotic model); {how}")
    model = verification.model
    report = ParityReport(
        file or model.path,
        source or type(verification.module).__name__,
        model.provider,
        done,
        tuple(notes),
        versions=versions(),
        ranges=ranges_of(verification.model, verification.pairs),
    )
    if report.in_parity:
        tried = self_test(
            model, verification.expected, mutants, verification.seed, loud=verification.loud, ranges=report.ranges
        )
        report = replace(report, mutants=tuple(tried))
        if mutants != "none" and not report.mutants:
            notes.append("the self-test found no LSTM, GRU or RNN operator in the file to make mistakes in")
            report = replace(report, notes=tuple(notes))
    else:
        location, causes = verification.diagnosis()
        report = replace(report, location=location, causes=causes)
    return replace(report, seconds=perf_counter() - verification.started)


def versions() -> dict[str, str]:
    """Of what had a part in a report: this package, torch, ONNX Runtime, onnx, numpy and Python."""
    return {
        "lstm-onnx": __version__,
        "torch": str(torch.__version__),
        "onnxruntime": str(onnxruntime().__version__),
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
