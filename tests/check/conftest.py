"""Tests of single rules run them in this process, where they can be looked into; `test_isolated` has the real thing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lstm_onnx.isolation.child import resolved


class InThisProcess:
    """Stands for a child process: what it is given and gives has been JSON on the way."""

    def call(self, function: str, arguments: Mapping[str, Any], _limits: object) -> Any:
        return json.loads(json.dumps(resolved(function)(**json.loads(json.dumps(arguments)))))

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.module.__name__.endswith("test_isolated"):
        monkeypatch.setattr("lstm_onnx.check.isolated.Child", InThisProcess)
