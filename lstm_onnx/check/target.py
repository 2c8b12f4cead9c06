"""What the rules on one engine find in a file of ours, without a child process and without opening it."""

from __future__ import annotations

import os

from ..onnxgraph import load_model
from .context import CheckContext
from .finding import Finding
from .rule import FILE
from .rules import applications


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
