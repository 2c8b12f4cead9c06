"""Pools: a stream that others join, leave and step beside is as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.errors import InputError, LSTMOnnxError, RunError
from lstm_onnx.runtime import Model, load, pool
from lstm_onnx.runtime.pool import Pool, Slot
from lstm_onnx.spec import ExportOptions
from tests.module_files import module_file, with_initial, with_story

from .models import accumulator, exported, model_of, randoms

FEATURES = 4
SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first_stack": {"batch_first": True, "num_layers": 2},
    "scan": {"proj_size": 2, "num_layers": 2},
    "lengths": {"batch_first": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("pools")
    opened = {}
    for name, sizes in SIZES.items():
        exported(folder / f"{name}.onnx", options=ExportOptions(lengths=name == "lengths"), **sizes)
        opened[name] = load(folder / f"{name}.onnx", "cpu", threads=1)
    opened["three_lanes"] = load(folder / "lengths.onnx", "cpu", threads=3)
    return opened


@pytest.fixture(scope="module", autouse=True)
def small_work_counts() -> Iterator[None]:
    """Every batch is cut for as many lanes as the model has threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_LANE_WORK", 1.0)
        yield


def lookup(path: Path, *, found: bool = False) -> Model:
    """y = table[x] + state; numbers over 9 fail in ONNX Runtime.  `found` adds an output as long as x has zeros."""
    batch = [("x", TensorProto.INT64, ["batch", 1]), ("state", TensorProto.FLOAT, ["batch", 2])]
    nodes = [
        helper.make_node("Squeeze", ["x", "axes"], ["flat"]),
        helper.make_node("Gather", ["table", "flat"], ["row"]),
        helper.make_node("Add", ["row", "state"], ["y"]),
        helper.make_node("Identity", ["y"], ["stateN"]),
    ]
    ends = [("y", TensorProto.FLOAT, ["batch", 2]), ("stateN", TensorProto.FLOAT, ["batch", 2])]
    if found:
        nodes += [
            helper.make_node("Equal", ["x", "nought"], ["zero"]),
            helper.make_node("NonZero", ["zero"], ["where"]),
        ]
        ends += [("where", TensorProto.INT64, [2, None])]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info(*item) for item in batch],
        [helper.make_tensor_value_info(*item) for item in ends],
        [
            numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(10, 2), "table"),
            numpy_helper.from_array(np.array([1]), "axes"),
            numpy_helper.from_array(np.array(0), "nought"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)), path)
    return load(path, "cpu", states={"state": "stateN"})


def row_of(model: Model, x: np.ndarray, row: int) -> np.ndarray:
    axis = 0 if model.spec is not None and model.spec.batch_first else 1
    return np.take(x, [row], axis)


def inputs(model: Model, batch: int, time: int, seed: int) -> np.ndarray:
    assert model.spec is not None
    return randoms(*model.spec.sequence_shape(batch, time, FEATURES), seed=seed)


def bits(state: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.items()}


