"""Slots: what is none is named, and a step that fails changes none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.pool.pool import Pool, Slot
from tests.module_files import module_file, with_metadata

from ..models import accumulator, bits, lookup, model_of, randoms
from .inputs import inputs


def closed(own: Pool, slot: Slot) -> Any:
    own.close(slot)
    return slot


@pytest.mark.parametrize(
    "other", [closed, lambda *_: 0, lambda *_: None, lambda *_: [], lambda own, _: Pool(own.model, 1).open()]
)
def test_what_is_no_open_slot_is_named(models: dict[str, Model], other: Callable[[Pool, Slot], Any]) -> None:
    own = Pool(models["plain"], slots=2)
    kept, given = own.open(), other(own, own.open())
    before = bits(own.state(kept))
    x = inputs(own.model, 2, 1, seed=1)
    for act in (
        own.close,
        own.reset,
        own.state,
        lambda it: own.set_state(it, own.state(kept)),
        lambda it: own.step([kept, it], x),
    ):
        with pytest.raises(InputError, match="is not an open slot of this pool"):
            act(given)
    assert bits(own.state(kept)) == before


def test_an_old_handle_does_not_reach_the_new_stream(models: dict[str, Model]) -> None:
    own = Pool(models["plain"], slots=1)
    old = own.open()
    own.step([old], inputs(own.model, 1, 1, seed=1))
    own.close(old)
    new = own.open()
    assert new.index == old.index
    assert not own.state(new)["h0"].any()
    with pytest.raises(InputError, match="is not an open slot"):
        own.step([old], inputs(own.model, 1, 1, seed=1))


def test_a_full_pool_says_how_many(models: dict[str, Model]) -> None:
    own = Pool(models["plain"], slots=2)
    slots = [own.open(), own.open()]
    assert len(own) == 2
    assert "2 of 2 slots open" in repr(own)
    with pytest.raises(InputError, match="all 2 slots of the pool are open"):
        own.open()
    own.close(slots[0])
    own.open()


def test_a_slot_opens_while_a_step_of_others_runs(models: dict[str, Model]) -> None:
    own = Pool(models["plain"], 2)
    opened = threading.Event()
    thread = threading.Thread(target=lambda: (own.open(), opened.set()), daemon=True)
    with own._lock:
        thread.start()
        assert opened.wait(5)


@pytest.mark.parametrize("slots", [0, -1, True, 1.0, "2", None])
def test_slots_are_a_positive_integer(models: dict[str, Model], slots: Any) -> None:
    with pytest.raises(InputError, match=r"^slots = .* must be a positive integer"):
        Pool(models["plain"], slots)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda a, _: ([a, a], randoms(1, 2, 4)), "<Slot 0> is listed twice"),
        (lambda *_: ([], randoms(1, 2, 4)), "no slot to step"),
        (
            lambda a, b: ([a, b], randoms(1, 3, 4)),
            "is 3 sequences, but the number of slots is 2; x has one row for each slot",
        ),
        (lambda a, b: ([a, b], randoms(1, 2, 5)), "axis 2 must be 4"),
        (lambda a, b: ([a, b], randoms(2, 4)), "the model takes 3 axes"),
        (lambda a, b: ([a, b], randoms(0, 2, 4)), "the axis time is empty"),
        (lambda a, b: ([a, b], randoms(1, 2, 4, dtype="float64")), "dtype float64"),
        (lambda a, b: ([a, b], {"input": randoms(1, 2, 4), "h0": randoms(1, 2, 5)}), "h0 is a state, which the pool"),
        (lambda a, b: ([a, b], {"gate": 1}), "gate is not an input"),
        (lambda a, b: ([a, b], {}), "missing input: input"),
        (lambda a, b: ([a, b], object()), "input .*dtype object|not an array"),
    ],
)
def test_what_does_not_fit_changes_nothing(models: dict[str, Model], give: Callable[..., Any], message: str) -> None:
    own = Pool(models["plain"], slots=2)
    slots = own.open(), own.open()
    for repeat in range(3):
        own.step(slots, randoms(1, 2, 4, seed=repeat))
        before = [bits(own.state(slot)) for slot in slots]
        with pytest.raises(InputError, match=message):
            own.step(*give(*slots))
        assert [bits(own.state(slot)) for slot in slots] == before


def test_a_state_that_does_not_fit_changes_nothing(models: dict[str, Model]) -> None:
    own = Pool(models["plain"], slots=2)
    slot = own.open()
    good = own.state(slot)
    for bad, message in (
        ({"h0": good["h0"]}, "missing input: c0"),
        ({**good, "h0": np.zeros((1, 2, 5), np.float32)}, "h0 has shape|batch is"),
        ({name: np.zeros((1, 2, 5), np.float32) for name in good}, "c0 has shape .* a slot's is"),
        ([], "state is a list; it must map .* to arrays"),
    ):
        with pytest.raises(InputError, match=message):
            own.set_state(slot, bad)  # type: ignore[arg-type]
    assert bits(own.state(slot)) == bits(good)


def test_a_state_of_several_rows_for_each_stream_is_refused(tmp_path: Path) -> None:
    metadata = {"lstm_onnx.states": '{"state": "stateN"}'}
    model = load(accumulator(tmp_path / "m.onnx", axis="2*batch", metadata=metadata), "cpu", threads=1)
    assert model.stream().state["state"].shape == (2, 3)
    with pytest.raises(InputError, match=r"the state .* has 2 rows per stream, but a pool stores one"):
        model.pool()


def test_refusals_are_those_of_streams(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is bidirectional: its reverse direction starts"):
        Pool(model_of(tmp_path, bidirectional=True))
    with pytest.raises(InputError, match="has no states to carry"):
        Pool(load(accumulator(tmp_path / "a.onnx"), "cpu"))
    path = with_metadata(tmp_path / "w.onnx", module_file("policy"), not_streamable="l is bidirectional")
    with pytest.raises(InputError, match="cannot be streamed: l is bidirectional"):
        Pool(load(path, "cpu"))


@pytest.mark.parametrize(
    ("shape", "fits"), [((2, 3), False), (("N", 3), True), ((None, 3), True), (("batch", "batch"), False)]
)
def test_the_batch_must_be_open(tmp_path: Path, shape: tuple[Any, ...], fits: bool) -> None:
    model = load(accumulator(tmp_path / "a.onnx", axis=None), "cpu", states={"state": "stateN"})
    model.inputs["state"] = type(model.inputs["state"])("state", np.dtype(np.float32), shape)
    if not fits:
        with pytest.raises(InputError, match=r"the state state .* has no dynamic batch axis"):
            Pool(model)
        return
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    for repeat in range(3):
        np.testing.assert_array_equal(
            own.step(slots, {"x": np.ones((2, 3), np.float32), "scale": 1})["y"], np.full((2, 3), repeat + 1)
        )


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_step_that_fails_changes_nothing(tmp_path: Path, before: int) -> None:
    own = Pool(lookup(tmp_path / "l.onnx"), slots=3)
    slots = [own.open() for _ in range(3)]
    for _ in range(before):
        own.step(slots, np.array([[1], [2], [3]]))
    kept = [bits(own.state(slot)) for slot in slots]
    for order in (slots, slots[::-1], slots):
        with pytest.raises(RunError, match="failed while running"):
            own.step(order, np.array([[1], [99], [3]]))
        assert [bits(own.state(slot)) for slot in slots] == kept
    y = own.step(slots, np.array([[1], [2], [3]]))
    np.testing.assert_array_equal(y[:, 0], (before + 1) * np.array([2, 4, 6]))


def test_outputs_whose_shapes_follow_from_values(tmp_path: Path) -> None:
    own = Pool(lookup(tmp_path / "l.onnx", found=True), slots=2)
    slots = [own.open() for _ in range(2)]
    for zeros in (1, 1, 1, 0, 2, 2, 1):
        found = own.step(slots, np.array([[0], [0]]) + (np.arange(2) >= zeros)[:, None])
        assert found["where"].shape == (2, zeros)
        assert own.state(slots[1])["state"].tolist() == found["y"][1:].tolist()
    assert found["y"].tolist() == [[2, 9], [10, 17]]


def test_a_state_of_another_shape_is_named(tmp_path: Path) -> None:
    model = lookup(tmp_path / "l.onnx", found=True)
    model.states = {"state": "where"}
    own = Pool(model, slots=2)
    with pytest.raises(
        RunError, match=r"its output where is int64 \(2, 1\), but the state state that it feeds is float32"
    ):
        own.step([own.open()], np.array([[0]]))
