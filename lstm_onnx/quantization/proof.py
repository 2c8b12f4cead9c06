"""The proof of an int8 file: each of its layers against what its arithmetic gives in float64.

A copy of the file gives, beside its outputs, what goes into each int8 layer and comes out of it.  For these inputs
the layer is emulated: integers exactly, all else in float64.  Its error must be within `ROUNDINGS` times that of the
same emulation in float32.  Errors of the integers are far larger: they are steps of a quantisation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from ..atomic_io import temporary_folder
from ..errors import ModelError
from ..onnxgraph import bodies_of
from ..onnxgraph.write import write_model
from ..runtime import load
from ..runtime.providers import open_session, ort_errors
from ..runtime.tensor_info import validated_feeds
from .arithmetic import product
from .emulation import Steps, emulate
from .proof_inputs import proof_inputs
from .recurrent import Layer, direction_outputs
from .rewrite import Rewritten

ROUNDINGS = 32
"""Right layers have at most 7.4, wrong ones 69 and more; parity with PyTorch uses the same number."""
EPSILON = 2.0**-23


@dataclass(frozen=True)
class Proof:
    """How an int8 file was proven.

    Attributes:
        compared: how many of its layers were compared.
        ratio: the largest error, in units of that of a float32 emulation; at most `ROUNDINGS`.
        not_compared: layers that were not, since they are in the body of an If or a Loop.
        differences: for each output of floating-point numbers, its root mean square difference from the float32
            file's, relative to that output's own root mean square.
    """

    compared: int
    ratio: float
    not_compared: tuple[str, ...] = ()
    differences: dict[str, float] = field(default_factory=dict)


def prove(
    done: Rewritten, source: str | os.PathLike[str], *, inputs: Mapping[str, Any] | None = None, seed: int = 0
) -> Proof:
    """Compare the layers of an int8 model with their emulation, and its outputs with those of its float32 file.

    Args:
        done: the model.
        source: the float32 file.
        inputs: numpy arrays by input name; by default they are drawn.
        seed: of the inputs and states that are drawn.

    Raises:
        ModelError: a layer does not compute what it must.
        InputError: inputs cannot be drawn, or `inputs` do not fit.
    """
    model = load(source, provider="cpu", threads=1, trial=None)
    feeds = (
        proof_inputs(model, done, seed)
        if inputs is None
        else {name: np.asarray(array) for name, array in inputs.items()}
    )
    expected = model.run(feeds)
    complete = validated_feeds(model.inputs, model.completed(feeds))
    values = {**complete, **_run_probe(done, complete, source)}
    values |= {name: array for name, array in done.initializers.items() if name not in values}
    worst, compared, skipped = 0.0, 0, []
    for name, ratio in _ratios(done, values):
        if ratio is None:
            skipped.append(name)
            continue
        compared += 1
        if not ratio <= ROUNDINGS:
            raise ModelError(
                f"{source}: {name} does not compute in int8 what it must: its error is {ratio:.3g} roundings, and "
                f"{ROUNDINGS} are allowed; the file is not kept"
            )
        worst = max(worst, float(ratio))
    return Proof(compared, worst, tuple(skipped), _differences(expected, values))


def _run_probe(
    done: Rewritten, feeds: Mapping[str, np.ndarray], source: str | os.PathLike[str]
) -> dict[str, np.ndarray]:
    """All values that are compared, from a copy of the model that has them as outputs."""
    probe = ModelProto.FromString(done.model.SerializeToString())
    exposed = [*_exposed(done), *_expose_scans(probe.graph, done)]
    known = {value.name for value in (*probe.graph.input, *probe.graph.output)} | done.initializers.keys()
    # ONNX Runtime finds out their types.
    probe.graph.output.extend(
        ValueInfoProto(name=name) for name in dict.fromkeys(exposed) if name and name not in known
    )
    names = [value.name for value in probe.graph.output]
    with temporary_folder() as folder:
        write_model(probe, done.initializers, folder / "probe.onnx")
        session, _ = open_session(folder / "probe.onnx", "cpu", 1)
    try:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except ort_errors() as error:
        raise ModelError(f"{source}: its int8 form fails where the float32 file runs: {error}") from error


def _exposed(done: Rewritten) -> Iterator[str]:
    """The values of the model's own graph that go into int8 layers and come out of them."""
    for layer in done.layers:
        yield from (layer.x, layer.lengths, layer.h0, layer.c0)
        for index in range(len(layer.reverse)):
            yield from direction_outputs(layer, index)
    for linear in done.linear:
        if not linear.caller:
            yield from (linear.rows, linear.product)
    for embedding in done.embeddings:
        yield from (embedding.indices, embedding.rows)


