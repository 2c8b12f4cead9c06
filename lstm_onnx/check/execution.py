"""Opens the file in ONNX Runtime: does it open, where do its nodes run, and does it run at several sizes?"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ModelError, ProviderError
from ..isolation.stages import share, stage
from ..onnxgraph import error_line
from ..runtime import Model
from ..runtime.ort_messages import first_line
from ..runtime.providers import (
    CPU,
    CUDA,
    Placement,
    cuda_unavailable,
    off_cuda,
    onnxruntime,
    open_session,
    ort_errors,
    placements,
)
from .context import listed
from .finding import Finding
from .report import CheckResults
from .rules.precision import FLOAT64_ON_CPU
from .rules.providers import PLACEMENT, RUNNABLE
from .runs import model_errors, run_error, runnable

_PROVIDERS = {"cpu": CPU, "cuda": CUDA}


@dataclass(frozen=True)
class Execution:
    """The provider on which a file was opened, the findings there, and where each node runs."""

    provider: str
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...] = ()


def not_opened(provider: str, reason: str) -> Execution:
    """The result for a file that is not opened."""
    return Execution(expected_provider(provider), (PLACEMENT.skipped(reason), RUNNABLE.skipped(reason)))


def execute(file: str, provider: str, *, require: bool, batches: Mapping[str, str]) -> Execution:
    """Open a file, and run it at several sizes.

    Args:
        file: the .onnx file.
        provider: "cpu", "cuda" or "auto".
        require: every node must be on the provider, also those that ONNX Runtime keeps on the CPU by design.
        batches: the axes that are a batch, each with the first of its names.

    Raises:
        ProviderError: the provider cannot be used on this machine.
    """
    stage("session creation")
    try:
        session, where = open_session(file, provider, every_node=False)
    except ModelError as error:
        unknown = PLACEMENT.skipped("not known, since the file cannot be opened")
        refused = RUNNABLE.violated("", run_error(error), "fix what it names, or export the model again")
        return Execution(expected_provider(provider), (unknown, refused))
    try:
        placed = tuple(placements(session))
    except model_errors() as error:
        message = f"ONNX Runtime does not say where its nodes run: {error_line(first_line(error))}"
        placed, placement = (), PLACEMENT.violated("", message, "upgrade it")
    else:
        placement = _placement(placed, provider, where, require=require)
    share(CheckResults(where, (placement,), (), placed).to_dict())
    stage("the first run")
    runs: tuple[Finding, ...]
    try:
        # States have their own rule: here every input is passed.
        model = Model(file, session, where, states={})
    except ProviderError as error:
        runs = (FLOAT64_ON_CPU.violated("", run_error(error)), RUNNABLE.skipped("not tried, since it cannot run"))
    except model_errors() as error:
        runs = (RUNNABLE.violated("", f"it cannot be loaded: {run_error(error)}"),)
    else:
        runs = tuple(runnable(model, batches))
    return Execution(where, (placement, *runs), placed)


def open_plainly(file: str) -> None:
    """Open a file on the CPU with ONNX Runtime's default options, which may end the process."""
    stage("opening it with ONNX Runtime's default options")
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with contextlib.suppress(*ort_errors(), MemoryError):
        ort.InferenceSession(file, options, providers=[CPU])


def expected_provider(provider: str) -> str:
    """The provider that "auto" stands for on this machine."""
    if provider != "auto":
        return provider
    return "cpu" if cuda_unavailable() is not None else "cuda"


def _placement(placed: Sequence[Placement], provider: str, used: str, *, require: bool) -> Finding:
    """Whether the nodes are on the provider; with `require`, also those that are on the CPU by design."""
    if require or used == "cpu":
        elsewhere = [item for item in placed if item.provider != _PROVIDERS[used]]
    else:
        elsewhere = off_cuda(placed)
    names = listed([f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere])
    if elsewhere and (require or provider != "auto"):
        by_design = used == "cuda" and not off_cuda(elsewhere)
        fix = "these are on the CPU by design: leave out --require" if by_design else ""
        return PLACEMENT.violated(names, f"{len(elsewhere)} of {len(placed)} nodes are not on {used}", fix)
    rest = f", but {len(elsewhere)} on the CPU: {names}" if elsewhere else ""
    return PLACEMENT.passed(f"{len(placed)} nodes run on {used}{rest}")
