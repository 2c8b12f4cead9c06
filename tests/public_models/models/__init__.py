"""The models of the table, by what they are for."""

from __future__ import annotations

from ..model import Model
from .audio import AUDIO
from .other import OTHER
from .series import SERIES
from .text import TEXT

MODELS: tuple[Model, ...] = (*AUDIO, *TEXT, *SERIES, *OTHER)
