from __future__ import annotations

import pytest

from ..cli.conftest import run_cli

__all__ = ["run_cli"]


@pytest.fixture(autouse=True)
def _children_are_forks(forked_children: None) -> None:
    """Each file is opened in a child process, whose start would take longer than what it does."""
