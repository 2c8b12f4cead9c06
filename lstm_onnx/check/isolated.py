"""`check` itself: the rules run in a child process, whose death is a finding like any other."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..atomic_io import require_readable
from ..isolation.limits import Limits
from ..isolation.process import Child, EndedError
from .report import CheckReport, Examined, failed, skipped
from .rule import find

_ENDS = "crashing-node"
_ALWAYS_TOLD = ("valid-onnx", "dynamic-axes", "provider", "runnable")
"""Rules that a report says of whether they passed, failed, or could not be tried."""


def check(
    path: str | os.PathLike[str],
    *,
    provider: str = "auto",
    require: bool = False,
    strict: bool = False,
    ignore: Sequence[str] = (),
    seconds: float | None = None,
    child: Child | None = None,
) -> CheckReport:
    """Check an ONNX file: ours by what its metadata promises, others by what their graph shows.

    The file is read and opened in a child process, since what onnx and ONNX Runtime do not survive is no
    exception: where the process ends, takes too long or too much memory, the rule ``crashing-node`` fails.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda", strictly; or "auto", CUDA where a GPU can be used and else CPU.
        require: every single node has to be on the provider, also those on shapes that ONNX Runtime
            keeps on the CPU by design; the report lists where each one is.
        strict: warnings fail the check, too.
        ignore: ids or names of rules that are left out; ``crashing-node`` is told in any case.
        seconds: how long it may take.  None is 20 for each stage and 60 in all, and more for a large file: 1
            and 3 for each 20 MiB.
        child: a process for several files, which saves the start of one for each.

    Raises:
        FileError: the file is missing, empty, a folder or otherwise unreadable.
        ModelError: its content is not an ONNX model at all.
        ProviderError: the provider is unknown or is not there.
        ConfigError: `ignore` names no rule.
        MissingDependencyError: no usable ONNX Runtime is installed.
    """
    left_out = frozenset(find(text).name for text in ignore) - {_ENDS}
    require_readable(path, "an .onnx file")
    file = os.fspath(path)
    arguments = {"path": file, "provider": provider, "require": require, "ignore": sorted(left_out)}
    running = child or Child()
    try:
        done = running.call("lstm_onnx.check.run:examine", arguments, Limits.of(file, seconds))
    except EndedError as ended:
        found = _examined(ended, provider)
    else:
        found = Examined.of(done)
    finally:
        if child is None:
            running.close()
    return CheckReport.of(file, found, required=require, strict=strict, ignore=left_out)


def _examined(ended: EndedError, provider: str) -> Examined:
    """What the rules had found by then, and that the process has ended."""
    parts = [Examined.of(part) for part in ended.shared]
    found = Examined(parts[0].provider if parts else "cpu" if provider == "auto" else provider)
    for part in parts:
        found = found.joined(part)
    told = {item.rule for item in found.findings}
    why = "not tried: opening the file does not come to a good end (crashing-node)"
    rest = [skipped(rule, why) for rule in _ALWAYS_TOLD if rule not in told]
    findings = (failed(_ENDS, "", f"opening the file {ended}"), *found.findings, *rest)
    return Examined(found.provider, findings, (*found.tried, _ENDS), found.placements)
