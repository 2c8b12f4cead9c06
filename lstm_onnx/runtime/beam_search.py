"""Beam search: the most probable sequences of a step model, with each beam in a slot of a pool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RunError, shown
from ..metadata import Streaming
from .arguments import positive_integer
from .batch_axes import axis_of, batch_dims
from .conversion import to_numpy

if TYPE_CHECKING:
    from .pool.pool import Pool
    from .pool.state_memory import Slot


@dataclass(frozen=True)
class Hypothesis:
    """One of the sequences that a beam search found.

    Attributes:
        tokens: without the prompt, the stop token included.
        log_probability: the sum of the logarithms of the tokens' probabilities.
        score: `log_probability` divided by the number of tokens to the power of the length penalty.
        ended: whether it ends with a stop token, rather than with the largest number of steps.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool


@dataclass(frozen=True)
class _Beam:
    slot: Slot
    tokens: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class _Layout:
    """The axes of the input and the output of a step."""

    input: str
    output: str
    batch_axis: int
    time_axis: int | None
    rank: int
    dtype: np.dtype[Any]
    path: str

    @classmethod
    def of(cls, pool: Pool, fed: str, output: str) -> _Layout:
        model = pool.model
        if not isinstance(fed, str) or fed not in pool.inputs:
            raise InputError(
                f"{shown(fed)} is not an input", hint=f"its inputs are {', '.join(pool.inputs)}", name="input"
            )
        if not isinstance(output, str) or output not in pool.output_names:
            known = ", ".join(pool.output_names)
            raise InputError(f"{shown(output)} is not an output", hint=f"its outputs are {known}", name="output")
        info = pool.inputs[fed]
        if info.dtype is None or info.dtype.kind not in "iu" or len(info.shape) not in (1, 2):
            raise InputError(f"{info} is not one token for each step", path=model.path, name=fed)
        if is_late(model.metadata.streaming_or_default):
            raise InputError(
                "cannot be searched: it looks ahead, so its output for a step comes later than the step",
                path=model.path,
            )
        batch = axis_of(info, batch_dims(model, pool.axes))
        if batch is None:
            raise InputError(f"it is not known which axis of {info} is the batch", path=model.path, name=fed)
        time = 1 - batch if len(info.shape) == 2 else None
        return cls(fed, output, batch, time, len(info.shape), info.dtype, model.path)

    def feed(self, rows: np.ndarray) -> np.ndarray:
        """Tokens ``(beams, time)`` in the input's own layout."""
        if self.time_axis is None:
            return rows[:, -1].astype(self.dtype)
        return np.ascontiguousarray(rows if self.batch_axis == 0 else rows.T).astype(self.dtype)

    def log_probabilities(self, numbers: np.ndarray, count: int) -> np.ndarray:
        """Those of the last step's tokens, float64 ``(beams, tokens)``, of `count` beams."""
        last = np.asarray(numbers)
        if self.time_axis is not None and last.ndim == self.rank + 1:
            if not last.shape[self.time_axis]:
                raise InputError(f"{self.output} has no step yet", hint="pass a longer prompt", path=self.path)
            last = np.take(last, -1, axis=self.time_axis)
        elif self.time_axis is not None and count == 1:
            last = last[-1:]  # a row for each step of the one prompt, where batch and time are one axis
        if last.ndim != 2 or len(last) != count:
            raise InputError(
                f"{self.output} has shape {np.shape(numbers)}", hint="it must have a number for each token"
            )
        if not np.isfinite(last.max(axis=1, keepdims=True)).all():
            raise RunError(f"its output {self.output} has no finite largest number", path=self.path, name=self.output)
        return log_softmax(last.astype(np.float64))


def is_late(streaming: Streaming) -> bool:
    """Whether a file's output for a step may come in a later call, or only once the sequence has ended."""
    return bool(streaming.delay or streaming.hop > 1 or streaming.multiple > 1 or streaming.last)


