"""`check`: runs the rules in a child process, whose crash is a finding like any other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..atomic_io import require_readable
from ..errors import ConfigError, ProviderError, shown
from ..isolation.limits import Limits
from ..isolation.process import Child, EndedError
from ..runtime.arguments import flag
from ..runtime.providers import PROVIDERS
from ..runtime.unchanged import of_one_file
from ..spec import TARGETS
from .report import CheckReport, CheckResults

_LONGEST = 10**9
"""The largest time limit in seconds."""


@of_one_file("checked")
def check(
    path: str | os.PathLike[str],
    *,
    provider: str = "auto",
    require: bool = False,
    strict: bool = False,
    ignore: Sequence[str] = (),
    targets: Sequence[str] = (),
    seconds: float | None = None,
    child: Child | None = None,
) -> CheckReport:
    """Check an ONNX file: one of lstm-onnx against its metadata, others by what their graph shows.

    The file is read and opened in a child process, since onnx and ONNX Runtime can crash on it: if the process crashes,
    or takes too long or too much memory, the rule ``crashing-node`` fails.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda", strictly; or "auto", CUDA if a GPU can be used and otherwise CPU.
        require: every node must be on the provider, including those on shapes that ONNX Runtime keeps on the CPU by
            design; the report lists where each one is.
        strict: whether warnings fail the check, too.
        ignore: ids or names of rules to leave out; ``crashing-node`` cannot be left out.
        targets: engines and servers that the file is meant for, out of "openvino", "tract", "web", "webgpu",
            "coreml", "qnn", "tensorrt" and "triton": what they refuse or compute wrongly is reported, too.
        seconds: the time limit.  None means 20 for each stage and 60 in total, plus 1 and 3 for each 20 MiB of a
            large file.
        child: a child process to use for several files, which saves starting one for each.

    Raises:
        FileError: the file is missing, empty, a folder or otherwise unreadable.
        ModelError: it is not an ONNX model at all.
        ProviderError: the provider is unknown, or cannot be used on this machine.
        ConfigError: `ignore` names an unknown rule, `targets` an unknown engine, or `seconds`, `require` or `strict`
            is not possible.
        MissingDependencyError: no usable ONNX Runtime is installed.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 < seconds <= _LONGEST):
        raise ConfigError.of_argument("seconds", seconds, f"a number above 0, up to {_LONGEST}")
    if not isinstance(provider, str):
        raise ProviderError(f"provider {shown(provider)} is unknown; it must be one of {', '.join(PROVIDERS)}")
    ignore, targets = _names("ignore", ignore), _names("targets", targets)
    require, strict = flag("require", require, ConfigError), flag("strict", strict, ConfigError)
    ignored = _rule_names(ignore)
    require_readable(path, "an .onnx file")
    file = os.fspath(path)
    arguments = {
        "path": file,
        "provider": provider,
        "require": require,
        "ignore": sorted(ignored),
        "targets": _require_targets(targets),
    }
    running = child or Child()
    try:
        fields = running.call("lstm_onnx.check.examine:examine", arguments, Limits.of(file, seconds))
        results = CheckResults.from_dict(fields)
        if fields["open_plainly"]:
            results = results.joined(_opened_plainly(running, file, Limits.of(file, seconds), results.provider))
    except EndedError as ended:
        results = _results_until(ended, provider)
    finally:
        if child is None:
            running.close()
    return CheckReport.of(file, results, required=require, strict=strict, ignore=ignored, targets=tuple(targets))


def _names(argument: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in names):
        raise ConfigError.of_argument(argument, names, "a list of names")
    return tuple(names)


def _require_targets(targets: Sequence[str]) -> list[str]:
    unknown = [name for name in targets if name not in TARGETS]
    if unknown:
        raise ConfigError(f"target {shown(unknown[0])} is not known; it must be one of {', '.join(TARGETS)}")
    return list(targets)


def _rule_names(ids_or_names: Sequence[str]) -> frozenset[str]:
    """The names of rules that may be ignored."""
    if not ids_or_names:
        return frozenset()  # so that this process need not import onnx
    from .rules import find_rule
    from .rules.resources import CRASHING_NODE

    return frozenset(find_rule(text).name for text in ids_or_names) - {CRASHING_NODE.name}


def _opened_plainly(running: Child, file: str, limits: Limits, provider: str) -> CheckResults:
    """Test only whether opening the file as other programs do crashes the process."""
    from .rules.precision import FATAL_OPTIMIZER

    try:
        running.call("lstm_onnx.check.execution:open_plainly", {"file": file}, limits)
    except EndedError as ended:
        if ended.how.startswith("ended the process"):
            message = f"opening it with ONNX Runtime's default options {ended.how}"
            return CheckResults(provider, (FATAL_OPTIMIZER.violated("", message),))
    return CheckResults(provider)


def _results_until(ended: EndedError, provider: str) -> CheckResults:
    """What the rules found before the process ended, and the finding that it ended."""
    from .rules import sorted_names
    from .rules.axes import DYNAMIC_AXES
    from .rules.files import VALID_ONNX
    from .rules.providers import PLACEMENT, RUNNABLE
    from .rules.resources import CRASHING_NODE

    parts = [CheckResults.from_dict(part) for part in ended.shared]
    results = CheckResults(parts[0].provider if parts else "cpu" if provider == "auto" else provider)
    for part in parts:
        results = results.joined(part)
    with_findings = {finding.rule for finding in results.findings}
    reason = f"not tried: opening the file crashes or hangs ({CRASHING_NODE.name})"
    # A report always says of these whether they passed, failed or were not tried.
    always = [rule for rule in (VALID_ONNX, DYNAMIC_AXES, PLACEMENT, RUNNABLE) if rule.name not in with_findings]
    findings = (CRASHING_NODE.violated("", f"opening the file {ended}"), *(rule.skipped(reason) for rule in always))
    results = results.joined(CheckResults(results.provider, findings, (CRASHING_NODE.name,)))
    return replace(results, tried=sorted_names(results.tried))
