"""What the child process of a trial does."""

from __future__ import annotations

from collections.abc import Mapping

from ..isolation.stages import stage
from .open_model import load
from .trial import first_run


def open_and_run(path: str, provider: str, threads: int | None, states: Mapping[str, str] | None) -> None:
    """Open the file, and run it once."""
    stage("session creation")
    first_run(load(path, provider, threads, states=states))
