"""Compares a generating file with its step in a Python loop, on random prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, InputError, RunError
from ..generation_spec import COUNTS, MAX_STEPS, NOISE, GeneratingStep
from ..input_spec import axes, draw
from ..runtime import Model
from ..runtime.chunk_check import mismatch, rounded
from ..runtime.tensor_info import known_shape
from ..symbolic_dims import ANY_SIZE, clamped
from .layout import state_axes_of
from .python_loop import Arrays, Looped, repeat

_CASES = ((1, 1, 6), (3, 4, 9), (2, 3, 1), (2, 2, 0))
"""For each case the batch size, the time steps of the prompt, and the most steps to generate."""
_OTHER = 5
_ROUNDING = 1e-4
"""A choice that a relative error of this size could change is not compared, and neither is what follows it."""


@dataclass(frozen=True)
class GenerationProof:
    """How a generating file was compared with its step.

    Attributes:
        cases: the number of prompts.
        steps: the number of steps compared, in all cases together.
        near_ties: the number of cases that were cut before a step in which rounding could change the choice.
        problem: how the results differ; "" if they do not.
        not_run: why nothing was compared; "" if something was.
    """

    cases: int = 0
    steps: int = 0
    near_ties: int = 0
    problem: str = ""
    not_run: str = ""

    def __str__(self) -> str:
        """For people."""
        if self.not_run:
            return f"not compared with the step in a loop: {self.not_run}"
        ties = f"; {self.near_ties} cut before a near tie" if self.near_ties else ""
        return f"compared with the step in a loop: {self.cases} prompts, {self.steps} steps{ties}"


def draw_prompt(model: Model, sizes: tuple[int, int, int], rng: np.random.Generator, *, states: bool = True) -> Arrays:
    """Random inputs for a generating file, and random states.

    Args:
        model: the file.
        sizes: the batch size, the time steps of the prompt, and the most steps to generate.
        rng: the generator, which advances.
        states: whether to make random states; otherwise they are left out.

    Raises:
        ConfigError: an input has another dynamic axis, for which no size fits.
    """
    described = model.metadata.generation
    assert described is not None  # noqa: S101 - the caller's condition
    specs = model.metadata.inputs
    prompt = next(spec for spec in specs if spec.name == described.generation.input)
    batch, time, steps = sizes
    known = {str(prompt.shape[described.batch_axis]): batch, MAX_STEPS: max(1, steps)}
    if described.time_axis is not None and isinstance(prompt.shape[described.time_axis], str):
        known[str(prompt.shape[described.time_axis])] = time
    limits = model.metadata.axis_limits
    for index, axis in enumerate(axes(specs)):
        known[axis] = clamped(known.get(axis, _OTHER + index), limits.get(axis, ANY_SIZE))
    feeds = draw(specs, known, rng)
    if MAX_STEPS in feeds:
        feeds[MAX_STEPS] = np.array(steps, np.int64)
    if NOISE in feeds:
        feeds[NOISE] = np.minimum(feeds[NOISE], np.asarray(1 - 2.0**-20, feeds[NOISE].dtype))
    for name in model.states if states else ():
        info = model.inputs[name]
        shape = known_shape(info, known)
        if shape is None or info.dtype is None or name in feeds:
            continue
        values = np.tanh(rng.standard_normal(shape)) if info.dtype.kind == "f" else np.zeros(shape)
        feeds[name] = np.asarray(values, info.dtype)
    return feeds


def prove_generation(step: Model, model: Model, *, seed: int = 0) -> GenerationProof:
    """Compare a generating file with its step's file in a loop.

    Args:
        step: the step's file, open.
        model: the generating file, open.
        seed: the seed of the prompts.
    """
    described = model.metadata.generation
    assert described is not None  # noqa: S101 - the caller's condition
    rng = np.random.default_rng(seed)
    axes_of_states = state_axes_of(model)
    cases = steps = ties = 0
    failed = ""
    for sizes in _CASES:
        if described.generation.choose == "sample" and sizes[2] == 0:
            continue  # an empty noise is refused
        for states in (True, False):
            try:
                feeds = draw_prompt(model, sizes, rng, states=states)
                loop = repeat(step.run, described, model.states, axes_of_states, feeds)
                cut = cut_at_near_tie(loop, described, feeds)
                if cut is not None:
                    ties += 1
                    feeds = cut
                    if not _steps(feeds):
                        continue
                    loop = repeat(step.run, described, model.states, axes_of_states, feeds)
                near = repeat(step.run, described, model.states, axes_of_states, rounded(feeds))
            except (InputError, RunError, ConfigError) as error:
                failed = failed or error.reason
                continue
            try:
                found = model.run(feeds)
            except (InputError, RunError) as error:
                return GenerationProof(cases, steps, ties, f"at {_shown(sizes)}: {error.reason}")
            problem = _difference(found, loop, near)
            if problem:
                return GenerationProof(cases, steps, ties, f"at {_shown(sizes)}: {problem}")
            cases, steps = cases + 1, steps + len(loop.decisions)
    return GenerationProof(cases, steps, ties, not_run="" if cases else failed or "no prompt fits it")


def cut_at_near_tie(loop: Looped, described: GeneratingStep, feeds: Arrays) -> Arrays | None:
    """Inputs with fewer steps, so that they end before the first choice that rounding could change, or None.

    Args:
        loop: the results of the Python loop for these inputs.
        described: the step.
        feeds: the inputs.
    """
    for number, decisions in enumerate(loop.decisions):
        if any(decision.is_near(_ROUNDING * np.abs(decision.numbers)) for decision in decisions):
            return with_steps(feeds, described, number)
    return None


def with_steps(feeds: Arrays, described: GeneratingStep, steps: int) -> Arrays:
    """The same inputs with at most `steps` steps."""
    if described.generation.choose == "sample":
        return {**feeds, NOISE: feeds[NOISE][:, :steps]}
    return {**feeds, MAX_STEPS: np.array(steps, np.int64)}


def _steps(feeds: Arrays) -> int:
    return feeds[NOISE].shape[1] if NOISE in feeds else int(feeds[MAX_STEPS])


def _difference(found: Arrays, loop: Looped, near: Looped) -> str:
    for name, array in loop.results.items():
        if name not in found:
            return f"it has no output {name}"
        if found[name].shape != array.shape:
            return f"{name} has shape {found[name].shape}, but {array.shape} in a loop"
        if name == COUNTS or array.dtype.kind in "iub":
            if not np.array_equal(found[name], array):
                return f"{name} differs"
            continue
        problem = mismatch(found[name], array, near.results[name])
        if problem:
            return f"{name}: {problem}"
    return ""


def _shown(sizes: tuple[int, int, int]) -> str:
    batch, time, steps = sizes
    return f"batch {batch}, a prompt of {time} and {steps} steps"
