"""The rules on axes: cut by constants, without a name, or with several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn

import lstm_onnx
from lstm_onnx.check import CheckReport, check

from ..models import failing
from ..violations import CASES, LENGTHS, Case, all_of, axis, base, nothing, store, then


def checked(folder: Path, *edits: Any, given: tuple[str, ...] = ("initial_h", "initial_c")) -> CheckReport:
    return check(base(folder, Case(nothing, given=given), all_of(*edits)), provider="cpu")


def said(report: CheckReport, rule: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == rule and finding.violated]


def cut(kind: str, rank: int, *names: str, source: str = "X", axis: int | None = None, **numbers: Any) -> Any:
    stored = store(**{name: np.array(number, np.int64) for name, number in numbers.items()})
    return all_of(stored, then(kind, *names, source=source, rank=rank, **({} if axis is None else {"axis": axis})))


def step_of_unbind(index: int) -> Any:
    """As torch.onnx.export writes ``x.unbind()[index]``."""

    def split(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("SplitToSequence", ["X"], ["steps"], axis=0, keepdims=0))

    return all_of(split, store(i=np.array(index)), then("SequenceAt", "i", source="steps", rank=2))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (cut("Slice", 3, "s", "e", s=[0], e=[4]), "Slice takes the first 4 of time in X (time, batch, 4)"),
        (cut("Slice", 3, "s", "e", "a", s=[0], e=[2], a=[1]), "Slice takes the first 2 of batch in X"),
        (cut("Slice", 3, "s", "e", "a", s=[0], e=[2], a=[-3]), "Slice takes the first 2 of time in X"),
        (cut("Gather", 2, "i", i=4), "Gather takes index 4 of time in X"),
        (cut("Gather", 3, "i", i=[4]), "Gather takes index 4"),
        (cut("Gather", 2, "i", i=1, axis=1), "Gather takes index 1 of batch in X"),
        (step_of_unbind(1), "SequenceAt takes index 1 of time in X (time, batch, 4)"),
    ],
)
def test_a_cut_where_the_example_ended(edit: Any, text: str, tmp_path: Path):
    (message,) = said(checked(tmp_path, edit), "frozen-slice")
    assert text in message


@pytest.mark.parametrize(
    "edit",
    [
        cut("Slice", 3, "s", "e", s=[0], e=[2**63 - 1]),  # everything
        cut("Slice", 3, "s", "e", s=[0], e=[1]),  # the first step
        cut("Slice", 3, "s", "e", s=[-1], e=[2**31 - 1]),  # the last one
        cut("Slice", 3, "s", "e", s=[0], e=[-1]),  # all but the last one
        cut("Slice", 3, "s", "e", "a", s=[0], e=[2], a=[2]),  # features, of which there are 4
        cut("Gather", 2, "i", i=0),
        step_of_unbind(0),
        cut("Gather", 2, "i", i=-1),
        cut("Gather", 2, "i", i=2, axis=2),
        cut("Gather", 3, "i", i=[0, 1, 2]),  # a choice of several, as of beams
    ],
)
def test_a_cut_that_is_meant(edit: Any, tmp_path: Path):
    report = checked(tmp_path, edit)
    assert "frozen-slice" in report.silent


def test_a_cut_to_a_computed_size_is_none(tmp_path: Path):
    nodes = all_of(
        lambda model: model.graph.node.append(helper.make_node("Shape", ["X"], ["size"], start=0, end=1)),
        cut("Slice", 3, "s", "size", s=[0]),
    )
    assert "frozen-slice" in checked(tmp_path, nodes).silent


def test_slices_of_old_opsets_have_attributes(tmp_path: Path):
    path = base(tmp_path, Case(nothing, opset=9), then("Slice", source="X", rank=3, starts=[0], ends=[4], axes=[0]))
    assert len(said(check(path, provider="cpu"), "frozen-slice")) == 1


# --- Reshape and Expand ---


@pytest.mark.parametrize("kind", ["Reshape", "Expand"])
def test_an_axis_that_is_lost_to_a_constant(kind: str, tmp_path: Path):
    sizes = {"Reshape": [5, 2, 4], "Expand": [5, 2, 4]}[kind]
    report = checked(tmp_path, cut(kind, 3, "n", n=sizes))
    assert f"then: {kind} turns X (time, batch, 4) into (5, 2, 4), without batch, time" in failing(
        report, "frozen-literal"
    )


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("Reshape", [0, 0, 4]),
        ("Reshape", [0, -1, 4]),
        ("Reshape", [0, 0, 2, 2]),
        ("Expand", [1, 1, 4]),
        ("Expand", [3, 1, 1, 1]),
    ],
)
def test_an_axis_that_is_kept(kind: str, sizes: list[int], tmp_path: Path):
    rank = max(3, len(sizes))
    report = checked(tmp_path, cut(kind, rank, "n", n=sizes))
    assert report, str(report)
    assert "frozen-literal" in report.silent


def test_sizes_of_what_has_no_open_axis_are_free(tmp_path: Path):
    """A weight may be given any shape."""
    report = checked(tmp_path, cut("Reshape", 2, "n", source="W", n=[4, 12]))
    assert report, str(report)
    assert "frozen-literal" in report.silent


# --- Names ---


def test_axes_without_a_name(tmp_path: Path):
    messages = said(checked(tmp_path, axis("X", 0, None), axis("X", 1, None)), "unnamed-axes")
    assert messages == ["the input X (?, ?, 4) has dynamic axes without a name"]


def test_a_batch_with_a_name_in_each_input(tmp_path: Path):
    """As tf2onnx and others write it; such a file runs all the same, and is run with one batch."""
    edits = [axis("initial_h", 1, "h_batch"), axis("Y_h", 1, "h_batch"), axis("initial_c", 1, "c_batch")]
    report = checked(tmp_path, *edits, axis("Y_c", 1, "c_batch"))
    assert said(report, "unnamed-axes") == [
        "batch, h_batch, c_batch are the same batch, with a different name in each input"
    ]
    assert report, str(report)
    assert "runs at batch 1, time 1; batch 3, time 1" in str(report)


def test_lengths_have_the_batch_too(tmp_path: Path):
    report = checked(tmp_path, axis("sequence_lens", 0, "rows"), given=LENGTHS)
    assert said(report, "unnamed-axes") == ["batch, rows are the same batch, with a different name in each input"]
    assert report, str(report)


def joined(folder: Path, first: tuple[object, ...], second: tuple[object, ...], at: int) -> CheckReport:
    """A file of another tool that joins two inputs along an axis."""
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=at)
    shapes = {"a": first, "b": second, "y": [f"y{index}" for index in range(at)] + [7]}
    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph([node], "g", [a, b], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return check(folder / "m.onnx", provider="cpu")


def test_a_name_that_a_tool_made_up_for_each_axis(tmp_path: Path):
    """As Keras and tf2onnx do also for inputs that reach no recurrent operator."""
    report = joined(tmp_path, ("unk__1", 4), ("unk__2", 3), 1)
    assert report, str(report)
    assert "runs at unk__1 1; unk__1 3; unk__1 2, and its outputs" in str(report)
    assert "; unk__2 must be unk__1" in str(report)
    report = joined(tmp_path, ("unk__1", "unk__2", 4), ("unk__3", "unk__4", 3), 2)
    assert report, str(report)
    assert "; unk__3 must be unk__1; unk__4 must be unk__2" in str(report)


def test_a_name_of_several_axes_was_chosen(tmp_path: Path):
    """It has a size of its own, so a file that needs another is at fault."""
    report = joined(tmp_path, ("n", "n", 4), ("n", "m", 3), 2)
    assert "cannot run at n 7, m 5" in failing(report, "runnable")


def test_two_axes_of_one_input_are_not_made_one(tmp_path: Path):
    """A state that was made as long as the time, by a mistake, fails: its two sizes differ when it is run."""

    def mistaken(model: onnx.ModelProto) -> None:
        for name in ("initial_h", "initial_c", "Y_h", "Y_c"):
            axis(name, 1, "time")(model)

    report = checked(tmp_path, mistaken)
    assert "cannot run at batch 3, time 1" in failing(report, "runnable")
    assert said(report, "unnamed-axes") == []


def test_a_size_that_only_shapes_know_is_no_name(tmp_path: Path):
    path = base(tmp_path, CASES["dynamic-axes"], nothing)
    model = onnx.load_model(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    report = check(path, provider="cpu")
    assert "the input X of unknown shape has dynamic axes without a name" in said(report, "unnamed-axes")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_sizes_of_what_a_scan_reads_are_told_once(tmp_path: Path) -> None:
    """An int8 layer reads integers and scales for each step, of one time and batch."""
    lstm_onnx.export(nn.LSTM(8, 8, bidirectional=True), tmp_path / "open.onnx", precision="int8")
    model = onnx.load(tmp_path / "open.onnx")
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (5, 2, 8), strict=True):
        dim.dim_value = size
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "fixed.onnx")
    found = [finding.message for finding in check(tmp_path / "fixed.onnx").findings if finding.rule == "dynamic-axes"]
    fixed = [message for message in found if message.startswith("time is fixed at 5 in the value")]
    assert [message.split("/")[2] for message in fixed] == ["forward", "reverse"]


@pytest.mark.parametrize(
    ("given", "edits", "passes"),
    [
        (("initial_h", "initial_c"), [], True),
        ((), [], False),  # each call would start anew
        (("initial_h", "initial_c"), [axis("X", 0, 2), axis("Y", 0, 2)], False),
    ],
)
def test_a_file_that_is_called_for_each_step_may_have_a_time_of_one(
    given: tuple[str, ...], edits: list[Any], passes: bool, tmp_path: Path
):
    edit = all_of(axis("X", 0, 1), axis("Y", 0, 1), *edits)
    report = check(base(tmp_path, Case(nothing, given=given), edit), provider="cpu")
    (finding,) = (finding for finding in report.findings if finding.rule == "dynamic-axes")
    assert finding.violated != passes
    if passes:
        assert finding.message.endswith("1 recurrent nodes, but at 1 that take one step in each call")


@pytest.mark.parametrize("steps", [1, 2])
def test_an_int8_layer_that_is_called_for_each_step_may_have_a_time_of_one(steps: int, tmp_path: Path) -> None:
    """Such a layer is a Scan."""
    path = base(tmp_path, Case(nothing), all_of(axis("X", 0, steps), axis("Y", 0, steps)))
    lstm_onnx.quantize(path, tmp_path / "int8.onnx")
    found = check(tmp_path / "int8.onnx", provider="cpu").findings
    (finding,) = (finding for finding in found if finding.rule == "dynamic-axes")
    assert finding.violated == (steps > 1)


def test_states_that_are_computed_from_the_sequence_start_anew_in_each_call(tmp_path: Path):
    def computed(model: onnx.ModelProto) -> None:
        for name in ("initial_h", "initial_c"):
            value = next(item for item in model.graph.input if item.name == name)
            width = value.type.tensor_type.shape.dim[2].dim_value
            model.graph.input.remove(value)
            model.graph.node.insert(0, helper.make_node("Slice", ["X", "none", "width", "last"], [name]))
        store(none=np.array([0]), width=np.array([width]), last=np.array([2]))(model)
        del model.metadata_props[:]

    report = checked(tmp_path, computed, axis("X", 0, 1), axis("Y", 0, 1))
    assert any("time is fixed at 1" in message for message in said(report, "dynamic-axes")), str(report)


@pytest.mark.parametrize("dims", [("batch", "time", 7, 4), ("batch", 5, 7, 4), ("batch", "time", 28)])
def test_steps_along_another_axis_may_have_a_fixed_number(dims: tuple[Any, ...], tmp_path: Path):
    """A GRU over the frequencies of each step, with batch and time as its batch."""
    shapes = {"frames": np.array([-1, 7, 4]), "W": np.ones((1, 9, 4), np.float32), "R": np.ones((1, 9, 3), np.float32)}
    nodes = [
        helper.make_node("Reshape", ["x", "frames"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["steps", "W", "R"], ["y"], hidden_size=3),
    ]
    values = [helper.make_tensor_value_info(*named) for named in (("x", 1, dims), ("y", 1, (7, 1, None, 3)))]
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in shapes.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    (finding,) = (f for f in check(tmp_path / "m.onnx", provider="cpu").findings if f.rule == "dynamic-axes")
    if dims == ("batch", "time", 7, 4):
        assert finding.message.endswith("1 recurrent nodes, but at 1 that run along another axis, of a fixed size")
    else:
        assert finding.message.startswith("time is fixed at 7 in the value steps")
