"""The models of the table, by what they are for."""

from __future__ import annotations

from ..model import Model
from .audio import AUDIO

MODELS: tuple[Model, ...] = (*AUDIO,)
