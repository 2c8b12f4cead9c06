"""The file in ONNX Runtime: does it open, and do its nodes go where they were asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ModelError, ProviderError
from ..isolation.stages import share, stage
from ..runtime import Model
from ..runtime.providers import (
    CPU,
    CUDA,
    Placement,
    cuda_unavailable,
    first_line,
    off_cuda,
    open_session,
    placements,
)
from .dynamic import model_errors, run_words, runnable
from .report import REEXPORT, Examined, Finding, failed, passed, skipped, words

_PROVIDER, _RUNNABLE, _DOUBLE = "provider", "runnable", "float64-on-cpu"
_PROVIDERS = {"cpu": CPU, "cuda": CUDA}
_MOST_NAMES = 5


@dataclass(frozen=True)
class Ran:
    """What became of a file on a provider: where it was opened, what the rules say, where each node is."""

    provider: str
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...] = ()


def unopened(provider: str, why: str) -> Ran:
    """Of a file that is better left alone."""
    return Ran(used(provider), (skipped(_PROVIDER, why), skipped(_RUNNABLE, why)))


def on_provider(file: str, provider: str, *, require: bool, batches: Mapping[str, str]) -> Ran:
    """Where the model runs, and whether it does.

    Args:
        file: the .onnx file.
        provider: "cpu"; "cuda", where it can be used; or "auto".
        require: whether every single node has to be there.
        batches: the axes that are a batch, each with the first of its names.

    Raises:
        ProviderError: the provider itself cannot be used here.
    """
    stage("session creation")
    try:
        session, where = open_session(file, provider, every_node=False)
    except ModelError as error:
        unknown = skipped(_PROVIDER, "not known, since it cannot be opened")
        refused = failed(_RUNNABLE, "", run_words(error), f"mend what it names, or {REEXPORT}")
        return Ran(used(provider), (unknown, refused))
    try:
        placed = tuple(placements(session))
    except model_errors() as error:
        text = f"ONNX Runtime does not say where its nodes run: {words(first_line(error))}"
        placed, on = (), failed(_PROVIDER, "", text, "upgrade it")
    else:
        on = _placed(placed, provider, where, require=require)
    share(Examined(where, (on,), (), placed).to_dict())
    stage("the first run")
    told: tuple[Finding, ...]
    try:
        # States are a matter of their own rule: here every input is given.
        model = Model(file, session, where, states={})
    except ProviderError as error:
        told = failed(_DOUBLE, "", run_words(error)), skipped(_RUNNABLE, "not tried, since it cannot run")
    except model_errors() as error:
        told = (failed(_RUNNABLE, "", f"it cannot be loaded: {run_words(error)}"),)
    else:
        told = tuple(runnable(model, batches))
    return Ran(where, (on, *told), placed)


def used(provider: str) -> str:
    """Where "auto" would have gone."""
    if provider != "auto":
        return provider
    return "cpu" if cuda_unavailable() is not None else "cuda"


def _placed(placed: Sequence[Placement], provider: str, used: str, *, require: bool) -> Finding:
    """`require` asks for what ONNX Runtime keeps on the CPU by design, too."""
    if require or used == "cpu":
        elsewhere = [item for item in placed if item.provider != _PROVIDERS[used]]
    else:
        elsewhere = off_cuda(placed)
    names = ", ".join(f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere[:_MOST_NAMES])
    names += ", ..." if len(elsewhere) > _MOST_NAMES else ""
    if elsewhere and (require or provider != "auto"):
        by_design = used == "cuda" and not off_cuda(elsewhere)
        fix = "these are on the CPU by design: leave out --require" if by_design else ""
        return failed(_PROVIDER, names, f"{len(elsewhere)} of {len(placed)} nodes are not on {used}", fix)
    rest = f", but {len(elsewhere)} on the CPU: {names}" if elsewhere else ""
    return passed(_PROVIDER, f"{len(placed)} nodes run on {used}{rest}")
