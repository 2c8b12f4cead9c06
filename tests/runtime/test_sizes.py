"""Sizes and lengths that a file says it is right for: what is outside is refused on every way into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx import Batcher, InputError, Model, load
from lstm_onnx.check import check
from lstm_onnx.checksum import KEY, UNKNOWN, with_checksum
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata
from tests.module_files import module_file

LENGTHS = InputSpec("lengths", ("batch",), "int64", 1, "time")


def _file(
    path: Path, limits: Mapping[str, tuple[int, int | None]] | None = None, *, inputs: tuple[InputSpec, ...] = ()
) -> Path:
    """y = x / lengths + state, stateN = the last step of y; x (batch, time, 2) and lengths (batch,)."""
    nodes = [
        helper.make_node("Cast", ["lengths"], ["divisor"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["divisor", "axes"], ["divisors"]),
        helper.make_node("Div", ["x", "divisors"], ["mean"]),
        helper.make_node("Unsqueeze", ["state", "one"], ["states"]),
        helper.make_node("Add", ["mean", "states"], ["y"]),
        helper.make_node("Gather", ["y", "last"], ["stateN"], axis=1),
    ]
    stored = {"axes": np.array([1, 2]), "one": np.array([1]), "last": np.array(-1)}
    ends = {"x": ["batch", "time", 2], "lengths": ["batch"], "state": ["batch", 2]}
    made = {"y": ["batch", "time", 2], "stateN": ["batch", 2]}
    kinds = {"lengths": TensorProto.INT64}
    infos = [
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in group.items()
        ]
        for group in (ends, made)
    ]
    graph = helper.make_graph(
        nodes, "means", infos[0], infos[1], [numpy_helper.from_array(array, name) for name, array in stored.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    specs = inputs or (InputSpec("x", ("batch", "time", 2)), LENGTHS)
    metadata = Metadata(states={"state": "stateN"}, inputs=specs, axis_limits=limits or {}, not_streamable="")
    helper.set_model_props(model, {**metadata.to_metadata(), KEY: UNKNOWN})
    path.write_bytes(with_checksum(model.SerializeToString()))
    return path


def _feeds(batch: int = 2, time: int = 5, lengths: Any = None) -> dict[str, np.ndarray]:
    lengths = np.full(batch, time) if lengths is None else np.array(lengths)
    return {"x": np.ones((batch, time, 2), np.float32), "lengths": lengths}


@pytest.mark.parametrize("lengths", [[0, 5], [6, 5], [5, -1]])
def test_lengths_of_a_module_are_from_one_to_time(lengths: list[int], tmp_path: Path) -> None:
    model = load(_file(tmp_path / "m.onnx"), "cpu")
    stream, pool = model.stream(2), model.pool(2)
    slots = [pool.open(), pool.open()]
    right, wrong = _feeds(lengths=[5, 1]), _feeds(lengths=lengths)
    wrong_at = next(at for at, length in enumerate(lengths) if not 1 <= length <= 5)
    said = rf"lengths\[{wrong_at}\] is .*from 1 to time, 5"
    for _ in range(4):
        assert model.run(right)["y"][1, 0, 0] == 1
        stream.run(right)
        pool.step(slots, right)
        for run in (model.run, stream.run, lambda feeds: pool.step(slots, feeds)):
            with pytest.raises(InputError, match=said):
                run(wrong)


def test_lengths_of_sequences_and_of_requests(tmp_path: Path) -> None:
    model = load(_file(tmp_path / "m.onnx"), "cpu")
    sequences = [{"x": np.ones((3, 2), np.float32), "lengths": length} for length in (3, 1, 4)]
    results = model.map(sequences)
    assert next(results)["y"][0, 0] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match=r"sequence 2: lengths is 4; it must be from 1 to time, 3"):
        list(results)
    with Batcher(model, max_batch=1, window=0) as batcher, batcher.open() as stream:
        for _ in range(3):
            stream.step(_feeds(1, 3, [2]))
            with pytest.raises(InputError, match=r"lengths\[0\] is 0"):
                stream.step(_feeds(1, 3, [0]))


def test_an_exported_module_knows_its_lengths() -> None:
    model = load(module_file("packed_tagger"), "cpu")
    (name, count), *_ = model.counts.items()
    assert (count.low, count.axis) == (1, "time")
    sizes = {"batch": 2, "time": 4}
    feeds = {
        spec.name: np.ones([sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype)
        for spec in model.metadata.inputs
    }
    model.run({**feeds, name: np.array([4, 2])})
    for lengths in ([4, 0], [4, 5]):
        with pytest.raises(InputError, match=rf"{name}\[1\] is {lengths[1]}; it must be from 1 to time, 4"):
            model.run({**feeds, name: np.array(lengths)})


@pytest.mark.parametrize(
    ("limits", "batch", "time", "said"),
    [
        ({"time": (3, None)}, 2, 2, r"x has shape \(2, 2, 2\), so time is 2; .* right only if time is 3 or more"),
        ({"time": (3, 5)}, 2, 6, r"so time is 6; .* right only if time is from 3 to 5"),
        ({"time": (5, 5)}, 2, 4, r"so time is 4; .* right only if time is 5$"),
        ({"batch": (2, 2)}, 3, 5, r"so batch is 3; .* right only if batch is 2$"),
        ({"batch": (1, 2), "time": (1, 8)}, 3, 9, r"so batch is 3; .* right only if batch is from 1 to 2"),
    ],
)
def test_a_run_outside_the_limits_is_refused(
    limits: dict[str, tuple[int, int | None]], batch: int, time: int, said: str, tmp_path: Path
) -> None:
    model = load(_file(tmp_path / "m.onnx", limits), "cpu")
    for _ in range(3):
        assert model.run(_feeds(2, 5))["y"].shape == (2, 5, 2)
        with pytest.raises(InputError, match=said):
            model.run(_feeds(batch, time))
        with pytest.raises(InputError, match=said):
            model.stream(batch).run(_feeds(batch, time))
    model.warm_up()


def test_a_pool_keeps_to_the_limits_of_its_batch(tmp_path: Path) -> None:
    pool = load(_file(tmp_path / "m.onnx", {"batch": (2, 3)}), "cpu").pool(5)
    slots = [pool.open() for _ in range(5)]
    for _ in range(3):
        pool.step(slots[:3], _feeds(3, 400))
        for count in (1, 4):
            with pytest.raises(InputError, match=f"so batch is {count}; .* from 2 to 3"):
                pool.step(slots[:count], _feeds(count, 400))


def test_batches_that_we_choose_keep_to_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path / "m.onnx", {"batch": (1, 3)})
    model = load(path, "cpu")
    rows: list[int] = []

    class Noting:
        def __init__(self, session: Any) -> None:
            self._session = session

        def run(self, names: Any, feeds: Mapping[str, np.ndarray], options: Any) -> Any:
            rows.append(len(feeds["x"]))
            return self._session.run(names, feeds, options)

    session = model.one_thread()
    monkeypatch.setattr(model, "one_thread", lambda: Noting(session))
    sequences = [{"x": np.full((4, 2), float(at), np.float32)} for at in range(200)]
    found = [result["y"][0, 0] for result in model.map(sequences, batch=64)]
    assert found == [at / 4 for at in range(200)]
    assert set(rows) <= {1, 2, 3}
    assert max(rows) > 1
    with Batcher(load(path, "cpu"), max_batch=8) as batcher:
        assert batcher._scheduler.queue.max_batch == 3


def test_a_model_that_no_single_sequence_fits(tmp_path: Path) -> None:
    model = load(_file(tmp_path / "m.onnx", {"batch": (2, None)}), "cpu")
    with pytest.raises(InputError, match="is right only if batch is 2 or more, but a sequence may have to run alone"):
        list(model.map([{"x": np.ones((4, 2), np.float32)}]))
    with pytest.raises(InputError, match="is right only for 2 rows or more, but a stream may have to be stepped alone"):
        Batcher(model)


def test_the_check_keeps_to_the_limits(tmp_path: Path) -> None:
    report = check(_file(tmp_path / "m.onnx", {"time": (6, 9), "batch": (2, None)}), provider="cpu")
    assert report
    ran = next(finding.message for finding in report.findings if finding.rule == "runnable")
    assert "batch 2, time 6" in ran
    assert "time 7" in ran
    assert "batch 1" not in ran


def test_limits_cost_nothing_where_there_are_none(tmp_path: Path) -> None:
    model: Model = load(_file(tmp_path / "m.onnx"), "cpu")
    assert all(not info.limits for info in model.inputs.values())
    entries = model.session.get_modelmeta().custom_metadata_map
    assert "lstm_onnx.axis_limits" not in entries
    assert json.loads(entries["lstm_onnx.inputs"])[1]["high"] == "time"