@pytest.mark.parametrize("name", [*SIZES, "three_lanes"])
@settings(max_examples=15)
@given(data=st.data())
def test_a_stream_is_as_if_it_were_alone(models: dict[str, Model], name: str, data: st.DataObject) -> None:
    model = models[name]
    own = Pool(model, slots=5)
    alone: dict[Slot, Any] = {}
    order: list[Slot] = []
    for turn in range(data.draw(st.integers(3, 12))):
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
            x = inputs(model, len(order), data.draw(st.integers(1, 3)), seed=turn)
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
    for turn in range(60):
        if turn % 3 == 0:
            order = [slots[index] for index in rng.permutation(4)[: rng.integers(1, 5)]]
        x = randoms(len(order), 3, seed=turn)
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
        monkeypatch.setattr(pool, "_MAX_BOUND_BYTES", 8)
    elif change == "few":
        monkeypatch.setattr(pool, "_MAX_BOUND", 2)
        monkeypatch.setattr(pool, "_MAX_LEARNED", 2)
    own = Pool(model, slots=4)
    slots = [own.open() for _ in range(4)]
    if change == "provider":
        own._may_bind = False
    stream = model.stream(4)
    for turn in range(24):
        x = inputs(model, 4, 1 + turn // 2 % 4, seed=turn)
        np.testing.assert_allclose(own.step(slots, x), stream(x), rtol=0, atol=1e-6)
    assert len(own._bound) == (2 if change == "few" else 0)
    assert len(own._learned) <= 4


def test_steps_of_the_same_slots_are_bound(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["plain"]
    own = Pool(model, slots=3)
    slots = [own.open() for _ in range(3)]
    for turn in range(2):
        own.step(slots, inputs(model, 3, 1, seed=turn))
    kept = [own.state(slot) for slot in slots]
    x = inputs(model, 3, 1, seed=7)
    expected = own.step(slots, x)
    for slot, state in zip(slots, kept, strict=True):
        own.set_state(slot, state)
    monkeypatch.setattr(model, "run", None)
    found = own.step(tuple(slots), x)
    np.testing.assert_array_equal(found, expected)
    found[:] = 7
    assert not np.array_equal(own.step(slots, x), found)


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_a_batch_is_cut_for_the_lanes_and_joined_again(models: dict[str, Model], rows: int, parts: int) -> None:
    model = models["three_lanes"]
    own = Pool(model, slots=5)
    slots = [own.open() for _ in range(rows)]
    stream = model.stream(rows)
    for turn in range(6):
        x = inputs(model, rows, 2, seed=turn)
        lengths = np.arange(rows, dtype=np.int32) % 2 + 1
        found = own.step(slots, {"input": x, "lengths": lengths})["output"]
        np.testing.assert_allclose(found, stream.run({"input": x, "lengths": lengths})["output"], rtol=0, atol=1e-6)
    (bound,) = own._bound.values()
    cuts = [part.cut for part in bound.parts]
    assert len(cuts) == parts
    assert [at for cut in cuts for at in range(*cut)] == list(range(rows))
    # The same slots at another time are cut in the same way, others in theirs, and what rests stays as it is.
    resting = bits(own.state(slots[-1])) if rows > 1 else None
    for turn in range(3):
        own.step(slots[: max(1, rows - 1)], inputs(model, max(1, rows - 1), 1, seed=turn))
    if resting is not None:
        assert bits(own.state(slots[-1])) == resting


def test_a_small_step_is_not_cut(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["three_lanes"]
    assert model.spec is not None
    monkeypatch.setattr(pool, "_LANE_WORK", 2 * 4 * 2 * 8.0 * model.spec.hidden_size**2)  # of two steps of four rows
    for time, parts in ((1, 1), (2, 1), (4, 2), (5, 2), (6, 3), (60, 3)):
        own = Pool(model, slots=4)
        slots = [own.open() for _ in range(4)]
        for turn in range(2):
            own.step(slots, inputs(model, 4, time, seed=turn))
        assert [len(bound.parts) for bound in own._bound.values()] == [parts]


def test_a_lane_that_fails_leaves_every_state_as_it_was(tmp_path: Path) -> None:
    model = lookup(tmp_path / "m.onnx")
    assert model.threads is None
    own = Pool(model, slots=4)
    own._lanes.count = 2
    slots = [own.open() for _ in range(4)]
    x = np.array([[1], [2], [3], [4]])
    for _ in range(3):
        own.step(slots, x)
    assert [len(bound.parts) for bound in own._bound.values()] == [2]
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
    for turn in range(4):
        feeds = {"drivers": randoms(2, 3, 3, seed=turn), "series": randoms(2, 3, seed=turn)}
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
    for turn in range(4):
        found = own.step(slots, 1)
        assert {name: array[1, 2] for name, array in found.items()} == {"y": 2 ** (turn + 1), "stateN": 2 ** (turn + 1)}
        found["y"][:] = 0
    shared = Pool(load(accumulator(tmp_path / "b.onnx"), "cpu", states={"state": "y", "x": "y"}), slots=1)
    slot = shared.open()
    shared.set_state(slot, {"state": np.ones((1, 3), np.float32), "x": np.zeros((1, 3), np.float32)})
    for turn in range(3):
        assert shared.step([slot], 1)[0, 0] == 2**turn


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


# --- slots --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("slots", [0, -1, True, 1.0, "2", None])
def test_slots_are_a_positive_integer(models: dict[str, Model], slots: Any) -> None:
    with pytest.raises(InputError, match=r"^slots = .* must be a positive integer"):
        Pool(models["plain"], slots)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda a, _: ([a, a], randoms(1, 2, 4)), "<Slot 0> is there twice"),
        (lambda *_: ([], randoms(1, 2, 4)), "no slot to step"),
        (lambda a, b: ([a, b], randoms(1, 3, 4)), "batch is"),
        (lambda a, b: ([a, b], randoms(1, 2, 5)), "axis 2 must be 4"),
        (lambda a, b: ([a, b], randoms(2, 4)), "the model takes 3 axes"),
        (lambda a, b: ([a, b], randoms(0, 2, 4)), "nothing along time"),
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
    for turn in range(3):
        own.step(slots, randoms(1, 2, 4, seed=turn))
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
        ([], "state must map .* to arrays; it is a list"),
    ):
        with pytest.raises(InputError, match=message):
            own.set_state(slot, bad)  # type: ignore[arg-type]
    assert bits(own.state(slot)) == bits(good)


# --- what cannot be pooled ----------------------------------------------------------------------


def test_a_state_of_several_rows_for_each_stream_is_refused(tmp_path: Path) -> None:
    metadata = {"lstm_onnx.states": '{"state": "stateN"}'}
    model = load(accumulator(tmp_path / "m.onnx", axis="2*batch", metadata=metadata), "cpu", threads=1)
    assert model.stream().state["state"].shape == (2, 3)
    with pytest.raises(InputError, match=r"the state .* has 2 rows for each stream, and a pool keeps one"):
        model.pool()


def test_refusals_are_those_of_streams(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is bidirectional: its reverse direction starts"):
        Pool(model_of(tmp_path, bidirectional=True))
    with pytest.raises(InputError, match="has no states to carry"):
        Pool(load(accumulator(tmp_path / "a.onnx"), "cpu"))
    path = with_story(tmp_path / "w.onnx", module_file("policy"), whole="l is bidirectional")
    with pytest.raises(InputError, match="cannot be streamed: l is bidirectional"):
        Pool(load(path, "cpu"))


@pytest.mark.parametrize(
    ("shape", "fits"), [((2, 3), False), (("N", 3), True), ((None, 3), True), (("batch", "batch"), False)]
)
def test_the_batch_must_be_open(tmp_path: Path, shape: tuple[Any, ...], fits: bool) -> None:
    model = load(accumulator(tmp_path / "a.onnx", axis=None), "cpu", states={"state": "stateN"})
    model.inputs["state"] = type(model.inputs["state"])("state", np.dtype(np.float32), shape)
    if not fits:
        with pytest.raises(InputError, match=r"the state state .* has no batch axis that is open"):
            Pool(model)
        return
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    for turn in range(3):
        np.testing.assert_array_equal(
            own.step(slots, {"x": np.ones((2, 3), np.float32), "scale": 1})["y"], np.full((2, 3), turn + 1)
        )


# --- failures of ONNX Runtime -------------------------------------------------------------------


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
        RunError, match=r"its output where is int64 \(2, 1\), and the state state that it feeds float32"
    ):
        own.step([own.open()], np.array([[0]]))


# --- threads ------------------------------------------------------------------------------------


def in_threads(*acts: Callable[[], None]) -> None:
    """Run them at once; raise what one of them raises."""
    errors: list[BaseException] = []

    def guarded(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def test_threads_that_step_open_and_close(models: dict[str, Model]) -> None:
    model = models["plain"]
    own = Pool(model, slots=12)
    pairs = [[own.open(), own.open()] for _ in range(4)]

    def stepping(index: int) -> None:
        stream = model.stream(2)
        for turn in range(40):
            x = inputs(model, 2, 1 + turn % 2, seed=100 * index + turn)
            np.testing.assert_allclose(own.step(pairs[index], x), stream(x), rtol=0, atol=1e-6)

    def opening() -> None:
        for turn in range(40):
            slot = own.open()
            expected = model.stream()(inputs(model, 1, 1, seed=turn))
            np.testing.assert_allclose(own.step([slot], inputs(model, 1, 1, seed=turn)), expected, rtol=0, atol=1e-6)
            own.close(slot)

    in_threads(*[lambda index=index: stepping(index) for index in range(4)], opening, opening)
    assert len(own) == 8


def test_a_slot_closed_in_mid_step_is_closed_after_it(models: dict[str, Model]) -> None:
    model = models["plain"]
    own = Pool(model, slots=2)
    slots = [own.open(), own.open()]
    inside, go = threading.Event(), threading.Event()
    run = model.run

    def slow(feeds: Any) -> Any:
        inside.set()
        assert go.wait(30)
        return run(feeds)

    own.model = type(
        "Slow",
        (),
        {"run": staticmethod(slow), **{k: getattr(model, k) for k in ("states", "spec", "inputs", "path", "session")}},
    )
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
