"""Files of whole modules: sound ones pass, and a size that was frozen in one is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata, Origin
from tests.architectures import ALL
from tests.module_files import edited_module, module_file, with_metadata

from .models import failing, fix_dim, saved

pytestmark = pytest.mark.sweep(4)

QUICK = (
    ("exogenous_forecaster", "explicit"),
    ("policy", "zero"),
    ("packed_gru_and_lstm", "zero"),
    ("three_kinds", "explicit"),
    ("tutorial_tagger", "zero"),
)


@pytest.mark.parametrize(("name", "states"), QUICK)
def test_sound_modules_pass(name: str, states: str) -> None:
    report = check(module_file(name, states), provider="cpu", strict=True)
    assert report, str(report)
    assert all(finding.passed for finding in report.findings), str(report)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("states", ["zero", "explicit"])
@pytest.mark.parametrize("architecture", ALL, ids=lambda architecture: architecture.name)
def test_every_architecture_passes(architecture: Any, states: str) -> None:
    report = check(module_file(architecture.name, states), provider="cpu", strict=True)
    assert report, str(report)
    assert all(finding.passed for finding in report.findings), str(report)


def test_the_report_tells_what_goes_in_and_of_whom_the_states_are() -> None:
    text = str(check(module_file("three_kinds", "explicit"), provider="cpu"))
    assert "a module that takes x float32 (batch, time, 4)" in text
    assert "readers.1.h0 <- readers.1.hn (h of readers.1)" in text
    assert "readers.0.c0 <- readers.0.cn (c of readers.0)" in text
    assert "the dynamic axes in the metadata, batch, time, are dynamic" in text
    assert "runs at batch 1, time 1; batch 3, time 1; batch 1, time 5; batch 3, time 7; batch 2, time 5" in text


def frozen_shape(*shape: int) -> Callable[[ModelProto], None]:
    """A Reshape to constants before the first LSTM; 0 keeps a dimension."""

    def edit(model: ModelProto) -> None:
        index, node = next((i, node) for i, node in enumerate(model.graph.node) if node.op_type == "LSTM")
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "frozen/shape"))
        source, node.input[0] = node.input[0], "frozen/x"
        made = helper.make_node("Reshape", [source, "frozen/shape"], ["frozen/x"], name="frozen/Reshape")
        model.graph.node.insert(index, made)

    return edit


def constant_states(batch: int) -> Callable[[ModelProto], None]:
    def edit(model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "LSTM")
        hidden = next(item for item in node.attribute if item.name == "hidden_size").i
        for index, name in ((5, "frozen/h"), (6, "frozen/c")):
            model.graph.initializer.append(numpy_helper.from_array(np.ones((1, batch, hidden), np.float32), name))
            node.input.extend([""] * (index + 1 - len(node.input)))
            node.input[index] = name

    return edit


def checked(folder: Path, edit: Callable[[ModelProto], object], name: str = "policy") -> Any:
    return check(edited_module(folder / "m.onnx", module_file(name), edit), provider="cpu")


@pytest.mark.parametrize(
    ("shape", "rule", "said"),
    [
        ((0, 2, 5), "frozen-literal", "turns lstm/input/time_first (time, batch, 5) into (time, 2, 5), without batch"),
        (
            (0, 2, 5),
            "dynamic-axes",
            "batch is dynamic in the input observation (batch, time, 5), but fixed in the value",
        ),
        ((4, 0, 5), "frozen-literal", "without time"),
        ((4, 2, 5), "frozen-literal", "(4, 2, 5), without batch, time"),
    ],
)
def test_a_frozen_reshape_is_named(tmp_path: Path, shape: tuple[int, ...], rule: str, said: str) -> None:
    report = checked(tmp_path, frozen_shape(*shape))
    assert said in failing(report, rule)
    assert "cannot run at batch 1, time 1" in failing(report, "runnable")


@pytest.mark.parametrize("shape", [(-1, 2, 5), (4, -1, 5)])
def test_a_frozen_reshape_whose_shape_proves_nothing_fails_to_run(tmp_path: Path, shape: tuple[int, ...]) -> None:
    report = checked(tmp_path, frozen_shape(*shape))
    assert "dynamic-axes" not in {finding.rule for finding in report.failures}
    assert "cannot run" in failing(report, "runnable")


@pytest.mark.parametrize("batch", [1, 2])
def test_initial_states_of_a_fixed_batch(tmp_path: Path, batch: int) -> None:
    report = checked(tmp_path, constant_states(batch))
    state = f"frozen/h (1, {batch}, 10)"
    said = f"lstm/l0/LSTM: batch is fixed at {batch} in the initial state {state}, but is batch in its input"
    assert said in failing(report, "state-batch")
    assert "cannot run" in failing(report, "runnable")


def test_an_input_with_another_axis_than_promised(tmp_path: Path) -> None:
    report = checked(tmp_path, lambda model: fix_dim(model, 0, 0, 2))
    said = failing(report, "dynamic-axes")
    assert "not the shapes that the metadata promises: observation is (2, time, 5), not (batch, time, 5)" in said


def test_a_batch_that_states_name_otherwise_is_one_too(tmp_path: Path) -> None:
    def rename(model: ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == "batch":
                    dim.dim_param = "N"

    path = edited_module(tmp_path / "n.onnx", module_file("three_kinds", "explicit"), rename)
    inputs = (InputSpec("x", ("N", "time", 4)),)
    assert check(with_metadata(tmp_path / "m.onnx", path, inputs=inputs), provider="cpu")
    edited_module(tmp_path / "m.onnx", tmp_path / "m.onnx", frozen_shape(0, 2, 4))
    report = check(tmp_path / "m.onnx", provider="cpu")
    assert "N is dynamic in the input x (N, time, 4), but fixed in the value frozen/x" in failing(
        report, "dynamic-axes"
    )


class Agents(nn.Module):
    """Several rows for each of the batch, whose states are in an axis of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 6)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        following: Tensor = self.cell(x, h.reshape(-1, 6))
        return following


