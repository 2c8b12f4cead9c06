"""The rules on recurrent operators and their states."""

from __future__ import annotations

from collections.abc import Iterator

from ..onnxgraph import attributes_of, text, typed
from .report import Finding, failed
from .subject import Subject, input_of, label

_DIRECTIONS = ("forward", "reverse", "bidirectional")
_ACTIVATIONS = frozenset(
    "affine relu leakyrelu thresholdedrelu tanh scaledtanh sigmoid hardsigmoid elu softsign softplus".split()
)
_PER_DIRECTION = {"LSTM": 3, "GRU": 2, "RNN": 1}
_INITIAL_H, _INITIAL_C = 5, 6


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
        wanted = _PER_DIRECTION[node.op_type] * (2 if direction == "bidirectional" else 1)
        if "activations" in given and len(names) != wanted:
            yield failed("attributes", label(node), f"it has {len(names)} activations, and needs {wanted}")


def one_state(subject: Subject) -> Iterator[Finding]:
    """An LSTM that starts from h0 alone, or from c0 alone."""
    for _, node in subject.recurrent:
        if node.op_type != "LSTM":
            continue
        there = [name for name, at in (("initial_h", _INITIAL_H), ("initial_c", _INITIAL_C)) if input_of(node, at)]
        if len(there) == 1:
            absent = "initial_c" if there == ["initial_h"] else "initial_h"
            yield failed("h0-without-c0", label(node), f"it takes {there[0]}, and {absent} is left out: zeros")


def loose_states(subject: Subject) -> Iterator[Finding]:
    """States that come from outside, in a file that says nothing of them."""
    if subject.story is None or subject.ours or subject.story.states:
        return
    loose: dict[str, None] = {}
    lost: list[Finding] = []
    for scope, node in subject.recurrent:
        for index in (_INITIAL_H, _INITIAL_C):
            name = input_of(node, index)
            source = scope.source(name)[0] if name else ""
            if source not in subject.graph.inputs:
                continue
            loose[source] = None
            if index == _INITIAL_C and node.op_type == "LSTM" and not _has_cell(subject, list(node.output)):
                message = f"it starts from the input {source}, and nothing reads its final cell state"
                lost.append(failed("lost-state", label(node), message))
    if loose and not lost:
        names = ", ".join(loose)
        yield failed("loose-states", next(iter(loose)), f"{names} are states that nothing pairs")
    yield from lost


def _has_cell(subject: Subject, outputs: list[str]) -> bool:
    return len(outputs) > 2 and subject.is_used(outputs[2])
