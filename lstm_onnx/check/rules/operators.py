"""The rules on recurrent operators and their states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ...onnxgraph import attributes_of, text, typed
from ..context import INITIAL_C, INITIAL_H, QUANTISED, Subject, input_of, label
from ..graph import end_of
from ..report import Finding, failed

_DIRECTIONS = ("forward", "reverse", "bidirectional")
_SATURATING = ("tanh", "sigmoid")
_LARGEST_REACHED = 20.0
"""From here on tanh and sigmoid give what they give at any larger number, to 2e-9."""
_NUMBERS = {"ThresholdedRelu": (1, 0), "Affine": (1, 1), "ScaledTanh": (1, 1)}
"""How many alphas and betas these activations need, as ONNX Runtime takes 0 for what is not given."""
_OPTIONAL_NUMBERS = {"LeakyRelu": (1, 0), "Elu": (1, 0), "HardSigmoid": (1, 1)}
"""And these may have; ONNX Runtime knows ONNX's defaults."""
_PLAIN = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
_ACTIVATIONS = {name.lower(): name for name in (*_NUMBERS, *_OPTIONAL_NUMBERS, *_PLAIN)}
_PER_DIRECTION = {"LSTM": 3, "GRU": 2, "RNN": 1}


def _pairing(states: Mapping[str, str]) -> str:
    """How to name the pairs, in the file's own names as far as the graph tells them; "" for the rule's own words."""
    if not all(states.values()) or len(set(states.values())) < len(states):
        return ""
    pairs = json.dumps(states, ensure_ascii=False)
    return (
        f"name the pairs: lstm_onnx.load(file, states={pairs}), or the same as JSON in the file's metadata, "
        "lstm_onnx.states"
    )


def layout(subject: Subject) -> Iterator[Finding]:
    """Batch first, which ONNX Runtime does not have."""
    for _, node in subject.recurrent:
        if typed(attributes_of(node), "layout", int):
            yield failed("layout", label(node), f"{node.op_type} has layout=1, which ONNX Runtime refuses")


def attributes(subject: Subject) -> Iterator[Finding]:
    """What the operator's attributes cannot be."""
    for _, node in subject.recurrent:
        given = attributes_of(node)
        direction = text(given.get("direction", "forward"))
        if direction not in _DIRECTIONS:
            yield failed("attributes", label(node), f'direction is "{direction}"; it must be {", ".join(_DIRECTIONS)}')
        if typed(given, "hidden_size", int) < 1:
            yield failed("attributes", label(node), "hidden_size is missing, or less than 1")
        names = [text(item) for item in typed(given, "activations", list)]
        unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
        if unknown:
            yield failed("attributes", label(node), f"the activation {', '.join(unknown)} is unknown")
        # Of an RNN alone ONNX Runtime compares the letters, too.
        spelled = [name for name in names if node.op_type == "RNN" and _ACTIVATIONS.get(name.lower(), name) != name]
        if spelled:
            yield failed("attributes", label(node), f"an RNN's activation {', '.join(spelled)} is spelled otherwise")
        wanted = _PER_DIRECTION[node.op_type] * (2 if direction == "bidirectional" else 1)
        if "activations" in given and len(names) != wanted:
            yield failed("attributes", label(node), f"it has {len(names)} activations, and needs {wanted}")


def clip(subject: Subject) -> Iterator[Finding]:
    """A bound that ONNX Runtime leaves the cell state out of."""
    for _, node in subject.recurrent:
        given = attributes_of(node)
        bound = typed(given, "clip", float)
        outputs = [text(item).lower() for item in typed(given, "activations", list)][2::3]
        reached = bound < _LARGEST_REACHED or any(name not in _SATURATING for name in outputs)
        if node.op_type == "LSTM" and bound > 0 and reached:
            yield failed("clip", label(node), f"clip is {bound:g}, and ONNX Runtime gives h the cell state unclipped")


def activation_numbers(subject: Subject) -> Iterator[Finding]:
    """Activations that need an alpha or a beta, and have none."""
    for _, node in subject.recurrent:
        given = attributes_of(node)
        names = [_ACTIVATIONS.get(text(item).lower(), "") for item in typed(given, "activations", list)]
        takes = [_NUMBERS.get(name) or _OPTIONAL_NUMBERS.get(name, (0, 0)) for name in names]
        for index, attribute in enumerate(("activation_alpha", "activation_beta")):
            left = len(typed(given, attribute, list))
            # They are handed out in order to those that take one.
            for name, take in zip(names, takes, strict=True):
                if take[index] and not left and name in _NUMBERS:
                    message = f"{name} has no {attribute}, and ONNX Runtime takes 0"
                    yield failed("activation-numbers", label(node), message)
                left -= min(left, take[index])


def one_state(subject: Subject) -> Iterator[Finding]:
    """An LSTM that starts from h0 alone, or from c0 alone."""
    for _, node in subject.recurrent:
        if node.op_type != "LSTM":
            continue
        there = [name for name, at in (("initial_h", INITIAL_H), ("initial_c", INITIAL_C)) if input_of(node, at)]
        if len(there) == 1:
            absent = "initial_c" if there == ["initial_h"] else "initial_h"
            yield failed("h0-without-c0", label(node), f"it takes {there[0]}, and {absent} is left out: zeros")


def loose_states(subject: Subject) -> Iterator[Finding]:
    """States that come from outside, in a file that says nothing of them."""
    if subject.metadata is None or subject.ours or subject.metadata.states:
        return
    loose: dict[str, str] = {}
    lost: list[Finding] = []
    handed_out = {end_of(subject.graph.scopes[0], name): name for name in reversed(subject.graph.outputs)}
    for scope, node in subject.layers:
        for index, made in ((INITIAL_H, 1), (INITIAL_C, 2)):
            sources = scope.origins(input_of(node, index))[0]
            end = handed_out.get(node.output[made], "") if len(node.output) > made else ""
            for source in sources:
                loose.setdefault(source, end)
            is_lstm = node.op_type in ("LSTM", QUANTISED)
            ends = index == INITIAL_C and is_lstm and not any(map(subject.is_used, node.output[2:]))
            if sources and ends:
                message = f"it starts from the input {sources[0]}, and nothing reads its final cell state"
                lost.append(failed("lost-state", label(node), message))
    if loose and not lost:
        names = ", ".join(loose)
        message = f"{names} {'is a state' if len(loose) == 1 else 'are states'} that nothing pairs"
        yield failed("loose-states", next(iter(loose)), message, _pairing(loose))
    yield from lost
