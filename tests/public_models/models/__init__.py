"""The models of the table, by what they are for."""

from __future__ import annotations

from ..model import Model
from .other import OTHER
from .series import SERIES
from .sound import SOUND
from .speech import SPEECH
from .text import TEXT

MODELS: tuple[Model, ...] = (*SOUND, *SPEECH, *TEXT, *SERIES, *OTHER)
