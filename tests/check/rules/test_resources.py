"""Files that ask for too much are told before anything of them is opened, and what is merely large is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.check import check

from ..models import PLAIN, export, failing

Nodes = Iterable[onnx.NodeProto]
GIB = 2**30
FLOATS = 2**33
"""So many numbers that no machine of ours has room for them."""


def value(name: str, shape: Any = ("n",), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(folder: Path, nodes: Nodes, *, inputs: Any = (), output: str = "y", rank: int = 1, **constants: Any) -> Path:
    stored = [numpy_helper.from_array(np.array(array), name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), [value(output, [None] * rank)], stored)
    return write(folder, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def write(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def doubling(source: str, times: int) -> Nodes:
    """Each node twice as large as the one before: a billion laughs."""
    for index in range(times):
        before = source if index == 0 else f"v{index - 1}"
        yield helper.make_node("Concat", [before, before], [f"v{index}"], axis=0)


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attributes)


BOMBS: dict[str, Callable[[Path], Path]] = {
    "ConstantOfShape": lambda folder: save(folder, [node("ConstantOfShape", "n")], n=[FLOATS]),
    "ConstantOfShape of computed sizes": lambda folder: save(
        folder, [node("Mul", "n", "n", output="nn"), node("ConstantOfShape", "nn")], n=[2**17]
    ),
    "Expand": lambda folder: save(folder, [node("Expand", "x", "n")], inputs=[value("x", (1,))], n=[FLOATS]),
    "Tile": lambda folder: save(folder, [node("Tile", "x", "n")], inputs=[value("x")], n=[FLOATS]),
    "Pad": lambda folder: save(folder, [node("Pad", "x", "n")], inputs=[value("x")], n=[0, FLOATS]),
    "Range": lambda folder: save(
        folder, [node("Range", "a", "b", "c", output="r"), node("Cast", "r", to=1)], a=0, b=FLOATS, c=1
    ),
    "RandomNormal": lambda folder: save(folder, [node("RandomNormal", shape=[FLOATS])]),
    "OneHot": lambda folder: save(
        folder,
        [node("OneHot", "x", "n", "v")],
        inputs=[value("x", ("n",), 7)],
        rank=2,
        n=FLOATS,
        v=np.eye(2, dtype=np.float32)[0],
    ),
    "doubled constants": lambda folder: save(folder, doubling("k", 36), output="v35", k=np.ones(2, np.float32)),
    "doubled input": lambda folder: save(folder, doubling("x", 36), inputs=[value("x")], output="v35"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_not_opened(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = BOMBS[name](tmp_path)
    assert path.stat().st_size < 2500
    monkeypatch.setattr("lstm_onnx.check.execution.open_session", lambda *_, **__: pytest.fail("opened"))
    monkeypatch.setattr("onnx.checker.check_model", lambda *_, **__: pytest.fail("checked"))
    report = check(path, provider="cpu")
    said = failing(report, "resource-bomb")
    assert "MiB for any input" in said
    assert len(report.failures) == 1
    assert {finding.rule for finding in report.findings if finding.skipped} >= {"valid-onnx", "provider", "runnable"}
    assert report.placements == ()


def test_a_bomb_of_few_bytes_takes_no_memory(tmp_path: Path):
    """In a process whose memory is limited to less than it asks for; the limit is shown to be one."""
    code = (
        "import resource, sys\n"
        "from lstm_onnx.check import check\n"
        "check(sys.argv[2], provider='cpu')\n"  # everything is imported, and threads are started
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "report = check(sys.argv[1], provider='cpu')\n"
        "print([finding.rule for finding in report.failures])\n"
        "try:\n"
        "    bytearray(2**29)\n"
        "except MemoryError:\n"
        "    print('limited')\n"
    )
    small = export(tmp_path, PLAIN).rename(tmp_path / "small.onnx")
    path = write(tmp_path, minimal(onnx.load_model(BOMBS["ConstantOfShape"](tmp_path))))
    assert path.stat().st_size <= 68
    done = subprocess.run(
        [sys.executable, "-c", code, path, small], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "['resource-bomb']\nlimited\n", done.stderr


def minimal(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nothing in it but what makes it go off."""
    for field in ("producer_name", "ir_version"):
        model.ClearField(field)
    model.graph.ClearField("name")
    return model


