"""Values of a graph that are no weights of layers: integers, indices, tables, and those of bodies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import lstm_onnx

PLACES = np.array([[0, -1, 2], [1, 1, 0]], np.int64)
X = np.float32([0.5, -1.5, 3, 2])


def parsed_file(path: Path, graph: str) -> Path:
    """A file of a graph in onnx's own text form, which has no dots in names."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {graph}')
    path.write_bytes(model.SerializeToString().replace(b"_weight", b".weight"))
    return path


TABLES = "int64[3] table = {2, 0, 1}, float[3, 2] e_weight = {0, 1, 2, 3, 4, 5}"
STEPS = np.array(3)
STEP = """b (int64 i, bool c, float[2] s) => (bool c1, float[2] s1)
    {c1 = Identity(c) e = Gather(e_weight, i) s1 = Add(s, e)}"""


@pytest.mark.parametrize(
    ("graph", "given"),
    [
        ("(int64[n, m] i) => (int64[n, m] y) <int64[3] table = {5, 3, 4}> {y = Gather(table, i)}", [PLACES]),
        ("(int64 i) => (int64 y) <int64[3] table = {5, 3, 4}> {y = Gather(table, i)}", [np.array(2)]),
        ("(int64[n, m] x) => (int64 y) <int32 one = {1}> {s = Shape(x) y = Gather(s, one)}", [PLACES]),
        ("(float[n] x) => (int64[n] y) <int64 two = {2}> {y = Pow(two, x)}", [X]),
        (f"(int64[n] i) => (float[n, 2] y) <{TABLES}> {{j = Gather(table, i) y = Gather(e_weight, j)}}", [PLACES[0]]),
        (
            f"(int64 n, float[2] x) => (float[2] y) <{TABLES}> {{y = Loop <body = {STEP}> (n, , x)}}",
            [STEPS, X[:2]],
        ),
    ],
)
def test_indices_and_tables_of_integers(tmp_path: Path, graph: str, given: list[np.ndarray]):
    path = parsed_file(tmp_path / "m.onnx", graph)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    (wanted,) = session.run(None, dict(zip(names, given, strict=True)))
    found = lstm_onnx.to_torch(path)(*map(torch.from_numpy, given))
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found.detach().numpy(), wanted)


@pytest.mark.parametrize("kind", ["initializer", "constant"])
def test_values_of_one_name_in_two_branches(tmp_path: Path, kind: str):
    form = "<float[2] w = {VALUES}> {" if kind == "initializer" else "{w = Constant <value = float[2] {VALUES}> ()"
    then, other = (f"b () => (float[2] o) {form} o = Mul(x, w)}}".replace("VALUES", item) for item in ("1, 2", "3, 4"))
    graph = f"(bool c, float[2] x) => (float[2] y) {{y = If <then_branch = {then}, else_branch = {other}> (c)}}"
    module = lstm_onnx.to_torch(parsed_file(tmp_path / "m.onnx", graph))
    x = torch.ones(2)
    assert [module(torch.tensor(chosen), x).tolist() for chosen in (True, False)] == [[1, 2], [3, 4]]


def test_a_stored_value_of_a_dtype_that_numpy_lacks_is_named(tmp_path: Path):
    graph = "(float[2] x) => (float[2] y) <bfloat16[2] w = {1, 2}> {v = Cast <to = 1> (w) y = Mul(x, v)}"
    with pytest.raises(lstm_onnx.ModelError, match="the stored value w is bfloat16, which is not converted"):
        lstm_onnx.to_torch(parsed_file(tmp_path / "m.onnx", graph))
