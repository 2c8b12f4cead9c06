"""Does a file give what PyTorch gives?"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from .. import __version__
from ..errors import ExportError, InputError
from ..exporter.torch_lstm import is_bare, module_of, spec_of, state_of, unwrapped
from ..inputs import InputSpec
from ..runtime import Model, load
from ..runtime.providers import onnxruntime
from ..spec import LSTMSpec
from ..weights import digest
from .data import fitting
from .expected import Call, Expected
from .golden import Golden, require_name, write
from .modules import ModuleVerification
from .mutants import require_level, self_test
from .reference import run_torch, windows
from .replay import replay
from .report import CaseResult, Cause, Location, Report
from .sweep import SHAPES, Case, cases, gains


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
) -> Report:
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
        ConfigError: `mutants` is none of these.
        ExportError: the module cannot be run as the file is.
        ConfigError: the file's inputs are not those of the module.
        FileError, ModelError, ProviderError: the file cannot be opened; a file that opens and then
            cannot run a case is a report that fails.
    """
    if golden is not None:
        require_name(golden)
    model = path if isinstance(path, Model) else load(path, provider=provider, threads=threads)
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
    module = unwrapped(module)
    bare = is_bare(module)
    if model.story.spec is not None and not bare:
        raise ExportError(
            f"{type(module).__name__} is not an nn.LSTM, and {model.path} was exported from one; "
            "verify the file with the module that it came from"
        )
    if bare and not model.story.inputs and example_inputs is None:
        return LSTMVerification(model, module, seed=seed, data=data)
    return ModuleVerification(model, module, seed=seed, inputs=inputs, example_inputs=example_inputs, data=data)


class LSTMVerification:
    """A file beside a bare nn.LSTM.

    `shapes` are the (batch, time) that are drawn; `data` inputs to be compared on beside those that are
    drawn, by the file's input names.
    """

    def __init__(
        self,
        model: Model,
        module: Any,
        *,
        seed: int = 0,
        data: Sequence[Mapping[str, Any]] = (),
        shapes: Sequence[tuple[int, int]] = SHAPES,
    ) -> None:
        self.started = perf_counter()
        self.model = model
        self.module = module
        self.seed = seed
        self.spec: LSTMSpec = spec_of(module)
        # Built anew from the weights: the caller's module stays as it is, and may be parametrised.
        self.state = state_of(module, self.spec)
        loud = gains(self.spec, self.state)
        streams = bool(model.states) and not self.spec.bidirectional
        lengths = "lengths" in model.inputs
        self.cases = cases(self.spec, lengths=lengths, streams=streams, seed=seed, loud=loud, shapes=shapes)
        self.cases += [_data_case(model, index, feeds) for index, feeds in enumerate(data)]
        self.notes: list[str] = []
        self.expected: list[Expected] = []
        """What was compared so far."""
        if model.story.digest is not None and model.story.digest != digest(self.state):
            self.notes.append("the file was exported from other weights than these (its digest differs)")
        if model.spec is not None and model.spec != self.spec:
            self.notes.append("the file was exported from an LSTM with other arguments")

    @property
    def planned(self) -> int:
        """How many cases there are, but for the shorter ones that follow an inconclusive one."""
        return len(self.cases)

    def modules(self) -> tuple[nn.LSTM, nn.LSTM]:
        """The LSTM in its own precision and in float64."""
        # A float64 model has no wider reference than itself: its own rounding is float32's, scaled down.
        own = torch.float32 if self.spec.dtype == "float64" else getattr(torch, self.spec.dtype)
        return module_of(self.spec, self.state).to(own), module_of(self.spec, self.state).to(torch.float64)

    def results(self) -> Iterator[CaseResult]:
        """Case by case, as they are done; an inconclusive one is followed by shorter ones from the exact states."""
        own, wide = self.modules()
        for case in self.cases:
            for expected in expectations(own, wide, self.spec, case):
                self.expected.append(expected)
                result = replay(self.model, expected)
                yield result
            if result.inconclusive:
                problem = "PyTorch's own error is too large even for a single step, so nothing can be said"
                yield CaseResult(case.label, error=problem)

    def diagnosis(self, _results: Sequence[CaseResult]) -> tuple[Location | None, tuple[Cause, ...]]:
        """Where the file first differs, and why, as far as it can be told."""
        return None, ()


def expectations(own: nn.LSTM, wide: nn.LSTM, spec: LSTMSpec, case: Case) -> Iterator[Expected]:
    """What `case` must give; where that is inconclusive, then its pairs of steps, and then its single steps."""
    expected = _expected(own, wide, spec, case)
    yield expected
    time = case.input.shape[1 if spec.batch_first else 0]
    for size in (2, 1):
        if expected.inconclusive and size < time:
            expected = _expected(own, wide, spec, replace(windows(wide, case, size), kind="steps"))
            yield expected


def _expected(own: nn.LSTM, wide: nn.LSTM, spec: LSTMSpec, case: Case) -> Expected:
    reference = run_torch(wide, case)
    scale = float(np.abs(reference["cn"]).max())
    if case.states is not None:
        scale = max(scale, float(np.abs(case.states[1]).max()))
    time_axis = 1 if spec.batch_first else 0
    return Expected(
        case.label,
        (Call(case.feeds(), run_torch(own, case), reference),),
        spec.dtype,
        scale,
        case.kind,
        case.chunkings,
        time_axes={"input": time_axis, "output": time_axis},
        batch_axes={"input": 1 - time_axis, "output": 1 - time_axis, "lengths": 0, "hn": 1, "cn": 1},
        scales=dict.fromkeys(("output", "hn"), _h_scale(wide)),
    )


def _h_scale(module: nn.LSTM) -> float:
    """The size of h where rounding is concerned: o tanh(c) is within 1, and a projection sums over that."""
    norms = [float(w.norm(dim=1).max()) for name, w in module.state_dict().items() if name.startswith("weight_hr")]
    return max(norms, default=1.0)


def _data_case(model: Model, index: int, feeds: Mapping[str, Any]) -> Case:
    """The user's own inputs, completed and checked as `Model.run` does it."""
    label = f"data {index}"
    try:
        arrays = fitting(model, feeds)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
    if "input" not in arrays:
        raise InputError(f"{label}: an nn.LSTM takes input, and {model.path} takes {', '.join(model.inputs)}")
    states = (arrays["h0"], arrays["c0"]) if "h0" in feeds or "c0" in feeds else None
    return Case(label, arrays["input"], states, arrays.get("lengths"), "data")


def make_report(
    verification: LSTMVerification | ModuleVerification,
    results: Iterable[CaseResult],
    *,
    source: str | None = None,
    file: str | None = None,
    mutants: str = "quick",
) -> Report:
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
    if any(case.inconclusive for case in done):
        how = (
            "they were compared in pairs of steps and single steps"
            if isinstance(verification, LSTMVerification)
            else "the other cases were judged"
        )
        notes.append(f"PyTorch's own error is too large in some cases (a chaotic model); {how}")
    model = verification.model
    report = Report(
        file or model.path,
        source or type(verification.module).__name__,
        model.provider,
        done,
        tuple(notes),
        versions=versions(),
    )
    if report.in_parity:
        tried = self_test(model, verification.expected, mutants, verification.seed)
        report = replace(report, mutants=tuple(tried))
    else:
        location, causes = verification.diagnosis(done)
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
