"""Computes the expected results of a generating file, by its step in a Python loop and NumPy.

The step is any callable that takes arrays by name: the step's file, or its module in float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..generation_spec import COUNTS, GENERATED, MAX_STEPS, NOISE, SCORES, TEMPERATURE, GeneratingStep
from ..runtime.beam_search import log_softmax
from .choose import BELOW_ONE

Arrays = dict[str, np.ndarray]
Step = Callable[[Arrays], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Decision:
    """One step's choices, of a token or of whether a sequence ends, for the sequences that had not ended.

    Attributes:
        numbers: the numbers that decided, one row per sequence.
        gaps: by how much each number would have to change for a different choice.
        chosen: the column chosen in each row, if it was compared with the others.
    """

    numbers: np.ndarray
    gaps: np.ndarray
    chosen: np.ndarray | None = None

    def is_near(self, errors: np.ndarray) -> bool:
        """Whether `errors`, one for each number, could change a choice."""
        if self.chosen is not None:
            errors = np.maximum(errors, np.take_along_axis(errors, self.chosen[:, np.newaxis], axis=1))
        return bool((self.gaps <= errors).any())


@dataclass
class Looped:
    """The results of a Python loop.

    Attributes:
        results: arrays by the names of the generating file's outputs.
        decisions: the decisions of each step.
    """

    results: Arrays = field(default_factory=dict)
    decisions: list[list[Decision]] = field(default_factory=list)


def repeat(
    step: Step, described: GeneratingStep, pairs: Mapping[str, str], state_axes: Mapping[str, int], feeds: Arrays
) -> Looped:
    """Run a step in a loop.

    Args:
        step: takes the step's inputs and states by name; states that are left out have their initial values.
        described: the step.
        pairs: each state and the output that feeds it.
        state_axes: the batch axis of each state, if sequences can end before others.
        feeds: the generating file's inputs.
    """
    g = described.generation
    own = {g.input, MAX_STEPS, NOISE, TEMPERATURE}
    context = {name: array for name, array in feeds.items() if name not in own and name not in pairs}
    states = {name: feeds[name] for name in pairs if name in feeds}
    most = feeds[NOISE].shape[1] if g.choose == "sample" else max(0, int(feeds[MAX_STEPS]))
    x = feeds[g.input]
    batch = x.shape[described.batch_axis]
    done, counts = np.zeros(batch, bool), np.zeros(batch, np.int64)
    elements: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    found = Looped()
    for number in range(most):
        outputs = step({g.input: x, **context, **states})
        last = _last(outputs[g.output], described, batch)
        decisions: list[Decision] = []
        if g.choose == "value":
            element = _of_ended(g.padding, last, done, described.element_batch)
        else:
            chosen, decisions = _choose(last, done, feeds, described, number)
            element = np.where(done, np.int64(g.padding), chosen)
            score = np.take_along_axis(log_softmax(last), chosen[:, np.newaxis], axis=1)[:, 0]
            scores.append(np.where(done, np.zeros((), last.dtype), score))
        after = {name: outputs[output] for name, output in pairs.items()}
        states = {
            name: _of_ended(states[name], array, done, state_axes[name]) if g.stops and name in states else array
            for name, array in after.items()
        }
        elements.append(element)
        counts += ~done
        done = _ended(done, element, outputs, described, decisions)
        found.decisions.append(decisions)
        element = element.astype(x.dtype, copy=False)
        x = element if described.time_axis is None else np.expand_dims(element, described.time_axis)
        if done.all():
            break
    _finish(found, described, feeds, elements, scores)
    if g.stops:
        found.results[COUNTS] = counts
    found.results |= {output: states[name] for name, output in pairs.items() if name in states}
    return found


def _finish(
    found: Looped, described: GeneratingStep, feeds: Arrays, elements: list[np.ndarray], scores: list[np.ndarray]
) -> None:
    prompt = feeds[described.generation.input]
    shape = [size for axis, size in enumerate(prompt.shape) if axis != described.time_axis]
    axis = described.steps_axis(len(shape))
    stacked = np.stack(elements, axis) if elements else np.zeros([*shape[:axis], 0, *shape[axis:]], prompt.dtype)
    found.results[GENERATED] = stacked.astype(prompt.dtype, copy=False) if described.of_tokens else stacked
    if described.of_tokens:
        found.results[SCORES] = np.stack(scores, axis) if scores else np.zeros(stacked.shape, np.float32)


def _last(array: np.ndarray, described: GeneratingStep, batch: int) -> np.ndarray:
    if described.outer_axis is not None:
        return (
            array[-batch:] if described.outer_axis == "time" else array[len(array) // batch - 1 :: len(array) // batch]
        )
    return array if described.output_time_axis is None else np.take(array, -1, axis=described.output_time_axis)


def _choose(
    numbers: np.ndarray, done: np.ndarray, feeds: Arrays, described: GeneratingStep, number: int
) -> tuple[np.ndarray, list[Decision]]:
    """The tokens that numbers ``(batch, tokens)`` choose."""
    g = described.generation
    going = ~done
    if g.choose == "greedy":
        chosen = numbers.argmax(axis=1)
        gaps = numbers.max(axis=1, keepdims=True) - numbers
        np.put_along_axis(gaps, chosen[:, np.newaxis], np.inf, axis=1)
        return chosen, [Decision(numbers[going], gaps[going], chosen[going])]
    decisions = []
    if g.top_k is not None and g.top_k < numbers.shape[1]:
        ordered = np.sort(numbers, axis=1)
        least, next_one = ordered[:, -g.top_k, np.newaxis], ordered[:, -g.top_k - 1, np.newaxis]
        decisions.append(Decision(numbers[going], np.abs(numbers - (least + next_one) / 2)[going]))
        numbers = np.where(numbers < least, -np.inf, numbers)
    scaled = numbers / feeds[TEMPERATURE].astype(numbers.dtype)
    chances = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    sums = np.cumsum(chances / chances.sum(axis=1, keepdims=True), axis=1)
    noise = np.minimum(feeds[NOISE][:, number, np.newaxis].astype(numbers.dtype), BELOW_ONE)
    wanted = noise * sums[:, -1:]
    chosen = (sums > wanted).argmax(axis=1)
    gaps = np.abs(sums - wanted)
    gaps[:, -1] = np.inf
    return chosen, [*decisions, Decision(sums[going], gaps[going])]


def _ended(
    done: np.ndarray,
    element: np.ndarray,
    outputs: Mapping[str, Any],
    described: GeneratingStep,
    decisions: list[Decision],
) -> np.ndarray:
    g = described.generation
    ended = done.copy()
    for token in g.stop_token:
        ended |= element == token
    if g.stop_output is not None:
        flag = np.asarray(outputs[g.stop_output])
        time = described.time_axis
        # One number for each sequence, or for each of its time steps; then only the last step's decides.
        if time is not None and flag.ndim > 1 and flag.size != len(done):
            flag = np.take(flag, -1, axis=time)
        flag = flag.reshape(-1)
        if flag.dtype.kind == "b":
            ended |= flag
        else:
            ended |= flag > g.stop_above
            going = flag[~done]
            decisions.append(Decision(going, np.abs(going - g.stop_above)))
    return ended


def _of_ended(ended: np.ndarray | float, going: np.ndarray, done: np.ndarray, axis: int) -> np.ndarray:
    """`going`, with `ended` in place of the sequences that have ended, which are along `axis`."""
    rows = done.reshape([-1 if each == axis else 1 for each in range(going.ndim)])
    return np.where(rows, np.asarray(ended, going.dtype), going)