def log_softmax(numbers: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities ``(batch, tokens)`` that numbers stand for, in their dtype."""
    shifted = numbers - numbers.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def beam_search(
    pool: Pool,
    prompt: Any,
    *,
    input: str,
    output: str,
    max_steps: int,
    beams: int = 4,
    stop_token: int | Sequence[int] = (),
    length_penalty: float = 0.0,
    context: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
) -> list[Hypothesis]:
    """Search the most probable sequences after a prompt with a beam search.

    In each step every beam is continued with every token, and the `beams` best of all continue.  The search ends when
    no beam can become better than the `beams` best sequences that have ended, or after `max_steps`.

    Args:
        pool: of the step's model, with `beams` free slots.
        prompt: the tokens of one sequence, integers ``(time,)``; a step without a time axis takes only the last one.
        input: the input that takes tokens.
        output: the output with a number (a logit) for each token.
        max_steps: the largest number of tokens that are added.
        beams: how many sequences are followed.
        stop_token: a token, or several, that ends a sequence.
        length_penalty: scores are divided by the number of tokens to this power: 0 prefers short sequences, 1 takes
            the mean.
        context: the model's other inputs, with a batch of 1.
        state: the states from which to start, as `Pool.state` gives them; by default those of a new stream.

    Returns:
        The `beams` best sequences, the best one first.  With equal scores, the smaller tokens come first.

    Raises:
        InputError: an argument does not fit the model, or the pool has too few free slots.
        RunError: ONNX Runtime failed; or the largest of the numbers is NaN or infinite.
    """
    layout = _Layout.of(pool, input, output)
    beams, max_steps = positive_integer("beams", beams), positive_integer("max_steps", max_steps)
    stops = _stop_tokens(stop_token)
    if (
        isinstance(length_penalty, bool)
        or not isinstance(length_penalty, (int, float))
        or not 0 <= length_penalty < 100
    ):
        raise InputError.of_argument("length_penalty", length_penalty, "0 or more")
    tokens = np.atleast_1d(to_numpy(prompt, None, "prompt")[0])
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not tokens.size:
        raise InputError("prompt must be one sequence of tokens, integers (time,)", name="prompt")
    if not np.array_equal(tokens.astype(layout.dtype), tokens):
        raise InputError(f"prompt has tokens too large for {layout.dtype}, the dtype of {input}", name="prompt")
    further = {} if context is None else context
    if not isinstance(further, Mapping):
        raise InputError.of_argument("context", context, "a dict of arrays by input name")
    if pool.slots - len(pool) < beams:
        raise InputError(f"{pool.slots - len(pool)} slots of the pool are free", hint=f"{beams} beams need {beams}")
    slots: list[Slot] = []
    try:
        slots.extend(pool.open() for _ in range(beams))
        if state is not None:
            pool.set_state(slots[0], state)
        rows = {
            name: _row(pool, name, to_numpy(value, pool.inputs.get(name), name)[0]) for name, value in further.items()
        }
        return _Search(pool, layout, slots, stops, float(length_penalty), rows, max_steps).run(tokens)
    finally:
        for slot in slots:
            pool.close(slot)


def _stop_tokens(given: int | Sequence[int]) -> frozenset[int]:
    tokens = (
        (given,) if isinstance(given, (int, np.integer)) else tuple(given) if isinstance(given, (list, tuple)) else None
    )
    if tokens is None or not all(isinstance(one, (int, np.integer)) and not isinstance(one, bool) for one in tokens):
        raise InputError.of_argument("stop_token", given, "a token, or a list of them")
    return frozenset(int(one) for one in tokens)


@dataclass
class _Search:
    """One search; `context` maps further inputs to their array and its batch axis."""

    pool: Pool
    layout: _Layout
    slots: list[Slot]
    stops: frozenset[int]
    penalty: float
    context: dict[str, tuple[np.ndarray, int | None]]
    max_steps: int
    ended: list[Hypothesis] = field(default_factory=list)

    def run(self, prompt: np.ndarray) -> list[Hypothesis]:
        beams = [_Beam(self.slots[0], (), 0.0)]
        logs = self._step(beams, prompt[np.newaxis])
        for number in range(self.max_steps):
            beams = self._continued(beams, logs)
            if number == self.max_steps - 1 or not beams or self._settled(beams[0]):
                break
            logs = self._step(beams, np.array([[beam.tokens[-1]] for beam in beams]))
        if beams and not self._settled(beams[0]):
            self.ended += [self._hypothesis(beam.tokens, beam.total, ended=False) for beam in beams]
        return sorted(self.ended, key=lambda one: (-one.score, one.tokens))[: len(self.slots)]

    def _step(self, beams: list[_Beam], rows: np.ndarray) -> np.ndarray:
        count = len(beams)
        feeds = {
            name: np.repeat(value, count, axis) if axis is not None else value
            for name, (value, axis) in self.context.items()
        }
        results = self.pool.step([beam.slot for beam in beams], {self.layout.input: self.layout.feed(rows), **feeds})
        return self.layout.log_probabilities(results[self.layout.output], count)

    def _continued(self, beams: list[_Beam], logs: np.ndarray) -> list[_Beam]:
        """The best continuations, each in a slot with the states of the beam that it continues."""
        totals = (np.array([beam.total for beam in beams])[:, np.newaxis] + logs).reshape(-1)
        wanted = len(self.slots)
        # As many as could end, and as many that go on.
        order = np.argsort(-totals, kind="stable")[: wanted * (1 + len(self.stops))]
        chosen: list[tuple[_Beam, int, float]] = []
        for rank, index in enumerate(order):
            beam, token, total = beams[index // logs.shape[1]], int(index % logs.shape[1]), float(totals[index])
            if total == -math.inf:
                break
            if token in self.stops:
                if rank < wanted:
                    self.ended.append(self._hypothesis((*beam.tokens, token), total, ended=True))
            elif len(chosen) < wanted:
                chosen.append((beam, token, total))
        slots = self._moved([beam.slot for beam, _, _ in chosen])
        return [
            _Beam(slot, (*beam.tokens, token), total) for slot, (beam, token, total) in zip(slots, chosen, strict=True)
        ]

    def _moved(self, sources: list[Slot]) -> list[Slot]:
        """A slot for each source that has its states: the source itself for the first that wants it."""
        free = [slot for slot in self.slots if slot not in sources]
        taken: set[Slot] = set()
        found = []
        for source in sources:
            slot = source
            if source in taken:
                slot = free.pop()
                self.pool.set_state(slot, self.pool.state(source))
            taken.add(source)
            found.append(slot)
        return found

    def _settled(self, best: _Beam) -> bool:
        """Whether no beam can become one of the best that have ended: totals only fall."""
        ended = sorted((one.score for one in self.ended), reverse=True)[: len(self.slots)]
        if len(ended) < len(self.slots):
            return False
        longest = self.max_steps if self.penalty else 1
        return bool(best.total / longest**self.penalty <= ended[-1])

    def _hypothesis(self, tokens: tuple[int, ...], total: float, *, ended: bool) -> Hypothesis:
        return Hypothesis(tokens, total, total / len(tokens) ** self.penalty, ended)


def _row(pool: Pool, name: str, value: np.ndarray) -> tuple[np.ndarray, int | None]:
    """A further input and its batch axis, along which it is repeated for each beam."""
    if name not in pool.inputs:
        raise InputError(f"{shown(name)} is not an input", hint=f"its inputs are {', '.join(pool.inputs)}")
    axis = axis_of(pool.inputs[name], batch_dims(pool.model, pool.axes))
    if axis is not None and (value.ndim <= axis or value.shape[axis] != 1):
        raise InputError(f"{name} has shape {value.shape}", hint=f"its axis {axis}, the batch, must be 1", name=name)
    return value, axis
