"""Stacks of every kind, written into small models and run beside PyTorch."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx import LSTMSpec
from lstm_onnx.exporter.emitter import StackOutputs, recurrent_stack
from lstm_onnx.exporter.targets import LayerForm
from lstm_onnx.exporter.weights import layer_weights
from lstm_onnx.onnxgraph.builder import Nodes
from lstm_onnx.spec import MAX_OPSET, MIN_OPSET, GRUSpec, RecurrentSpec, RNNSpec

pytestmark = pytest.mark.sweep(9)

ALL = StackOutputs("output", "hn", "cn")
SHAPES = ((1, 1), (3, 7), (8, 4))
"""(batch, time) that each file is run at."""
TOLERANCE = 2e-6
"""Largest absolute error against PyTorch; the numbers are about 1, and float32 rounds those by 6e-8."""


def _module(spec: RecurrentSpec, seed: int = 0) -> Any:
    import torch

    arguments = {name: value for name, value in dataclasses.asdict(spec).items() if name != "dtype"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(torch.nn, spec.op_type)(**arguments).eval()


def _stack(nodes: Nodes, spec: RecurrentSpec, module: Any, *values: str | None, **keywords: Any) -> StackOutputs:
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    layers = [layer_weights(spec, state, layer) for layer in range(spec.num_layers)]
    return recurrent_stack(nodes, spec, layers, *values, **keywords)


def _finished(
    nodes: Nodes, spec: RecurrentSpec, inputs: Sequence[str], outputs: Sequence[str | None], opset: int = 18
) -> onnx.ModelProto:
    """The checked model; every input and output is known by how its name begins."""
    shapes = {
        "x": spec.sequence_shape("batch", "time", spec.input_size),
        "h0": spec.h_shape("batch"),
        "c0": (spec.num_layers * spec.num_directions, "batch", spec.hidden_size),
        "lengths": ("batch",),
        "output": spec.sequence_shape("batch", "time", spec.output_size),
    }
    shapes.update(hn=shapes["h0"], cn=shapes["c0"])

    def value(name: str) -> onnx.ValueInfoProto:
        kind = name.rstrip("_")
        return helper.make_tensor_value_info(
            name, TensorProto.INT32 if kind == "lengths" else TensorProto.FLOAT, shapes[kind]
        )

    opsets = [helper.make_opsetid("", opset)]
    graph = helper.make_graph(
        nodes.nodes,
        "test",
        [value(name) for name in inputs],
        [value(name) for name in outputs if name],
        [numpy_helper.from_array(array, name) for name, array in nodes.initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    onnx.checker.check_model(model, full_check=True)
    return model


def _model(
    spec: RecurrentSpec,
    module: Any,
    *,
    states: bool = True,
    lengths: bool = False,
    names: StackOutputs = ALL,
    opset: int = 18,
    **keywords: Any,
) -> onnx.ModelProto:
    nodes = Nodes()
    h0, c0 = ("h0" if states else None), ("c0" if states and spec.has_cell else None)
    names = _stack(nodes, spec, module, "x", h0, c0, names=names, lengths="lengths" if lengths else None, **keywords)
    inputs = [name for name in ("x", h0, c0, "lengths" if lengths else None) if name]
    return _finished(nodes, spec, inputs, (names.output, names.hn, names.cn), opset)


def _feeds(spec: RecurrentSpec, batch: int, time: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    rows = spec.num_layers * spec.num_directions
    return {
        "x": rng.standard_normal(spec.sequence_shape(batch, time, spec.input_size)).astype(np.float32),
        "h0": rng.uniform(-1, 1, spec.h_shape(batch)).astype(np.float32),
        "c0": rng.uniform(-1, 1, (rows, batch, spec.hidden_size)).astype(np.float32),
        "lengths": rng.integers(1, time + 1, batch).astype(np.int32),
    }


def _torch(
    spec: RecurrentSpec, module: Any, feeds: Mapping[str, np.ndarray], given: Sequence[str]
) -> dict[str, np.ndarray]:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    x, h0, c0 = (torch.from_numpy(feeds[name]) for name in ("x", "h0", "c0"))
    time = x.shape[1 if spec.batch_first else 0]
    lengths = torch.from_numpy(feeds["lengths"]).long()
    states = None if "h0" not in given else (h0, c0) if spec.has_cell else h0
    with torch.no_grad(), warnings.catch_warnings():
        # torch remarks that projections do not go through oneDNN; here only the numbers matter.
        warnings.filterwarnings("ignore", message="LSTM with projections")
        if "lengths" in given:
            x = pack_padded_sequence(x, lengths, batch_first=spec.batch_first, enforce_sorted=False)
        output, final = module(x, states)
        if "lengths" in given:
            output, _ = pad_packed_sequence(output, batch_first=spec.batch_first, total_length=time)
    hn, cn = final if spec.has_cell else (final, None)
    return {name: value.numpy() for name, value in (("output", output), ("hn", hn), ("cn", cn)) if value is not None}


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], session: onnxruntime.InferenceSession | None = None
) -> dict[str, np.ndarray]:
    session = session or _session(model)
    given = {value.name: feeds[value.name] for value in model.graph.input}
    return dict(zip((value.name for value in model.graph.output), session.run(None, given), strict=True))


def _assert_parity(spec: RecurrentSpec, module: Any, model: onnx.ModelProto) -> None:
    given = [value.name for value in model.graph.input]
    session = _session(model)
    for batch, time in SHAPES:
        feeds = _feeds(spec, batch, time)
        expected = _torch(spec, module, feeds, given)
        for name, array in _run(model, feeds, session).items():
            np.testing.assert_allclose(
                array, expected[name.rstrip("_")], rtol=0, atol=TOLERANCE, err_msg=f"{name}, {batch=}, {time=}"
            )


KINDS = {
    "gru": GRUSpec(4, 3),
    "tanh": RNNSpec(4, 3),
    "relu": RNNSpec(4, 3, nonlinearity="relu"),
    "lstm": LSTMSpec(4, 3),
    "projected": LSTMSpec(4, 3, proj_size=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_in_parity_with_torch(kind: str) -> None:
    opsets = itertools.cycle(range(MIN_OPSET, MAX_OPSET + 1))
    for layers, bidirectional, batch_first, states, lengths in itertools.product((1, 2, 3), *[(False, True)] * 4):
        spec = dataclasses.replace(KINDS[kind], num_layers=layers, bidirectional=bidirectional, batch_first=batch_first)
        module = _module(spec)
        model = _model(spec, module, states=states, lengths=lengths, opset=next(opsets))
        operators = [node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN", "Scan")]
        assert [node.op_type for node in operators] == [spec.op_type if kind != "projected" else "Scan"] * layers
        _assert_parity(spec, module, model)


@pytest.mark.parametrize("kind", KINDS)
def test_scans_of_every_kind_are_in_parity_with_torch(kind: str) -> None:
    forms = itertools.cycle((LayerForm(scan=True), LayerForm(scan=True, exact_sigmoid=True, int64_steps=True)))
    for layers, bidirectional, states, lengths in itertools.product((1, 2), *[(False, True)] * 3):
        spec = dataclasses.replace(KINDS[kind], num_layers=layers, bidirectional=bidirectional, batch_first=states)
        for bias, form in zip((True, False), forms, strict=False):
            with_bias = dataclasses.replace(spec, bias=bias)
            module = _module(with_bias)
            model = _model(with_bias, module, states=states, lengths=lengths, form=form)
            operators = {node.op_type for node in model.graph.node}
            assert operators & {"LSTM", "GRU", "RNN", "Scan"} == {"Scan"}
            _assert_parity(with_bias, module, model)


def test_an_exact_sigmoid_is_right_where_exp_overflows() -> None:
    spec = LSTMSpec(4, 3)
    module = _module(spec)
    model = _model(spec, module, form=LayerForm(scan=True, exact_sigmoid=True))
    feeds = _feeds(spec, 3, 7)
    feeds["x"] *= np.float32(1e4)
    feeds["c0"] *= np.float32(1e3)
    expected = _torch(spec, module, feeds, ("x", "h0", "c0"))
    for name, array in _run(model, feeds).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=TOLERANCE)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_fold_is_in_parity_with_torch(states: bool, bidirectional: bool) -> None:
    spec = LSTMSpec(4, 5, num_layers=2, proj_size=2, bidirectional=bidirectional)
    module = _module(spec)
    model = _model(spec, module, states=states, lengths=True, form=LayerForm(fold=True))
    unprojected = [node.name for node in model.graph.node if "unproject" in node.name]
    assert unprojected == (["l0/unproject_h0", "l1/unproject_h0"] if states else [])
    assert any("pinv" in tensor.name for tensor in model.graph.initializer) is states
    _assert_parity(spec, module, model)


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_bias_is_the_modules(spec: RecurrentSpec, bias: bool) -> None:
    spec = dataclasses.replace(spec, bias=bias)
    module = _module(spec)
    model = _model(spec, module)
    assert any(tensor.name == "l0/B" for tensor in model.graph.initializer) is bias
    _assert_parity(spec, module, model)


@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_every_opset_runs(spec: RecurrentSpec, opset: int) -> None:
    module = _module(spec)
    _assert_parity(spec, module, _model(spec, module, states=False, lengths=True, opset=opset))


def test_a_gru_is_written_as_torch_computes_it() -> None:
    spec = GRUSpec(4, 3)
    model = _model(spec, _module(spec))
    gru, squeeze = model.graph.node
    assert (gru.name, list(gru.input)) == ("l0/GRU", ["x", "l0/W", "l0/R", "l0/B", "", "h0"])
    assert list(gru.output) == ["l0/GRU/Y", "hn"]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in gru.attribute}
    assert attributes == {"hidden_size": 3, "direction": b"forward", "linear_before_reset": 1}
    assert list(squeeze.output) == ["output"]


def test_an_rnn_names_its_nonlinearity_for_each_direction() -> None:
    spec = RNNSpec(4, 3, bidirectional=True, nonlinearity="relu")
    rnn = _model(spec, _module(spec), states=False).graph.node[0]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in rnn.attribute}
    assert attributes == {"hidden_size": 3, "direction": b"bidirectional", "activations": [b"Relu", b"Relu"]}
    assert list(rnn.input) == ["x", "l0/W", "l0/R", "l0/B"]


def test_a_cell_that_is_not_there_is_not_written() -> None:
    spec = GRUSpec(4, 3, num_layers=2)
    names = _stack(Nodes(), spec, _module(spec), "x", "h0", "c0", names=ALL)
    assert names == StackOutputs("output", "hn", None)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_zeros_are_made_once_for_a_scan(bidirectional: bool) -> None:
    spec = LSTMSpec(4, 3, num_layers=3, proj_size=2, bidirectional=bidirectional)
    model = _model(spec, _module(spec), states=False)
    made = [node.name for node in model.graph.node if node.name.startswith("zeros/")]
    assert made == ["zeros/Shape", "zeros/batch", "zeros/shape", "zeros/h0", "zeros/c0"]


WANTED = [
    StackOutputs("output", None, None),
    StackOutputs(None, "hn", None),
    StackOutputs(None, None, "cn"),
    StackOutputs(None, "hn", "cn"),
    StackOutputs("output", None, "cn"),
]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_nobody_wants_is_not_written(wanted: StackOutputs, layers: int, bidirectional: bool) -> None:
    plain = LSTMSpec(4, 3, num_layers=layers, bidirectional=bidirectional, batch_first=True)
    projected = dataclasses.replace(plain, proj_size=2)
    for spec, fold in ((plain, False), (projected, False), (projected, True)):
        module = _module(spec)
        model = _model(spec, module, names=wanted, form=LayerForm(fold=fold), lengths=True)
        names = {node.name for node in model.graph.node}
        assert (f"l{layers - 1}/output" in names) is (wanted.output is not None)
        assert not {f"{name}/Concat" for name in ("hn", "cn") if getattr(wanted, name) is None} & names
        assert ("l0/project_hn" in names) is (fold and wanted.hn is not None)
        _assert_parity(spec, module, model)


def test_unwanted_outputs_have_no_names() -> None:
    spec = LSTMSpec(4, 3, num_layers=2)
    module = _module(spec)

    def outputs(*wanted: str | None) -> list[list[str]]:
        nodes = _model(spec, module, names=StackOutputs(*wanted)).graph.node
        return [list(node.output) for node in nodes if node.op_type == "LSTM"]

    assert outputs("output", None, None) == [["l0/LSTM/Y"], ["l1/LSTM/Y"]]
    assert outputs(None, "hn", None) == [["l0/LSTM/Y", "l0/LSTM/Y_h"], ["", "l1/LSTM/Y_h"]]
    assert outputs(None, None, "cn") == [["l0/LSTM/Y", "", "l0/LSTM/Y_c"], ["", "", "l1/LSTM/Y_c"]]


LOWERINGS = [
    (LSTMSpec(4, 4, num_layers=2, bidirectional=True), False),
    (LSTMSpec(4, 5, num_layers=2, proj_size=2, batch_first=True), False),
    (LSTMSpec(4, 5, proj_size=2, bidirectional=True), True),
    (GRUSpec(4, 3, num_layers=2), False),
    (RNNSpec(4, 3), False),
]


@pytest.mark.parametrize(("spec", "fold"), LOWERINGS)
@pytest.mark.parametrize("finite", [True, False])
def test_one_module_called_twice_has_its_weights_once(spec: RecurrentSpec, fold: bool, finite: bool) -> None:
    module = _module(spec)
    if not finite:
        module.weight_ih_l0.data[0, 0] = float("nan")
    nodes = Nodes()
    first = _stack(nodes, spec, module, "x", None, None, names=ALL, form=LayerForm(fold=fold), prefix="lstm.")
    count = len(nodes.initializers)
    again = _stack(
        nodes,
        spec,
        module,
        "x_",
        "h0",
        "c0" if spec.has_cell else None,
        names=StackOutputs("output_", "hn_", "cn_"),
        form=LayerForm(fold=fold),
        prefix="lstm.2.",
        weights_prefix="lstm.",
    )
    # Only what reads the states is new: where to split them, and how to unproject them.
    assert all("ints/" in name or "pinv" in name for name in list(nodes.initializers)[count:])
    inputs = ["x", "x_", "h0", *(["c0"] if spec.has_cell else [])]
    model = _finished(nodes, spec, inputs, [*dataclasses.astuple(first), *dataclasses.astuple(again)])
    if not finite:
        return
    feeds = _feeds(spec, 3, 7)
    other = np.flip(feeds["x"]).copy()
    results = _run(model, {**feeds, "x_": other})
    for suffix, x, given in (("", feeds["x"], ["x"]), ("_", other, ["x", "h0"])):
        for name, expected in _torch(spec, module, {**feeds, "x": x}, given).items():
            np.testing.assert_allclose(results[name + suffix], expected, rtol=0, atol=TOLERANCE)


def test_other_weights_under_the_same_names_are_refused() -> None:
    spec = GRUSpec(4, 3)
    nodes = Nodes()
    _stack(nodes, spec, _module(spec), "x", None, None, names=ALL)
    with pytest.raises(ValueError, match="the initializer l0/W already exists, with different values"):
        _stack(nodes, spec, _module(spec, seed=1), "x", None, None, names=ALL, prefix="2.", weights_prefix="")


@pytest.mark.parametrize(("spec", "fold"), LOWERINGS)
@pytest.mark.parametrize("states", [False, True])
def test_every_name_begins_with_the_prefix(spec: RecurrentSpec, fold: bool, states: bool) -> None:
    spec = dataclasses.replace(spec, batch_first=True)
    keywords: dict[str, Any] = {"form": LayerForm(fold=fold), "states": states, "lengths": True}
    model = _model(spec, _module(spec), prefix="encoder.", batch_axis="pairs", **keywords)
    given = {"x", "h0", "c0", "lengths", "output", "hn", "cn", ""}
    graphs = [model.graph]
    graphs += [a.g for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    for graph in graphs:
        names = {name for node in graph.node for name in (node.name, *node.output)}
        names |= {value.name for value in (*graph.input, *graph.output)}
        assert all(name.startswith("encoder.") for name in names - given)
    constants = {tensor.name for tensor in model.graph.initializer}
    shared = ("ints/", "int/", "int32/", "zero/")
    assert all(name.startswith("encoder.l") or name.startswith(shared) for name in constants)
    axes = {
        dim.dim_param
        for graph in graphs[1:]
        for value in (*graph.input, *graph.output)
        for dim in value.type.tensor_type.shape.dim
    }
    assert axes == ({"", "pairs"} if graphs[1:] else set())
