"""Does a file give what PyTorch gives?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from ..errors import InputError, RunError
from ..exporter.torch_lstm import module_of, spec_of, state_of
from ..runtime import Model, load
from ..spec import LSTMSpec
from ..weights import digest
from .criterion import TensorResult, compare
from .reference import run_torch, windows
from .report import CaseResult, Report
from .sweep import Case, cases, gains


def verify(
    module: nn.LSTM,
    path: str | os.PathLike[str],
    *,
    provider: str = "auto",
    threads: int | None = None,
    seed: int = 0,
) -> Report:
    """Compare an exported file with the nn.LSTM that it came from.

    Every shape of the sweep (`parity.sweep.SHAPES`) is run with explicit states and without, and
    with lengths where the file takes them; see `parity.criterion` for when an output is right.

    Args:
        module: the nn.LSTM; it is not changed, whatever its mode and device.
        path: the .onnx file.
        provider: where the file runs: "auto", "cpu" or "cuda".
        threads: ONNX Runtime's threads.
        seed: for the inputs and states that are drawn.

    Returns:
        A report, truthy when the file is in parity.

    Raises:
        ExportError: `module` is not an nn.LSTM.
        FileError, ModelError, ProviderError: the file cannot be opened; a file that opens and then
            cannot run a case is a report that fails.
    """
    model = load(path, provider=provider, threads=threads)
    return make_report(model, module, verify_cases(model, module, seed=seed))


def planned_cases(model: Model, module: nn.LSTM, seed: int = 0) -> list[Case]:
    """The cases that `verify_cases` runs, but for the shorter ones that follow an inconclusive one."""
    spec = spec_of(module)
    return cases(spec, lengths="lengths" in model.inputs, seed=seed, loud=gains(spec, state_of(module, spec)))


def verify_cases(model: Model, module: nn.LSTM, *, seed: int = 0) -> Iterator[CaseResult]:
    """Case by case, as they are done; an inconclusive one is followed by shorter ones from the exact states."""
    spec = spec_of(module)
    # A float64 model has no wider reference than itself: its own rounding is float32's, scaled down.
    own_dtype = torch.float32 if spec.dtype == "float64" else getattr(torch, spec.dtype)
    # Built anew from the weights: the caller's module stays as it is, and may be parametrised.
    state = state_of(module, spec)
    own, wide = module_of(spec, state).to(own_dtype), module_of(spec, state).to(torch.float64)
    for case in planned_cases(model, module, seed):
        result = _run_case(model, spec, own, wide, case)
        yield result
        time = case.input.shape[1 if spec.batch_first else 0]
        for size in (2, 1):
            if result.inconclusive and size < time:
                result = _run_case(model, spec, own, wide, windows(wide, case, size))
                yield result
        if result.inconclusive:
            problem = "PyTorch's own error is too large even for a single step, so nothing can be said"
            yield CaseResult(case.label, error=problem)


def make_report(
    model: Model,
    module: nn.LSTM,
    results: Iterable[CaseResult],
    *,
    source: str | None = None,
    file: str | None = None,
) -> Report:
    """The report on `results`; `source` and `file` are what it calls the two sides."""
    notes = []
    spec = spec_of(module)
    if model.story.digest is not None and model.story.digest != digest(state_of(module, spec)):
        notes.append("the file was exported from other weights than these (its digest differs)")
    if model.spec is not None and model.spec != spec:
        notes.append("the file was exported from an LSTM with other arguments")
    done = tuple(results)
    if any(case.inconclusive for case in done):
        notes.append(
            "PyTorch's own error is too large in some cases (a chaotic model); "
            "they were compared in pairs of steps and single steps"
        )
    return Report(file or model.path, source or type(module).__name__, model.provider, done, tuple(notes))


def _run_case(model: Model, spec: LSTMSpec, own: nn.LSTM, wide: nn.LSTM, case: Case) -> CaseResult:
    try:
        actual = model.run(case.feeds())
    except (InputError, RunError) as error:
        return CaseResult(case.label, error=str(error))
    reference, torch_own = run_torch(wide, case), run_torch(own, case)
    scale = float(np.abs(reference["cn"]).max())
    if case.states is not None:
        scale = max(scale, float(np.abs(case.states[1]).max()))
    tensors: list[TensorResult] = []
    for name in reference:
        if name not in actual:
            return CaseResult(case.label, error=f"the file has no output {name}; it has {', '.join(actual)}")
        tensors.append(
            compare(name, actual[name], torch_own[name], reference[name], dtype=spec.dtype, cell_scale=scale)
        )
    return CaseResult(case.label, tuple(tensors))
