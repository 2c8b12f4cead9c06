"""Applies all rules to one file, in this process; `isolated` runs it in a child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..atomic_io import require_utf8
from ..errors import ModelError, ProviderError
from ..isolation.stages import share, stage
from ..onnxgraph import ONNX_ERRORS, error_line, load_model
from ..runtime.providers import PROVIDERS, cuda_unavailable
from .context import CheckContext
from .execution import Execution, execute, expected_provider, not_opened
from .finding import Finding
from .report import CheckResults
from .rule import CUDA, FILE, FORECAST, PROVIDER, Application, Rule
from .rules import applications, sorted_names
from .rules.axes import DYNAMIC_AXES
from .rules.files import VALID_ONNX
from .rules.precision import FATAL_OPTIMIZER, FLOAT64_ON_CPU, may_have_fatal_optimizer
from .rules.resources import CRASHING_NODE, RESOURCE_BOMB, resource_bomb


def examine(
    path: str, provider: str, require: bool, ignore: Sequence[str], targets: Sequence[str] = ()
) -> dict[str, Any]:
    """Apply all rules to a file; findings so far are shared with a parent process.

    Args:
        path, provider, require, targets: as in `check`.
        ignore: names of rules; if resource-bomb is among them, it does not stop a file from being opened.

    Returns:
        The fields of a `CheckResults`, and "open_plainly": whether `execution.open_plainly` is to try the file.

    Raises:
        FileError, ModelError, ProviderError, MissingDependencyError: see `check`.
    """
    stage("reading the file")
    _require_provider(provider)
    require_utf8(path)
    model = load_model(path)
    if not model.graph.node:
        raise ModelError(f"{path}: is not an ONNX model that can run: it has no nodes; export the model again")
    results = CheckResults(expected_provider(provider))
    open_plainly = False
    share(results.to_dict())
    stage("shape inference")
    bombs = _guarded(RESOURCE_BOMB, lambda: resource_bomb(path, model))
    results = _shared(results, bombs, RESOURCE_BOMB)
    if bombs and RESOURCE_BOMB.name not in ignore:
        reason = f"not tried: the file is not safe to open ({bombs[0].rule})"
        results = _shared(results, [VALID_ONNX.skipped(reason), DYNAMIC_AXES.skipped(reason)])
        execution = not_opened(provider, reason)
    else:
        context = CheckContext.of(path, model, provider)
        results = _applied(results, applications(FILE, targets=targets), context)
        execution = execute(path, provider, require=require, batches=_batches(context))
        stage("the rules on providers")
        needs = _provider_needs(provider, execution)
        results = _applied(results, applications(*needs), replace(context, provider=execution.provider))
        open_plainly = execution.provider == "cpu" and bool(execution.placements) and may_have_fatal_optimizer(context)
    # The session fails as a whole because of nodes that were found before.
    double = any(finding.rule == FLOAT64_ON_CPU.name for finding in results.findings)
    kept = tuple(item for item in execution.findings if not (double and item.rule == FLOAT64_ON_CPU.name))
    last = CheckResults(execution.provider, kept, (CRASHING_NODE.name, FATAL_OPTIMIZER.name), execution.placements)
    results = results.joined(last)
    results = replace(results, provider=execution.provider, tried=sorted_names(results.tried))
    return {**results.to_dict(), "open_plainly": open_plainly}


def _applied(results: CheckResults, todo: Iterable[Application], context: CheckContext) -> CheckResults:
    """`results`, and what the rules find."""
    for application in todo:
        rules, function = application.rules, application.function
        stage("onnx's checker" if rules[0] is VALID_ONNX else f"the rule {rules[0].name}")
        results = _shared(results, _guarded(rules[0], lambda function=function: function(context)), *rules)  # type: ignore[misc]
    return results


def _shared(results: CheckResults, findings: Sequence[Finding], *tried: Rule) -> CheckResults:
    """`results` with more findings, which are sent to a parent process."""
    more = CheckResults(results.provider, tuple(findings), tuple(rule.name for rule in tried))
    share(more.to_dict())
    return results.joined(more)


def _provider_needs(provider: str, execution: Execution) -> tuple[str, ...]:
    """The needs that are met where the model runs, or may run."""
    if provider == "cpu":
        return (PROVIDER,)
    proven = execution.provider == "cuda" and bool(execution.placements)
    return (PROVIDER, CUDA) if proven else (PROVIDER, CUDA, FORECAST)


def _guarded(rule: Rule, findings: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Findings without repetitions; a graph too damaged to walk (names that are not text) violates the rule."""
    try:
        return list(dict.fromkeys(findings()))
    except (*ONNX_ERRORS, RecursionError) as error:
        return [rule.violated("", f"the graph is damaged: {error_line(error)}", severity="error")]


def _batches(context: CheckContext) -> Mapping[str, str]:
    try:
        return context.batches
    except (*ONNX_ERRORS, RecursionError):
        return {}  # the graph is damaged: the rules that walk it report that


def _require_provider(provider: str) -> None:
    if provider not in PROVIDERS:
        raise ProviderError(f'provider "{provider}" is unknown; it must be one of {", ".join(PROVIDERS)}')
    reason = cuda_unavailable() if provider == "cuda" else None
    if reason is not None:
        raise ProviderError(f"CUDA cannot be used: {reason}")


def target_findings(path: str | os.PathLike[str], target: str) -> list[Finding]:
    """The violations that ``check --target`` names, most severe first; not those of rules for every engine.

    Args:
        path: an .onnx file of ours.
        target: one of `spec.TARGETS`.
    """
    file = os.fspath(path)
    context = CheckContext.of(file, load_model(file), "cpu")
    own = [item for item in applications(FILE, targets=[target]) if item.rules[0].target == target]
    found = [finding for item in own for finding in dict.fromkeys(item.function(context)) if finding.violated]
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.severity))
