"""What ends the process or gives no step where it is outside of its range: rows of tables, and divisors."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from .chunks import ChunkRun, complete, difference, rewritten, session
from .graphs import Make, graph_of
from .random_graphs import Builder

ROWS = 9
TIME = {"x": 2}


def positions(b: Builder) -> str:
    """x and a learned embedding of each step's number."""
    x = b.add("Conv", "x", b.weight(4, 4, 3), kernel_shape=[3], pads=[1, 1])
    count = b.add("Squeeze", b.add("Shape", x, start=2, end=3))
    rows = b.add("Gather", b.weight(ROWS, 4), b.add("Range", b.const(0), count, b.const(1)))
    return b.add("Add", x, b.add("Transpose", rows, perm=[1, 0]))


def causal(b: Builder) -> str:
    count = b.add("Squeeze", b.add("Shape", "x", start=2, end=3))
    rows = b.add("Gather", b.weight(ROWS, 4), b.add("Range", b.const(0), count, b.const(1)))
    return b.add("Add", "x", b.add("Transpose", rows, perm=[1, 0]))


def sliced(b: Builder) -> str:
    """Rows from the second on, as ``table[:, 1 : x.shape[2] + 1]``."""
    end = b.add("Add", b.add("Shape", "x", start=2, end=3), b.const([1]))
    return b.add("Add", "x", b.add("Slice", b.weight(4, ROWS + 1), b.const([1]), end, b.const([1])))


def drawn(steps: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 4, steps)).astype(np.float32)}


@pytest.mark.parametrize("make", [positions, causal, sliced])
def test_a_sequence_ends_with_the_rows_of_its_table(make: Make) -> None:
    """ONNX Runtime makes a Slice of a Gather by a Range, and then a step without a row is no step."""
    model = graph_of(make)
    run = ChunkRun(rewritten(model, TIME), TIME)
    assert not difference(run, session(model, optimised=False), drawn(ROWS), 2, 0)
    for cut in ([1] * (ROWS + 1), [4, 4, 2], [ROWS - 1, 4]):
        with pytest.raises(Exception, match="out of data bounds"):
            run(drawn(sum(cut)), cut, 2)


def test_a_table_ends_too_where_a_look_up_of_no_row_gives_zeros() -> None:
    """As on CUDA."""
    run = ChunkRun(rewritten(graph_of(sliced), TIME), TIME)
    model = complete(run.done)
    [gather] = [node for node in model.graph.node if node.op_type == "Gather"]
    model.graph.initializer.append(numpy_helper.from_array(np.array([ROWS]), "last_row"))
    at = list(model.graph.node).index(gather)
    model.graph.node.insert(at, helper.make_node("Min", [gather.input[1], "last_row"], ["in_range"]))
    gather.input[1] = "in_range"
    run.session = session(model)
    assert not difference(run, session(graph_of(sliced), optimised=False), drawn(ROWS), 2, 0)
    for cut in ([1] * (ROWS + 1), [4, 4, 2], [ROWS - 1, 4], [ROWS, 3]):
        with pytest.raises(Exception, match="Split"):
            run(drawn(sum(cut)), cut, 2)


def integers(read: str, lag: bool) -> ModelProto:
    """Tokens of at least 6, read as rows of a table or as divisors, beside steps with look-ahead."""
    b = Builder(None)  # type: ignore[arg-type]
    kernel = b.const(np.random.default_rng(0).standard_normal((1, 1, 3)), np.float32)
    x = b.add("Conv", b.add("Unsqueeze", "x", b.const([1])), kernel, kernel_shape=[3], pads=[2 * lag, 2 - 2 * lag])
    token = b.add("Sub", "k", b.const(6)) if read == "Gather" else "k"
    if lag:
        x, token = b.cut(x, 1, 2**40, 2), b.cut(token, 1, 2**40, 1)
    if read == "Gather":
        value = b.add("Gather", b.const(np.arange(4), np.float32), token)
    else:
        value = b.add("Cast", b.add(read, b.const(100), token), to=TensorProto.FLOAT)
    output = b.add("Add", b.add("Squeeze", x, b.const([1])), value)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, ["batch", "time"]),
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(b.nodes, "g", inputs, outputs, b.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("read", ["Gather", "Div", "Mod"])
@pytest.mark.parametrize("lag", [False, True])
def test_a_call_without_steps_reads_no_row_and_divides_by_no_zero(read: str, lag: bool) -> None:
    """An integer division by zero ends the process."""
    model, rng = integers(read, lag), np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((2, 20)).astype(np.float32), "k": rng.integers(6, 10, (2, 20))}
    run = ChunkRun(rewritten(model, {"x": 1, "k": 1}), {"x": 1, "k": 1})
    assert not difference(run, session(model, optimised=False), feeds, 2, 0)
