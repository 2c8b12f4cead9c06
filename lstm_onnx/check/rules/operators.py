"""LO104, LO105, LO110, LO111: operators that ONNX Runtime lacks, or that do not belong in inference."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from ...onnxgraph import attributes_of, is_default, typed
from ...onnxgraph.nodes import RANDOM
from ...onnxgraph.recurrent import input_of
from ...runtime.providers import operator_versions
from ..context import CheckContext
from ..finding import Finding
from ..rule import applies, rule

UNKNOWN_OPERATOR = rule(
    "LO104",
    "unknown-operator",
    "error",
    summary="ONNX Runtime does not have an operator, or does not have it in this opset",
    why="An operator of a custom domain needs its own library, which is not part of the file. ONNX Runtime refuses "
    "to open the model.",
    fix="export without the custom operator, or ship it as a local function of the model",
)
CONTRIB_OPERATOR = rule(
    "LO105",
    "contrib-operator",
    "info",
    summary="an operator is ONNX Runtime's own and not part of ONNX",
    why="Such a file runs only in ONNX Runtime, whose optimizer and quantizer write such files.",
    fix="keep the file from before the optimization for other runtimes",
)
TRAINING_MODE = rule(
    "LO110",
    "training-mode",
    "error",
    summary="Dropout or BatchNormalization is in training mode",
    why="ONNX Runtime obeys: Dropout with training_mode true zeroes different values in each run (unless its "
    "optimizer removes the node, as it does inside a graph; other runtimes do not), and BatchNormalization uses the "
    "statistics of the current batch, so a row's result depends on the other rows (for equal rows it is zero).",
    fix="call module.eval() before the export",
)
RANDOM_OPERATOR = rule(
    "LO111",
    "random-operator",
    "warning",
    summary="an operator generates random numbers",
    why="Two runs on the same input differ, and parity with PyTorch cannot be shown, since the generators differ.",
    fix="make the noise an input of the model",
)


@applies(UNKNOWN_OPERATOR)
def unknown_operator(context: CheckContext) -> Iterator[Finding]:
    """Operators that ONNX Runtime lacks, or lacks in this opset."""
    known = operator_versions()
    if not known:
        yield UNKNOWN_OPERATOR.skipped("this build of ONNX Runtime does not list its operators")
        return
    domains = {domain for domain, _ in known}
    seen = {(str(item.domain), str(item.name)) for item in context.model.functions}
    for _, node in context.nodes:
        domain = "" if is_default(node.domain) else str(node.domain)
        kind = (domain, str(node.op_type))
        if kind in seen:
            continue
        seen.add(kind)
        versions, opset = known.get(kind), context.opset(domain)
        name = f"{domain}.{node.op_type}" if domain else str(node.op_type)
        if versions is None:
            owner = "its domain" if domain in domains else f"the custom domain {domain}"
            yield UNKNOWN_OPERATOR.violated(node, f"{name} of {owner} is unknown to ONNX Runtime")
        elif 0 < opset < min(versions):
            message = f"{name} exists since opset {min(versions)}, but the file requires opset {opset}"
            yield UNKNOWN_OPERATOR.violated(node, message)


@applies(CONTRIB_OPERATOR)
def contrib_operator(context: CheckContext) -> Iterator[Finding]:
    """Operators that only ONNX Runtime has."""
    known = operator_versions()
    contrib = [
        node
        for _, node in context.nodes
        if (node.domain, node.op_type) in known and not onnx.defs.has(node.op_type, node.domain)
    ]
    if contrib:
        kinds = ", ".join(dict.fromkeys(f"{node.domain}.{node.op_type}".lstrip(".") for node in contrib))
        yield CONTRIB_OPERATOR.violated(contrib[0], f"{kinds}: no other runtime has them")


@applies(TRAINING_MODE)
def training_mode(context: CheckContext) -> Iterator[Finding]:
    """Operators that still behave as in training."""
    for scope, node in context.nodes:
        if not is_default(node.domain):
            continue
        if node.op_type == "Dropout" and (flag := context.constant(scope, input_of(node, 2))) is not None:
            ratio = context.constant(scope, input_of(node, 1))
            if flag.any() and (ratio is None or ratio.any()):
                yield TRAINING_MODE.violated(node, "Dropout is in training mode: it zeroes at random")
        if node.op_type == "BatchNormalization" and typed(attributes_of(node), "training_mode", int):
            message = "BatchNormalization is in training mode: it uses the statistics of each batch"
            yield TRAINING_MODE.violated(node, message)


@applies(RANDOM_OPERATOR)
def random_operator(context: CheckContext) -> Iterator[Finding]:
    """Random generators in the graph."""
    for _, node in context.nodes:
        if node.op_type in RANDOM and is_default(node.domain):
            yield RANDOM_OPERATOR.violated(node, f"{node.op_type} generates different numbers in each run")
