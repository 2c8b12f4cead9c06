"""Chooses the prompts on which a generating file is compared: usual sizes, larger ones, and large numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...generation.proof import draw_prompt
from ...generation.python_loop import Arrays
from ...generation_spec import GeneratingStep
from ...runtime import Model

_SIZES = ((1, 1, 5), (3, 4, 7), (2, 3, 12), (1, 6, 1), (4, 1, 2), (1, 2, 40), (2, 2, 0))
"""Batch, time steps of the prompt, and the largest number of steps."""
_LARGER = ((7, 2, 3), (130, 1, 2), (1, 130, 2))
"""Rows and steps beyond those at which a file may be wrong."""
_MANY_STEPS = (1, 1, 130)
"""Only for tokens: the errors of numbers that are fed back may grow."""
_LARGE_SIZES, _LARGE = (3, 2, 3), 200.0
"""The factor of states, such as after long sequences, and of a prompt that is not normalized."""


@dataclass(frozen=True)
class Prompt:
    """The random inputs of a case.

    Attributes:
        label: of the case.
        sizes: batch, time steps of the prompt, and the largest number of steps.
        states: whether states are given.
        factor: of states and of numbers without a range.
        extreme: whether its sizes or numbers are unusual, so that it is left out where PyTorch itself is chaotic.
    """

    label: str
    sizes: tuple[int, int, int]
    states: bool
    factor: float = 1.0
    extreme: bool = False

    def drawn(self, model: Model, rng: np.random.Generator) -> Arrays:
        """Inputs, and states; `rng` advances."""
        feeds = draw_prompt(model, self.sizes, rng, states=self.states)
        if self.factor == 1.0:
            return feeds
        open_inputs = {spec.name for spec in model.metadata.inputs if spec.low is None} | set(model.states)
        return {
            name: np.asarray(array * self.factor, array.dtype)
            if name in open_inputs and array.dtype.kind == "f"
            else array
            for name, array in feeds.items()
        }


def prompts(described: GeneratingStep, *, anew: bool) -> list[Prompt]:
    """The prompts of a file.

    Args:
        described: its step.
        anew: whether PyTorch cannot be given states, and processes all earlier steps again in each step.
    """
    choose = described.generation.choose
    usual = [
        Prompt(_label(described, sizes) + (", states" if states else ", no states"), sizes, states)
        for sizes in _SIZES
        if sizes[2] or choose != "sample"
        for states in ((False,) if anew else (True, False))
    ]
    larger = [sizes for sizes in _LARGER if described.time_axis is not None or sizes[1] == 1]
    if choose != "value" and not anew:
        larger.append(_MANY_STEPS)
    extreme = [Prompt(_label(described, sizes), sizes, not anew, extreme=True) for sizes in larger]
    label = f"{_label(described, _LARGE_SIZES)}, large numbers"
    return [*usual, *extreme, Prompt(label, _LARGE_SIZES, not anew, _LARGE, extreme=True)]


def _label(described: GeneratingStep, sizes: tuple[int, int, int]) -> str:
    batch, time, steps = sizes
    prompt = f"prompt {time}, " if described.time_axis is not None else ""
    return f"batch {batch}, {prompt}max_steps {steps}"