def nested(depth: int, calls: int = 2) -> onnx.ModelProto:
    """Functions that call the one before twice each."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "F0", ["x"], ["y"], [node("Neg", "x")], opsets)]
    for index in range(1, depth):
        steps = [
            node(f"F{index - 1}", "x" if i == 0 else f"v{i}", output=f"v{i + 1}", domain="f") for i in range(calls)
        ]
        steps[-1].output[0] = "y"
        functions.append(helper.make_function("f", f"F{index}", ["x"], ["y"], steps, opsets))
    graph = helper.make_graph([node(f"F{depth - 1}", "x", domain="f")], "g", [value("x")], [value("y")])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8)


def test_functions_that_multiply_are_not_inlined(tmp_path: Path):
    path = write(tmp_path, nested(40))
    assert path.stat().st_size < 4000
    said = failing(check(path, provider="cpu"), "resource-bomb")
    assert said == ": its functions call each other: 549755813888 nodes when they are inlined"
    assert check(write(tmp_path, nested(6)), provider="cpu")


def test_a_function_that_calls_itself_is_refused_and_ends(tmp_path: Path):
    model = nested(2)
    model.functions[0].node[0].CopyFrom(node("F1", "x", domain="f"))
    report = check(write(tmp_path, model), provider="cpu")
    assert "ycle" in failing(report, "valid-onnx")


def looped(folder: Path, *, count: int | None, goes_on: str = "Identity") -> Path:
    """A Loop of `count` rounds, without end where that is None, whose body hands on its condition through a node."""
    condition = node(goes_on, "c", output="c2")
    body = helper.make_graph(
        [condition, node("Identity", "v", output="v2")],
        "body",
        [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("v")],
        [value("c2", (), TensorProto.BOOL), value("v2")],
    )
    names = ["" if count is None else "n", "on", "x"]
    constants = {"on": True, **({} if count is None else {"n": count})}
    return save(folder, [helper.make_node("Loop", names, ["y"], "loop", body=body)], inputs=[value("x")], **constants)


@pytest.mark.parametrize("count", [2**62, 10**7, None])
def test_a_loop_without_end_is_not_opened(count: int | None, tmp_path: Path):
    said = failing(check(looped(tmp_path, count=count), provider="cpu"), "resource-bomb")
    assert "loop: Loop goes on for" in said
    assert "its condition never changes" in said


def test_loops_that_end_are_none(tmp_path: Path):
    assert check(looped(tmp_path, count=1000), provider="cpu")
    # Its condition is another one after the first round.
    assert check(looped(tmp_path, count=2**62, goes_on="Not"), provider="cpu")


def test_loops_within_loops_multiply(tmp_path: Path):
    inner = onnx.load_model(looped(tmp_path, count=2000)).graph
    body = helper.make_graph(
        [node("Identity", "c", output="c2"), *inner.node],
        "outer",
        [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("x")],
        [value("c2", (), TensorProto.BOOL), value("y")],
        [tensor for tensor in inner.initializer if tensor.name == "on"],
    )
    loop = helper.make_node("Loop", ["n", "", "x0"], ["y0"], "outer", body=body)
    path = save(tmp_path, [loop], inputs=[value("x0")], output="y0", n=2000)
    assert "loop: Loop goes on for 4000000 iterations" in failing(check(path, provider="cpu"), "resource-bomb")


def test_tensors_that_say_more_than_they_hold(tmp_path: Path):
    path = save(tmp_path, [node("Identity", "w")], w=np.ones(2, np.float32))
    model = onnx.load_model(path)
    model.graph.initializer[0].dims[0] = FLOATS
    said = failing(check(write(tmp_path, model), provider="cpu"), "resource-bomb")
    assert said == "w: is declared as 32768 MiB but stored in 21 bytes"
    # The same with numbers that should be in a file, which is there and is short.
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(8))
    assert "makes 32768 MiB" in failing(check(write(tmp_path, model), provider="cpu"), "resource-bomb")


def test_large_weights_may_be_turned_and_cast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is made of stored numbers may be as large as they are, and a few times more."""
    monkeypatch.setattr("lstm_onnx.check.rules.resources._LARGEST_VALUE", 1000)
    weights = np.random.default_rng(0).normal(0, 1, (16, 32)).astype(np.float16)
    nodes = [node("Cast", "w", output="wide", to=TensorProto.FLOAT), node("Transpose", "wide", output="t"),
             node("MatMul", "x", "t")]  # fmt: skip
    path = save(tmp_path, nodes, inputs=[value("x", ("n", 32))], rank=2, w=weights)
    assert check(path, provider="cpu")
    tiled = [*nodes[:2], node("Tile", "t", "n", output="u"), node("MatMul", "x", "u")]
    path = save(tmp_path, tiled, inputs=[value("x", ("n", 32))], rank=2, w=weights, n=[1, 100])
    assert "Tile makes" in failing(check(path, provider="cpu"), "resource-bomb")


def test_large_inputs_are_the_callers_own_business(tmp_path: Path):
    """A size that an input declares is none that the file asks for, and is not tried either."""
    path = save(tmp_path, [node("Relu", "x")], inputs=[value("x", (2**27,))])
    report = check(path, provider="cpu", ignore=["valid-onnx"])
    assert "resource-bomb" in report.silent
    (runnable,) = [finding for finding in report.findings if finding.rule == "runnable"]
    assert runnable.skipped, str(report)


def test_a_bomb_that_is_meant_can_be_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lstm_onnx.check.rules.resources._LARGEST_VALUE", 1000)
    path = save(tmp_path, [node("Tile", "x", "n")], inputs=[value("x")], n=[1000])
    assert not check(path, provider="cpu")
    report = check(path, provider="cpu", ignore=["LO106"])
    assert report, str(report)
    assert report.ignored == ("resource-bomb",)


def test_a_graph_whose_shapes_cannot_be_inferred_is_no_bomb_and_fails(tmp_path: Path):
    path = save(tmp_path, [node("Reshape", "x", "n")], inputs=[value("x", (2, 3))], n=np.ones((2, 2), np.int64))
    report = check(path, provider="cpu")
    assert not report
    assert "resource-bomb" in report.silent
