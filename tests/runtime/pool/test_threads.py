"""Pools on threads: any of them steps, opens and closes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from lstm_onnx.errors import InputError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.pool.pool import Pool

from ..threads import in_threads
from .inputs import inputs


def test_threads_that_step_open_and_close(models: dict[str, Model]) -> None:
    model = models["plain"]
    own = Pool(model, slots=12)
    pairs = [[own.open(), own.open()] for _ in range(4)]

    def stepping(index: int) -> None:
        stream = model.stream(2)
        for repeat in range(40):
            x = inputs(model, 2, 1 + repeat % 2, seed=100 * index + repeat)
            np.testing.assert_allclose(own.step(pairs[index], x), stream(x), rtol=0, atol=1e-6)

    def opening() -> None:
        for repeat in range(40):
            slot = own.open()
            expected = model.stream()(inputs(model, 1, 1, seed=repeat))
            np.testing.assert_allclose(own.step([slot], inputs(model, 1, 1, seed=repeat)), expected, rtol=0, atol=1e-6)
            own.close(slot)

    in_threads(*[lambda index=index: stepping(index) for index in range(4)], opening, opening)
    assert len(own) == 8


def test_a_slot_closed_in_mid_step_is_closed_after_it(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["plain"]
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    inside, go = threading.Event(), threading.Event()

    def slow(model: Model, feeds: Any) -> Any:
        inside.set()
        assert go.wait(30)
        return model.run(feeds)

    monkeypatch.setattr("lstm_onnx.runtime.pool.pool.run_model", slow)
    found: list[np.ndarray] = []
    x = inputs(model, 2, 1, seed=1)

    def closing() -> None:
        assert inside.wait(30)
        threading.Timer(0.05, go.set).start()
        own.close(slots[0])
        assert go.is_set()
        assert own.open().index == slots[0].index

    in_threads(lambda: found.append(own.step(slots, x)), closing)
    np.testing.assert_allclose(found[0], model(x)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(own.state(slots[1])["h0"], model(x)[1][0][:, 1:], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="not an open slot"):
        own.state(slots[0])