def _expose_scans(graph: GraphProto, done: Rewritten) -> Iterator[str]:
    """Make what goes into products in the bodies of Scans, and comes out of them, outputs of the Scans."""
    scans = {node.name: node for node in graph.node if node.op_type == "Scan"}
    for linear in done.linear:
        node = scans.get(linear.caller)
        if node is None:
            continue
        body = next(bodies_of(node))
        for value in (linear.rows, linear.product):
            out = _probe_name(value)
            body.node.append(helper.make_node("Identity", [value], [f"{out}/body"], name=f"{out}/Identity"))
            body.output.append(helper.make_tensor_value_info(f"{out}/body", TensorProto.FLOAT, None))
            node.output.append(out)
            for attribute in node.attribute:
                if attribute.name in ("scan_output_directions", "scan_output_axes"):
                    attribute.ints.append(0)
            yield out


def _probe_name(value: str) -> str:
    return f"{value}/probe"


def _ratios(done: Rewritten, values: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float | None]]:
    """The name of each int8 node and its error in roundings; None where it could not be compared."""
    for layer in done.layers:
        yield layer.name, max(_layer_ratio(layer, index, values) for index in range(len(layer.reverse)))
    for linear in done.linear:
        names = (linear.rows, linear.product)
        if linear.caller:
            names = (_probe_name(linear.rows), _probe_name(linear.product))
        if names[1] not in values:
            yield linear.name, None
            continue
        rows, actual = (values[name] for name in names)
        reference = product(rows, linear.weight)
        low = product(rows, linear.weight, np.float32)
        yield linear.name, _ratio(actual, reference, low, float(np.abs(reference).max(initial=0.0)))
    for embedding in done.embeddings:
        table = embedding.table.integers.T.astype(np.float32) * embedding.table.scales[:, None]
        same = np.array_equal(values[embedding.rows], table[values[embedding.indices]])
        yield embedding.name, 0.0 if same else np.inf


def _layer_ratio(layer: Layer, index: int, values: Mapping[str, np.ndarray]) -> float:
    """The largest error of a direction's outputs, in roundings."""
    output, hn, *cell = (values[name] for name in direction_outputs(layer, index))
    zeros = np.zeros(hn.shape, np.float32)
    steps = Steps(
        x=values[layer.x],
        h0=values[layer.h0][index] if layer.h0 else zeros,
        c0=None if not layer.cell else values[layer.c0][index] if layer.c0 else zeros,
        lengths=values[layer.lengths] if layer.lengths else np.full(len(hn), len(output)),
        output=output,
    )
    reference, low = emulate(layer, index, steps), emulate(layer, index, steps, np.float32)
    # A sum of gates is as large as its terms; of an LSTM, c is carried on.
    scale = float(np.abs(reference["cn"]).max(initial=0.0)) if layer.cell else 1.0
    scale = max(scale, float(np.abs(reference["c"]).max(initial=0.0))) if layer.cell else scale
    pairs = [("output", output), ("hn", hn), *([("cn", cell[0])] if layer.cell else [])]
    return max(_ratio(actual, reference[name], low[name], max(1.0, scale)) for name, actual in pairs)


def _ratio(actual: np.ndarray, reference: np.ndarray, low: np.ndarray, scale: float) -> float:
    """The largest error in units of that of `low`, or of float32's rounding of a number of size `scale`."""
    if actual.shape != reference.shape:
        return np.inf
    error = float(np.abs(actual - reference).max(initial=0.0))
    unit = max(float(np.abs(low - reference).max(initial=0.0)), EPSILON * scale)
    return error / unit if unit else (0.0 if error == 0 else np.inf)


def _differences(expected: Mapping[str, Any], actual: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for name, array in expected.items():
        if array.dtype.kind == "f" and array.size:
            size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
            change = float(np.sqrt(np.mean(np.square(array.astype(np.float64) - actual[name]))))
            found[name] = change / size if size else change
    return found