def test_a_batch_in_a_product_is_open(tmp_path: Path) -> None:
    n = torch.export.Dim("n")
    shapes = {"x": {0: 3 * n}, "h": {0: n}}
    examples = torch.randn(6, 5), torch.randn(2, 3, 6)
    lstm_onnx.export(Agents().eval(), tmp_path / "m.onnx", example_inputs=examples, dynamic_shapes=shapes)
    report = check(tmp_path / "m.onnx", provider="cpu")
    assert report, str(report)


def story_of(**changes: Any) -> dict[str, str]:
    axes = InputSpec("x", ("batch", "time", 2))
    return Metadata(**{"inputs": (axes,), "versions": {"lstm_onnx": "0.1.0"}, "digest": "d", **changes}).to_metadata()


def by_hand(folder: Path, *nodes: Any, out: tuple[Any, ...], constants: tuple[Any, ...] = ()) -> Any:
    """A module's file of these nodes, from x (batch, time, 2) to y."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ("batch", "time", 2)), ("y", out))
    ]
    graph = helper.make_graph(list(nodes), "hand", ends[:1], ends[1:], list(constants))
    path = saved(folder, graph)
    model = onnx.load_model(path)
    helper.set_model_props(model, story_of())
    onnx.save_model(model, path)
    return check(path, provider="cpu")


def windowed(width: int) -> tuple[Any, tuple[Any, ...]]:
    """A mean over windows of that many steps, which shorter sequences are too short for."""
    turned = helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1])
    kernel = numpy_helper.from_array(np.ones((1, 2, width), np.float32), "kernel")
    return (turned, helper.make_node("Conv", ["t", "kernel"], ["y"], "conv")), (kernel,)


def test_a_kernel_longer_than_a_step_is_no_frozen_size(tmp_path: Path) -> None:
    nodes, constants = windowed(3)
    report = by_hand(tmp_path, *nodes, out=("batch", 1, "windows"), constants=constants)
    assert report, str(report)
    assert "it needs a time of 3 or more" in str(report)


def test_lengths_of_which_a_kernel_leaves_no_step(tmp_path: Path) -> None:
    """Their LSTM gets two steps less; sequences of one and two fail in the module, too."""
    shapes = {"x": ("batch", "time", 2), "lengths": ("batch",), "y": ("steps", 1, "batch", 3)}
    kinds = {"lengths": TensorProto.INT64}
    x, lengths, y = (helper.make_tensor_value_info(name, kinds.get(name, 1), shape) for name, shape in shapes.items())
    constants = {"two": np.array([2]), "end": np.array([2**40]), "W": np.ones((1, 3, 2), np.float32)}
    constants["R"] = np.ones((1, 3, 3), np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Slice", ["t", "two", "end"], ["s"]),
        helper.make_node("Sub", ["lengths", "two"], ["left"]),
        helper.make_node("Cast", ["left"], ["n"], to=TensorProto.INT32),
        helper.make_node("RNN", ["s", "W", "R", "", "n"], ["y"], hidden_size=3),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = onnx.load_model(saved(tmp_path, helper.make_graph(nodes, "hand", [x, lengths], [y], tensors)))
    specs = InputSpec("x", shapes["x"]), InputSpec("lengths", shapes["lengths"], "int64", low=1, high="time")
    helper.set_model_props(model, story_of(inputs=specs))
    onnx.save_model(model, tmp_path / "lengths.onnx")
    report = check(tmp_path / "lengths.onnx", provider="cpu")
    assert report, str(report)


@pytest.mark.parametrize("width", [6, 400])
def test_the_least_time_is_searched_for(width: int, tmp_path: Path) -> None:
    nodes, constants = windowed(width)
    report = by_hand(tmp_path, *nodes, out=("batch", 1, "windows"), constants=constants)
    assert report, str(report)
    assert f"; it needs a time of {width} or more" in str(report)
    assert f"batch 3, time {width + 6}" in str(report)


def test_a_kernel_longer_than_what_is_tried_fails(tmp_path: Path) -> None:
    nodes, constants = windowed(1025)
    report = by_hand(tmp_path, *nodes, out=("batch", 1, "windows"), constants=constants)
    assert "cannot run at batch 1, time 1" in failing(report, "runnable")
    assert "none of the sizes that were tried runs, from 1 to 1024" in str(report)
    assert "a size was baked in" not in str(report)


def test_a_size_that_is_the_only_one_fails(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([-1, 14], np.int64), "shape")
    report = by_hand(tmp_path, helper.make_node("Reshape", ["x", "shape"], ["y"]), out=("n", 14), constants=(shape,))
    assert "cannot run at batch 1, time 1" in failing(report, "runnable")


def of_unnamed_axes(folder: Path, *nodes: Any, inputs: dict[str, tuple[Any, ...]]) -> Any:
    """A file of another tool, from inputs whose axes have no name to y."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return check(saved(folder, helper.make_graph(list(nodes), "unnamed", ends, [y])), provider="cpu")


