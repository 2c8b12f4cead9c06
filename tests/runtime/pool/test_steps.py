"""Pools: a stream that others join, leave and step beside is as if it were alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_onnx.errors import InputError, LSTMOnnxError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.pool import bound_batches
from lstm_onnx.runtime.pool.pool import Pool, Slot
from tests.module_files import module_file, with_initial

from ..models import accumulator, bits, exported, lookup, model_of, randoms
from .inputs import SIZES, inputs, row_of


@pytest.mark.parametrize("name", [*SIZES, "three_threads", "spinning"])
@settings(max_examples=15)
@given(data=st.data())
def test_a_stream_is_as_if_it_were_alone(models: dict[str, Model], name: str, data: st.DataObject) -> None:
    model = models[name]
    own = Pool(model, slots=5)
    alone: dict[Slot, Any] = {}
    order: list[Slot] = []
    for repeat in range(data.draw(st.integers(3, 12))):
        act = data.draw(st.sampled_from(["open", "close", "reset", "step", "step", "again", "again", "again"]))
        if act == "open" and len(own) < own.slots:
            alone[own.open()] = model.stream()
        elif act in ("close", "reset") and alone:
            slot = data.draw(st.sampled_from(list(alone)))
            getattr(own, act)(slot)
            if act == "close":
                del alone[slot]
            else:
                alone[slot].reset()
        elif alone:
            if act != "again" or not order or not set(order) <= set(alone):
                order = data.draw(st.lists(st.sampled_from(list(alone)), min_size=1, unique=True))
            skipping = {slot: bits(own.state(slot)) for slot in alone if slot not in order}
            x = inputs(model, len(order), data.draw(st.integers(1, 3)), seed=repeat)
            y = own.step(order, x)
            for row, slot in enumerate(order):
                expected = alone[slot](row_of(model, x, row))
                np.testing.assert_allclose(row_of(model, y, row), expected, rtol=0, atol=1e-6)
            if data.draw(st.booleans()):  # what is read brings the slots' own arrays up to date
                assert skipping == {slot: bits(own.state(slot)) for slot in skipping}
    assert len(own) == len(alone)
    for slot, stream in alone.items():
        for state, array in stream.state.items():
            np.testing.assert_allclose(own.state(slot)[state], array, rtol=0, atol=1e-6)


def test_the_same_bits_where_onnx_runtime_gives_them(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})
    own = Pool(model, slots=4)
    slots = [own.open() for _ in range(4)]
    alone = {slot: model.stream() for slot in slots}
    rng = np.random.default_rng(0)
    order: list[Slot] = []
    for repeat in range(60):
        if repeat % 3 == 0:
            order = [slots[index] for index in rng.permutation(4)[: rng.integers(1, 5)]]
        x = randoms(len(order), 3, seed=repeat)
        y = own.step(order, {"x": x, "scale": 3})
        assert list(y) == ["y"]
        for row, slot in enumerate(order):
            np.testing.assert_array_equal(
                y["y"][row : row + 1], alone[slot].run({"x": x[row : row + 1], "scale": 3})["y"]
            )
    for slot in slots:
        np.testing.assert_array_equal(own.state(slot)["state"], alone[slot].state["state"])


@pytest.mark.parametrize("change", ["provider", "small", "few"])
def test_without_bindings_too(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    model = models["plain"]
    if change == "small":
        monkeypatch.setattr(bound_batches, "MAX_POOL_BINDING_BYTES", 8)
    elif change == "few":
        monkeypatch.setattr(bound_batches, "MAX_POOL_BINDINGS", 2)
        monkeypatch.setattr(bound_batches, "MAX_KNOWN_OUTPUTS", 2)
    own = Pool(model, slots=4)
    slots = [own.open() for _ in range(4)]
    if change == "provider":
        own._parts.may_bind = False
    stream = model.stream(4)
    for repeat in range(24):
        x = inputs(model, 4, 1 + repeat // 2 % 4, seed=repeat)
        np.testing.assert_allclose(own.step(slots, x), stream(x), rtol=0, atol=1e-6)
    assert len(own._parts.bound) == (2 if change == "few" else 0)
    assert len(own._parts.known_outputs) <= 4


def test_steps_of_the_same_slots_are_bound(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["plain"]
    own = Pool(model, slots=3)
    slots = [own.open() for _ in range(3)]
    for repeat in range(2):
        own.step(slots, inputs(model, 3, 1, seed=repeat))
    kept = [own.state(slot) for slot in slots]
    x = inputs(model, 3, 1, seed=7)
    expected = own.step(slots, x)
    for slot, state in zip(slots, kept, strict=True):
        own.set_state(slot, state)
    monkeypatch.setattr("lstm_onnx.runtime.pool.pool.run_model", None)
    found = own.step(tuple(slots), x)
    np.testing.assert_array_equal(found, expected)
    found[:] = 7
    assert not np.array_equal(own.step(slots, x), found)


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_a_batch_is_divided_among_the_threads_and_joined_again(models: dict[str, Model], rows: int, parts: int) -> None:
    model = models["three_threads"]
    own = Pool(model, slots=5)
    slots = [own.open() for _ in range(rows)]
    stream = model.stream(rows)
    for repeat in range(6):
        x = inputs(model, rows, 2, seed=repeat)
        lengths = np.arange(rows, dtype=np.int32) % 2 + 1
        found = own.step(slots, {"input": x, "lengths": lengths})["output"]
        np.testing.assert_allclose(found, stream.run({"input": x, "lengths": lengths})["output"], rtol=0, atol=1e-6)
    (bound,) = own._parts.bound.values()
    row_ranges = [part.row_range for part in bound.parts]
    assert len(row_ranges) == parts
    assert [at for row_range in row_ranges for at in range(*row_range)] == list(range(rows))
    # The same slots at another time are divided in the same way, others in theirs, and what rests stays as it is.
    resting = bits(own.state(slots[-1])) if rows > 1 else None
    for repeat in range(3):
        own.step(slots[: max(1, rows - 1)], inputs(model, max(1, rows - 1), 1, seed=repeat))
    if resting is not None:
        assert bits(own.state(slots[-1])) == resting


@pytest.mark.parametrize(("flops", "ends"), [(0.0, [2, 4, 6]), (1.6, [3, 4, 6]), (1e9, [4, 5, 6])])
def test_the_callers_part_is_larger(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, flops: float, ends: list[int]
) -> None:
    model = models["three_threads"]
    own = Pool(model, slots=6)
    slots = [own.open() for _ in range(6)]
    monkeypatch.setattr(bound_batches, "WAKE_FLOPS", flops * own._parts.step_flops * 2)  # of two steps of a row
    for repeat in range(3):
        own.step(slots, inputs(model, 6, 2, seed=repeat))
    (bound,) = own._parts.bound.values()
    assert [part.row_range[1] for part in bound.parts] == ends


def test_with_spin_onnx_runtime_divides_the_batch(models: dict[str, Model]) -> None:
    model = models["spinning"]
    own = Pool(model, slots=6)
    slots = [own.open() for _ in range(6)]
    for repeat in range(3):
        own.step(slots, inputs(model, 6, 2, seed=repeat))
    (bound,) = own._parts.bound.values()
    assert bound.row_ranges == ((0, 6),)


def test_a_small_step_is_not_divided(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["three_threads"]
    assert model.spec is not None
    four_rows = 2 * 4 * 2 * 8.0 * model.spec.hidden_size**2  # of two steps
    monkeypatch.setattr(bound_batches, "PART_FLOPS", four_rows)
    for time, parts in ((1, 1), (2, 1), (4, 2), (5, 2), (6, 3), (60, 3)):
        own = Pool(model, slots=4)
        slots = [own.open() for _ in range(4)]
        for repeat in range(2):
            own.step(slots, inputs(model, 4, time, seed=repeat))
        assert [len(bound.parts) for bound in own._parts.bound.values()] == [parts]


@pytest.mark.parametrize(("least", "parts"), [(100.0, 1), (1e-9, 3)])
def test_a_module_is_cut_by_the_time_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, parts: int
) -> None:
    monkeypatch.setattr(bound_batches, "PART_FLOPS", 1e12)
    monkeypatch.setattr(bound_batches, "PART_SECONDS", least)
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", threads=3, states={"state": "stateN"})
    own = Pool(model, slots=4)
    slots = [own.open() for _ in range(4)]
    x = randoms(4, 3)
    for repeat in range(1, 4):
        found = own.step(slots, {"x": x, "scale": np.array(2)})
        np.testing.assert_allclose(found["y"], 2 * repeat * x, rtol=1e-6)
    assert [len(bound.parts) for bound in own._parts.bound.values()] == [parts]


def test_a_lane_that_fails_leaves_every_state_as_it_was(tmp_path: Path) -> None:
    model = lookup(tmp_path / "m.onnx")
    assert model.threads is None
    own = Pool(model, slots=4)
    own._parts.threads.count = 2
    slots = [own.open() for _ in range(4)]
    x = np.array([[1], [2], [3], [4]])
    for _ in range(3):
        own.step(slots, x)
    assert [len(bound.parts) for bound in own._parts.bound.values()] == [2]
    before = [bits(own.state(slot)) for slot in slots]
    for row in range(4):
        wrong = x.copy()
        wrong[row] = 99
        with pytest.raises(RunError, match="out of data bounds"):
            own.step(slots, wrong)
        assert [bits(own.state(slot)) for slot in slots] == before
    own.step(slots, x)


def test_a_pool_of_a_closed_model_says_so(tmp_path: Path) -> None:
    model = load(model_of(tmp_path).path, "cpu", threads=2)
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    for _ in range(3):
        own.step(slots, inputs(model, 2, 1, seed=0))
    model.close()
    with pytest.raises(RunError, match="is closed"):
        own.step(slots, inputs(model, 2, 1, seed=0))


def test_states_move_between_streams_and_slots_bit_for_bit(models: dict[str, Model]) -> None:
    model = models["batch_first_stack"]
    own = Pool(model, slots=2)
    first, second = own.open(), own.open()
    stream = model.stream()
    own.step([first, second], inputs(model, 2, 3, seed=1))
    stream.state = own.state(first)
    assert bits(stream.state) == bits(own.state(first)) != bits(own.state(second))
    own.set_state(second, {name: torch.tensor(array) for name, array in stream.state.items()})
    assert bits(own.state(second)) == bits(stream.state)
    kept = own.state(first)
    own.state(first)["h0"][:] = 9
    kept["h0"][:] = 9
    assert bits(own.state(first)) == bits(stream.state)
    x = inputs(model, 1, 1, seed=2)
    y = own.step([second, first], np.repeat(x, 2, axis=0))
    np.testing.assert_array_equal(y[0], y[1])


def test_lengths_and_torch(models: dict[str, Model]) -> None:
    model = models["lengths"]
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    x = inputs(model, 2, 4, seed=1)
    found = own.step(slots, {"input": torch.tensor(x), "lengths": [4, 2]})
    assert list(found) == ["output"]
    assert isinstance(found["output"], torch.Tensor)
    _, (hn, _) = model(x, lengths=[4, 2])
    for row, slot in enumerate(slots):
        np.testing.assert_allclose(own.state(slot)["h0"][:, 0], hn[:, row], rtol=0, atol=1e-6)
    assert isinstance(own.step(slots, torch.tensor(x)), torch.Tensor)
    with pytest.raises(InputError, match=r"lengths\[0\] is 0"):
        own.step(slots, {"input": x, "lengths": [0, 1]})


def test_slots_start_from_what_the_file_says(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    h0 = randoms(1, 1, 5)
    model = load(with_initial(tmp_path / "i.onnx", tmp_path / "m.onnx", {"h0": h0}), "cpu")
    own = Pool(model, slots=2)
    slot = own.open()
    for _ in range(2):
        np.testing.assert_array_equal(own.state(slot)["h0"], h0)
        assert not own.state(slot)["c0"].any()
        own.step([slot], randoms(2, 1, 4))
        own.reset(slot)
    own.close(slot)
    np.testing.assert_array_equal(own.state(own.open())["h0"], h0)


def test_a_module_of_several_inputs() -> None:
    model = load(module_file("exogenous_forecaster", "explicit"), "cpu")
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    stream = model.stream(2)
    for repeat in range(4):
        feeds = {"drivers": randoms(2, 3, 3, seed=repeat), "series": randoms(2, 3, seed=repeat)}
        expected = stream.run(feeds)
        found = own.step(slots, feeds)
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"has the inputs .* a step takes {name: array}"):
        own.step(slots, randoms(2, 3))
    with pytest.raises(InputError, match="missing input: "):
        own.step(slots, {"series": randoms(2, 3)})


def test_states_alone_and_states_that_share_an_output(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "y", "x": "stateN"})
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    for slot in slots:
        own.set_state(slot, {name: np.ones((1, 3), np.float32) for name in ("state", "x")})
    for repeat in range(4):
        found = own.step(slots, 1)
        assert {name: array[1, 2] for name, array in found.items()} == {
            "y": 2 ** (repeat + 1),
            "stateN": 2 ** (repeat + 1),
        }
        found["y"][:] = 0
    shared = Pool(load(accumulator(tmp_path / "b.onnx"), "cpu", states={"state": "y", "x": "y"}), slots=1)
    slot = shared.open()
    shared.set_state(slot, {"state": np.ones((1, 3), np.float32), "x": np.zeros((1, 3), np.float32)})
    for repeat in range(3):
        assert shared.step([slot], 1)[0, 0] == 2**repeat


def test_a_model_that_was_closed_is_not_run(tmp_path: Path) -> None:
    own = Pool(model_of(tmp_path), slots=1)
    slot = own.open()
    for _ in range(3):
        own.step([slot], randoms(1, 1, 4))
    kept = bits(own.state(slot))
    own.model.close()
    with pytest.raises(LSTMOnnxError, match="closed"):
        own.step([slot], randoms(1, 1, 4))
    assert bits(own.state(slot)) == kept
