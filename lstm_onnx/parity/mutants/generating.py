"""Makes mistakes in the loop of a generating file: its steps, its end, what is fed back, and what is chosen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, NodeProto

from ...generation.choose import LOOP, OWN
from ...onnxgraph import bodies_of
from ...onnxgraph.recurrent import RecurrentLayer
from .equivalence import ABSENT, APPLIED, Outcome
from .graph_edit import Edit, replace_result

_HEAD = 2
"""The number of inputs before what the body of a Loop carries: the step's number, and whether to go on."""


def one_step_more(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A loop with one step more than it was asked for."""
    for node, _ in _loops(edit):
        node.input[0] = edit.node("Add", node.input[0], np.array(1, np.int64))
        return APPLIED
    return ABSENT


def stale_state(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A state that no step changes."""
    for _, body in _loops(edit):
        replace_result(body, len(body.input) - _HEAD, body.input[-1].name)
        return APPLIED
    return ABSENT


def same_input(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Each step takes the prompt, and not what the step before gave."""
    for _, body in _loops(edit):
        replace_result(body, 1, body.input[_HEAD].name)
        return APPLIED
    return ABSENT


def ignored_stop(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A sequence that never ends."""
    ends = _step_nodes(edit, "stop/next_done")
    for node in (*ends, *_step_nodes(edit, "stop/left")) if ends else ():
        node.input[0] = f"{OWN}stop/before"
    return APPLIED if ends else ABSENT


def changed_after_stop(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """States of a sequence that has ended, and still change."""
    for _, body in _loops(edit):
        frozen = [node for node in body.node if node.op_type == "Where" and node.name.startswith(f"{OWN}stop/")]
        states = [node for node in frozen if node.output[0] in {value.name for value in body.output[3:]}]
        for node in states[-1:]:
            node.input[1] = node.input[2]
            return APPLIED
    return ABSENT


def smallest(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """The token with the smallest number."""
    for node in _step_nodes(edit, "choose/token"):
        if node.input[0] != f"{OWN}choose/Cast":
            node.op_type = "ArgMin"
            return APPLIED
    return ABSENT


def ignored_temperature(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Draws by the numbers as they are."""
    for node in _step_nodes(edit, "choose/Div"):
        node.op_type = "Identity"
        del node.input[1:]
        return APPLIED
    return ABSENT


def first_noise(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Draws by the first step's noise in every step."""
    for node in _step_nodes(edit, "noise/step"):
        node.input[1] = edit.array(np.array(0, np.int64))
        return APPLIED
    return ABSENT


def _loops(edit: Edit) -> Iterator[tuple[NodeProto, GraphProto]]:
    for node in edit.graph.node:
        if node.op_type == "Loop" and node.name == LOOP:
            yield node, next(bodies_of(node))


def _step_nodes(edit: Edit, name: str) -> list[NodeProto]:
    """The node of this name among those that generation adds to the loop's body, if it is there."""
    return [node for _, body in _loops(edit) for node in body.node if node.name == f"{OWN}{name}"]