def test_more_axes_than_numpy_has(tmp_path: Path) -> None:
    report = of_unnamed_axes(tmp_path, helper.make_node("Neg", ["x"], ["y"]), inputs={"x": (None, *[1] * 70)})
    assert "cannot be loaded: no NumPy array fits the input 'x'" in failing(report, "runnable")


def test_axes_without_a_name_have_sizes_of_their_own(tmp_path: Path) -> None:
    nodes = helper.make_node("MatMul", ["x", "w"], ["y"])  # one name for all would hide that x[1] must be 4
    report = of_unnamed_axes(tmp_path, nodes, inputs={"x": (None, None), "w": (4, 3)})
    assert "cannot run at x[0] 1, x[1] 1" in failing(report, "runnable")
    report = of_unnamed_axes(tmp_path, nodes, inputs={"x": (None, 4), "w": (4, None)})
    assert "runs at x[0] 1, w[1] 1; x[0] 7, w[1] 5" in str(report)


@pytest.mark.parametrize(
    ("inputs", "ran"),
    [
        ({"x": (None, None, 4), "h": (2, None, 4)}, "runs at batch 1, x[1] 1; batch 3, x[1] 1"),
        ({"x": (2, None, 4), "h": (None, None, 4)}, "runs at axis 1 1"),
    ],
    ids=["the first is the batch", "by place"],
)
def test_axes_without_a_name_may_have_one_size(inputs: dict[str, tuple[Any, ...]], ran: str, tmp_path: Path) -> None:
    if inputs["x"][0] is None:
        turned = helper.make_node("Transpose", ["h"], ["t"], perm=[1, 0, 2])  # (2, batch, 4), as a state
        nodes = (turned, helper.make_node("Concat", ["x", "t"], ["y"], axis=1))
    else:
        nodes = (helper.make_node("Concat", ["x", "h"], ["y"], axis=0),)
    assert ran in str(of_unnamed_axes(tmp_path, *nodes, inputs=inputs))


