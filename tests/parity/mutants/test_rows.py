"""A table with one wrong row: such that something is read of it, or the mutant is proven to change nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.parity.mutants.graph_edit import Edit
from lstm_onnx.parity.mutants.partial import after_layers_of_rows, in_one_row
from lstm_onnx.parity.results import Range

TABLE = np.array([[0.5, 2.0], [0.25, -1.0], [-0.5, 1.0]], np.float32)


def _model(weight: float, bias: float, dtype: type = np.float32) -> onnx.ModelProto:
    """``relu(table[x] W + b)``, summed over the rows: 0 for each row whose first feature times `weight` is below -b."""
    arrays = {"table": TABLE, "W": [[weight], [0.0]], "b": [bias], "axes": [0]}
    dtypes = {"axes": np.int64}
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"], name="g"),
        helper.make_node("MatMul", ["rows", "W"], ["maps"], name="m"),
        helper.make_node("Add", ["maps", "b"], ["sums"], name="a"),
        helper.make_node("Relu", ["sums"], ["units"], name="r"),
        helper.make_node("ReduceSum", ["units", "axes"], ["y"], name="s"),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.array(a, dtypes.get(name, dtype)), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _edit(model: onnx.ModelProto) -> Edit:
    return Edit(model, ranges=[Range("x", "integers", 0, 2, (0, 1, 2))])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_read_of_rows_is_behind_their_own_layers(dtype: type) -> None:
    edit = _edit(_model(2.0, 0.25, dtype))
    (found,) = after_layers_of_rows(edit, "rows", TABLE.astype(dtype))
    np.testing.assert_array_equal(found, np.array([[1.25], [0.75], [0.0]], dtype))


def test_rows_that_another_layer_reads_are_read_as_they_are() -> None:
    model = _model(2.0, 0.25)
    del model.graph.node[1:4]
    model.graph.node[1].input[0] = "rows"
    (found,) = after_layers_of_rows(_edit(model), "rows", TABLE)
    np.testing.assert_array_equal(found, TABLE)


@pytest.mark.parametrize(
    ("weight", "bias", "row", "sign"),
    [
        (1.0, 0.0, 2, 1),  # -0.5 + 1 is above 0, and -0.5 - 1 is not
        (-1.0, 0.0, 2, -1),
        (1.0, -1.25, 0, 1),  # of the last row nothing shows either way
        (1.0, -9.0, None, 0),
    ],
)
def test_a_wrong_row_shows(weight: float, bias: float, row: int | None, sign: int) -> None:
    model = _model(weight, bias)
    outcome = in_one_row(_edit(model), None)  # type: ignore[arg-type]
    assert outcome.applied == (row is not None)
    assert bool(outcome.reason) == (row is None)
    if row is not None:
        change = numpy_helper.to_array(model.graph.initializer[-1])
        wanted = np.zeros((3, 2))
        wanted[row, 0] = sign
        np.testing.assert_array_equal(change, wanted)
