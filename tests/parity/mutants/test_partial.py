"""Mutants that are wrong for large numbers only."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from lstm_onnx.parity.mutants.graph_edit import Edit
from lstm_onnx.parity.mutants.partial import for_large_numbers
from lstm_onnx.parity.results import Range


@pytest.mark.parametrize(
    ("outputs", "wrong"), [(("ids", "scores"), "scores"), (("scores", "ids"), "scores"), (("ids",), "ids")]
)
def test_numbers_are_wrong_rather_than_an_argmax_which_no_case_of_large_values_compares(
    outputs: tuple[str, ...], wrong: str
) -> None:
    kinds = {"ids": TensorProto.INT64, "scores": TensorProto.FLOAT}
    graph = helper.make_graph(
        [
            helper.make_node("ArgMax", ["x"], ["ids"], name="a"),
            helper.make_node("Softmax", ["x"], ["scores"], name="s"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info(name, kinds[name], None) for name in outputs],
    )
    edit = Edit(helper.make_model(graph), ranges=[Range("x", "numbers", -2000, 2000)])
    assert for_large_numbers(edit, None).applied  # type: ignore[arg-type]
    assert [name for node in edit.graph.node if node.op_type == "Add" for name in node.output if name in outputs] == [
        wrong
    ]
