"""A file of tokens is not taken for one that streams because the first two tokens are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx


def token_file(path: Path, direction: str, tokens: int) -> Path:
    """An embedding of some tokens, of which 0 and 1 are alike, and a GRU; its state is an input and an output."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((tokens, 3)).astype(np.float32)
    table[1] = table[0]
    stored = {
        "table": table,
        "W": rng.standard_normal((1, 12, 3)).astype(np.float32),
        "R": rng.standard_normal((1, 12, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["embedded"]),
        helper.make_node("GRU", ["embedded", "W", "R", "", "", "h0"], ["", "hn"], hidden_size=4, direction=direction),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [
            helper.make_tensor_value_info("x", TensorProto.INT64, ("time", "batch")),
            helper.make_tensor_value_info("h0", TensorProto.FLOAT, (1, "batch", 4)),
        ],
        [helper.make_tensor_value_info("hn", TensorProto.FLOAT, (1, "batch", 4))],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("tokens", [8, 5])
def test_the_order_of_tokens_counts(tmp_path: Path, tokens: int):
    reverse = lstm_onnx.load(token_file(tmp_path / "a.onnx", "reverse", tokens), provider="cpu", states={"h0": "hn"})
    with pytest.raises(lstm_onnx.InputError, match="a different hn than all at once"):
        reverse.stream(batch=1)
    forward = lstm_onnx.load(token_file(tmp_path / "b.onnx", "forward", tokens), provider="cpu", states={"h0": "hn"})
    assert forward.stream(batch=1).run({"x": np.array([[3]])})["hn"].shape == (1, 1, 4)
