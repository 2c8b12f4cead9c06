"""Generators of random numbers that a module holds: copied, so that its draws do not advance the original's."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import numpy as np
import torch

GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
"""Their classes."""


def copied_generator(generator: Any) -> Any:
    """A generator that draws the same numbers; the generator itself if it has no state.

    Args:
        generator: an instance of one of `GENERATORS`.
    """
    if isinstance(generator, torch.Generator):
        new = torch.Generator(device=generator.device)
        new.set_state(generator.get_state())
        return new
    if isinstance(generator, random.SystemRandom):
        return generator
    if isinstance(generator, random.Random):
        other = type(generator).__new__(type(generator))
        other.setstate(generator.getstate())
        return other
    return deepcopy(generator)


def generator_state(generator: Any) -> object:
    """The state of a generator, which a draw changes."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return str(generator.get_state())
    return generator.get_state().numpy().tobytes()
