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
        (
            """(float[t, n, 1] x) => (float[t, 1, n, 1] y) <float[1, 1, 1] w = {2}> {a = RNN <hidden_size = 1> (x, w, w)
            b = RNN <hidden_size = 1, activations = ["Relu"]> (x, w, w) d = Sub(a, b) y = Round(d)}""",
            [X.reshape(2, 2, 1)],
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
    with pytest.raises(lstm_onnx.ModelError, match="the stored value w is bfloat16, which cannot be converted"):
        lstm_onnx.to_torch(parsed_file(tmp_path / "m.onnx", graph))


@pytest.mark.parametrize(("state", "own"), [("s", "<float[1] w = {3}>"), ("w", "")])
def test_a_body_reads_its_own_value_where_one_around_it_has_its_name(tmp_path: Path, state: str, own: str):
    inner = f"inner (int64 i, bool c, float[2] {state}) => (bool d, float[2] t) {own}"
    loop = f"y = Loop <body = {inner} {{d = Identity(c) t = Mul({state}, w)}}> (n, , v)"
    path = parsed_file(
        tmp_path / "m.onnx", f"(int64 n, float[2] x) => (float[2] y) <float[1] w = {{5}}> {{v = Mul(x, w) {loop}}}"
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"n": np.array(2), "x": X[:2]})
    assert lstm_onnx.to_torch(path)(torch.tensor(2), torch.from_numpy(X[:2])).tolist() == wanted.tolist()


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3), (1, 3, 5)])
def test_other_sizes_than_those_of_the_file_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    graph = "(float[1, n, 4] x) => (float[n, 4] y) <int64[2] s = {-1, 4}> {y = Reshape(x, s)}"
    module = lstm_onnx.to_torch(parsed_file(tmp_path / "m.onnx", graph))
    assert module(torch.zeros(1, 3, 4)).shape == (3, 4)
    with pytest.raises(lstm_onnx.InputError, match=r"x has the shape .*, and the file takes \(1, n, 4\)"):
        module(torch.zeros(shape))


def test_lengths_of_fewer_sequences_than_there_are_are_refused(tmp_path: Path):
    stored = "float[1, 2, 2] w = {1, 2, 3, 4}, int32[1] lengths = {3}"
    graph = f"(float[t, n, 2] x) => (float[t, 1, n, 2] y) <{stored}> {{y = RNN <hidden_size = 2> (x, w, w, , lengths)}}"
    module = lstm_onnx.to_torch(parsed_file(tmp_path / "m.onnx", graph))
    assert module(torch.zeros(4, 1, 2)).shape == (4, 1, 1, 2)
    with pytest.raises(lstm_onnx.InputError, match=r"lengths have the shape \(1,\), but there are 2 sequences"):
        module(torch.zeros(4, 2, 2))


def test_sequences_of_a_scan_have_one_length(tmp_path: Path):
    body = "step (float[2] s, float[2] a, float[2] b) => (float[2] t) {p = Mul(a, b) t = Add(s, p)}"
    graph = f"""(float[2] h, float[n, 2] x, float[m, 2] z) => (float[2] y)
        {{y = Scan <num_scan_inputs = 2, body = {body}> (h, x, z)}}"""
    module = lstm_onnx.to_torch(parsed_file(tmp_path / "m.onnx", graph))
    assert module(torch.zeros(2), torch.ones(3, 2), torch.ones(3, 2)).tolist() == [3, 3]
    with pytest.raises(lstm_onnx.InputError, match="x, z must have the same number of steps"):
        module(torch.zeros(2), torch.ones(3, 2), torch.ones(4, 2))
