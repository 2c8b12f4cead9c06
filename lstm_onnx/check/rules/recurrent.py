"""LO401, LO403-405: attributes of recurrent operators."""

from __future__ import annotations

from collections.abc import Iterator

from ...onnxgraph import attributes_of, typed
from ...onnxgraph.recurrent import DEFAULT_ACTIVATIONS, activations_of, direction_of
from ..context import CheckContext
from ..finding import Finding
from ..rule import applies, rule

_DIRECTIONS = ("forward", "reverse", "bidirectional")
_SATURATING = ("tanh", "sigmoid")
_SATURATED = 20.0
"""At larger inputs tanh and sigmoid are constant to 2e-9."""
_NEEDS_NUMBERS = {"ThresholdedRelu": (1, 0), "Affine": (1, 1), "ScaledTanh": (1, 1)}
"""How many alphas and betas these activations need: ONNX Runtime takes 0 if they are left out."""
_TAKES_NUMBERS = {"LeakyRelu": (1, 0), "Elu": (1, 0), "HardSigmoid": (1, 1)}
"""How many these may have: ONNX Runtime uses ONNX's defaults."""
_PLAIN = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
_ACTIVATIONS = {name.lower(): name for name in (*_NEEDS_NUMBERS, *_TAKES_NUMBERS, *_PLAIN)}

LAYOUT = rule(
    "LO401",
    "layout",
    "error",
    summary="an LSTM, GRU or RNN has layout=1 (batch first)",
    why="It is valid ONNX since opset 14, but ONNX Runtime refuses it when the session is created.",
    fix="use layout 0 and a Transpose before and after the operator",
)
ATTRIBUTES = rule(
    "LO403",
    "attributes",
    "error",
    summary="direction, activations or hidden_size is invalid",
    why="An unknown direction or activation, too few activations, or no hidden_size at all: ONNX Runtime refuses the "
    "file when the session is created, although onnx's checker accepts it.",
    fix="give a known direction, three known activations for each (one for an RNN, two for a GRU), and hidden_size",
)
CLIP = rule(
    "LO404",
    "clip",
    "warning",
    summary="an LSTM's clip is so small that the cell state may reach it",
    why="ONNX clips the input of every activation. ONNX Runtime does so for the gates, but not for the cell state on "
    "its way to h (its issue 27224; measured on 1.31 and 1.32), so it differs from other runtimes as soon as the "
    "cell state exceeds the bound.",
    fix="train without the clip, or leave it out if no cell state comes near it",
)
ACTIVATION_NUMBERS = rule(
    "LO405",
    "activation-numbers",
    "warning",
    summary="ThresholdedRelu, Affine or ScaledTanh without its activation_alpha or activation_beta",
    why="ONNX Runtime uses 0 for a missing one, where ONNX says 1.0 for ThresholdedRelu and nothing for the other "
    "two: with zeros, the output of an Affine or ScaledTanh is zero (measured on LSTM, GRU and RNN).",
    fix="write activation_alpha and activation_beta into the node, one for each activation that needs it",
)


@applies(LAYOUT)
def layout(context: CheckContext) -> Iterator[Finding]:
    """Batch first, which ONNX Runtime lacks."""
    for _, node in context.onnx_operators:
        if typed(attributes_of(node), "layout", int):
            yield LAYOUT.violated(node, f"{node.op_type} has layout=1, which ONNX Runtime refuses")


@applies(ATTRIBUTES)
def attributes(context: CheckContext) -> Iterator[Finding]:
    """Invalid attributes."""
    for _, node in context.onnx_operators:
        given, direction = attributes_of(node), direction_of(node)
        problems = []
        if direction not in _DIRECTIONS:
            problems.append(f'direction is "{direction}"; it must be {", ".join(_DIRECTIONS)}')
        if typed(given, "hidden_size", int) < 1:
            problems.append("hidden_size is missing, or less than 1")
        names = activations_of(node)
        unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
        if unknown:
            problems.append(f"the activation {', '.join(unknown)} is unknown")
        # Only for an RNN does ONNX Runtime compare in upper and lower case.
        misspelt = [name for name in names if node.op_type == "RNN" and _ACTIVATIONS.get(name.lower(), name) != name]
        if misspelt:
            right = ", ".join(_ACTIVATIONS[name.lower()] for name in misspelt)
            problems.append(f"an RNN's activation {', '.join(misspelt)} must be spelled {right}")
        wanted = len(DEFAULT_ACTIVATIONS[node.op_type]) * (2 if direction == "bidirectional" else 1)
        # An empty list is the default, but for an RNN.
        listed = names or (node.op_type == "RNN" and "activations" in given)
        if listed and len(names) != wanted:
            problems.append(f"it has {len(names)} activations, but needs {wanted}")
        yield from (ATTRIBUTES.violated(node, problem) for problem in problems)


@applies(CLIP)
def clip(context: CheckContext) -> Iterator[Finding]:
    """A bound that ONNX Runtime does not apply to the cell state."""
    for _, node in context.onnx_operators:
        given = attributes_of(node)
        bound = typed(given, "clip", float)
        outputs = [name.lower() for name in activations_of(node)[2::3]]
        reached = bound < _SATURATED or any(name not in _SATURATING for name in outputs)
        if node.op_type == "LSTM" and bound > 0 and reached:
            message = f"clip is {bound:g}, but ONNX Runtime does not clip the cell state on its way to h"
            yield CLIP.violated(node, message)


@applies(ACTIVATION_NUMBERS)
def activation_numbers(context: CheckContext) -> Iterator[Finding]:
    """Activations that need an alpha or a beta, and have none."""
    for _, node in context.onnx_operators:
        given = attributes_of(node)
        names = [_ACTIVATIONS.get(name.lower(), "") for name in activations_of(node)]
        counts = [_NEEDS_NUMBERS.get(name) or _TAKES_NUMBERS.get(name, (0, 0)) for name in names]
        for index, attribute in enumerate(("activation_alpha", "activation_beta")):
            left = len(typed(given, attribute, list))
            # They are assigned in order to the activations that take one.
            for name, count in zip(names, counts, strict=True):
                if count[index] and not left and name in _NEEDS_NUMBERS:
                    message = f"{name} has no {attribute}, and ONNX Runtime uses 0"
                    yield ACTIVATION_NUMBERS.violated(node, message)
                left -= min(left, count[index])