def test_a_batch_of_one_and_one_step_must_run_together(tmp_path: Path) -> None:
    # Sizes of 3 in all would be cut away: (1, 1) alone has no third number.
    start, end = (numpy_helper.from_array(np.array([size], np.int64), name) for size, name in ((-1, "all"), (3, "n")))
    nodes = (
        helper.make_node("Reshape", ["x", "all"], ["flat"]),
        helper.make_node("Gather", ["flat", "n"], ["y"]),
    )
    report = by_hand(tmp_path, *nodes, out=(1,), constants=(start, end))
    assert failing(report, "runnable").startswith(": cannot run at batch 1, time 1: ")


def test_lengths_that_no_single_step_has_are_not_tried(tmp_path: Path) -> None:
    source = module_file("packed_gru_and_lstm")
    inputs = (InputSpec("x", ("batch", "time", 5)), InputSpec("lengths", ("batch",), "int64", 2, "time"))
    report = check(with_metadata(tmp_path / "m.onnx", source, inputs=inputs), provider="cpu")
    assert report
    assert "runs at batch 1, time 2; batch 3, time 2; batch 1, time 5; " in str(report)


def test_a_file_that_cannot_run_where_its_metadata_begins(tmp_path: Path) -> None:
    source = edited_module(tmp_path / "frozen.onnx", module_file("packed_gru_and_lstm"), frozen_shape(8, 2, 5))
    inputs = (InputSpec("x", ("batch", "time", 5)), InputSpec("lengths", ("batch",), "int64", 50, "time"))
    report = check(with_metadata(tmp_path / "m.onnx", source, inputs=inputs), provider="cpu")
    assert "cannot run at batch 1, time 50: " in failing(report, "runnable")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": {}}, "missing or cut off"),
        ({"digest": None}, "missing or cut off"),
        ({"inputs": ()}, "missing or cut off"),
    ],
)
def test_metadata_that_lacks_a_part(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = with_metadata(tmp_path / "m.onnx", module_file("policy"), **changes)
    assert said in failing(check(path, provider="cpu"), "metadata")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"states": {"state.0": "output.1.0"}, "origins": {"state.1": Origin("lstm", 0, 0, 1)}},
            "pairs it with no output",
        ),
        ({"initial": {"state.9": np.ones((1, 1, 10), np.float32)}}, "pairs it with no output"),
        ({"initial": {"state.0": np.ones((1, 1, 9), np.float32)}}, "starts from float32 (1, 1, 9), which does not fit"),
        ({"initial": {"state.0": np.ones((1, 1, 10), np.int32)}}, "starts from int32 (1, 1, 10)"),
        ({"initial": {"state.0": np.ones((1, 10), np.float32)}}, "starts from float32 (1, 10)"),
        ({"states": {"state.0": "output.1.0", "state.1": "output.1.0"}}, "output.1.0 already feeds state.0"),
        ({"states": {"state.0": "output.0"}}, "state.0 is (1, batch, 10) and output.0 is (batch, time, 3)"),
    ],
)
def test_states_of_a_module_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = with_metadata(tmp_path / "m.onnx", module_file("policy"), **changes)
    assert said in failing(check(path, provider="cpu"), "states-paired")


def test_a_start_that_fits_passes(tmp_path: Path) -> None:
    start = {"state.0": np.ones((1, 1, 10), np.float32)}
    assert check(with_metadata(tmp_path / "m.onnx", module_file("policy"), initial=start), provider="cpu")


@pytest.mark.parametrize("steps", [2, 160])
def test_a_file_that_takes_whole_groups_of_steps_alone(steps: int, tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([0, -1, 2 * steps]), "shape")
    report = by_hand(
        tmp_path,
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        out=("batch", "groups", 2 * steps),
        constants=(shape,),
    )
    assert report, str(report)
    assert f"time {7 * steps}" in str(report)
    assert f"; it needs a multiple of {steps} as time" in str(report)


def test_a_number_of_groups_that_was_baked_in_fails(tmp_path: Path) -> None:
    """It runs at multiples of 6, where its output has another batch than the file declares."""
    shape = numpy_helper.from_array(np.array([-1, 6, 2]), "shape")
    report = by_hand(
        tmp_path, helper.make_node("Reshape", ["x", "shape"], ["y"]), out=("batch", "groups", 2), constants=(shape,)
    )
    assert "cannot run at batch 1, time 1" in failing(report, "runnable")
