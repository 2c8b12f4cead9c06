"""Tests of single rules run them in this process, where they can be looked into; `test_isolated` has the real thing."""

from __future__ import annotations

import pytest

from .models import in_this_process


@pytest.fixture(autouse=True)
def no_child(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = "crashing-node" in request.node.name or request.module.__name__.endswith("test_isolated")
    if not ends:
        in_this_process(monkeypatch)
