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
from ..errors import ModelError, RunError
from ..onnxgraph import bodies_of
from ..onnxgraph.write import write_model
from ..runtime import load
from ..runtime.providers import open_session, ort_errors
from ..runtime.tensor_info import validated_feeds
from .emulation import Steps, emulate
from .layers import Linear
from .proof_inputs import proof_inputs
from .recurrent import Layer, direction_arrays, direction_outputs
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
        not_compared: layers that were not: in the body of a Loop, or in a branch of an If that was not taken.
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
    try:
        expected = model.run(feeds)
    except RunError as error:
        if inputs is not None:
            raise
        raise ModelError(
            f"{source}: does not run on the inputs that were drawn for its proof: {error.message}",
            hint="give some that it takes: --data, or inputs= in Python",
        ) from error
    complete = validated_feeds(model.inputs, model.completed(feeds))
    where = f"{source}: its int8 form"
    values = Probe(done, where).values(complete)
    worst, compared, skipped = 0.0, 0, []
    for layer in layer_errors(done, values):
        if layer.error is None:
            skipped.append(layer.name)
            continue
        compared += 1
        if not layer.ratio <= ROUNDINGS:
            raise ModelError(
                f"{source}: {layer.name} does not compute in int8 what it must: its error is {layer.ratio:.3g} "
                f"roundings, and {ROUNDINGS} are allowed; the file is not kept"
            )
        worst = max(worst, layer.ratio)
    return Proof(compared, worst, tuple(skipped), _differences(expected, values))


@dataclass(frozen=True)
class LayerError:
    """How far an int8 layer is from its emulation.

    Attributes:
        name: the node's.
        error: the largest, over all outputs; None where they could not be compared.
        rounding: the error of the emulation in float32, or float32's rounding of numbers of that size.
    """

    name: str
    error: float | None
    rounding: float = 0.0

    @property
    def ratio(self) -> float:
        """The error in roundings; at most `ROUNDINGS` is right."""
        if self.error is None or self.error == 0:
            return 0.0
        return self.error / self.rounding if self.rounding else np.inf


class Probe:
    """A copy of an int8 model with all values that are compared as outputs.

    Args:
        done: the model.
        where: what an error message starts with.
        provider: as in `load`.

    Raises:
        ModelError: ONNX Runtime cannot open it.
    """

    def __init__(self, done: Rewritten, where: str, provider: str = "cpu") -> None:
        self.where = where
        self.constants = done.initializers
        probe = ModelProto.FromString(done.model.SerializeToString())
        exposed = [*_exposed(done), *_expose_scans(probe.graph, done), *_expose_branches(probe.graph, done)]
        known = {value.name for value in (*probe.graph.input, *probe.graph.output)} | done.initializers.keys()
        # ONNX Runtime finds out their types.
        probe.graph.output.extend(
            ValueInfoProto(name=name) for name in dict.fromkeys(exposed) if name and name not in known
        )
        self.names = [value.name for value in probe.graph.output]
        with temporary_folder() as folder:
            write_model(probe, done.initializers, folder / "probe.onnx")
            self.session, _ = open_session(folder / "probe.onnx", provider, 1)

    def values(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every value that is compared, and the inputs and constants.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        try:
            found = self.session.run(self.names, dict(feeds))
        except ort_errors() as error:
            raise ModelError(f"{self.where} fails where the float32 file runs: {error}") from error
        return {**self.constants, **feeds, **dict(zip(self.names, found, strict=True))}


def _exposed(done: Rewritten) -> Iterator[str]:
    """The values of the model's own graph that go into int8 layers and come out of them."""
    for layer in (layer for layer in done.layers if not layer.caller):
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


def _expose_branches(graph: GraphProto, done: Rewritten) -> Iterator[str]:
    """Make what goes into layers in the branches of Ifs, and comes out of them, outputs of the Ifs.

    The other branch gives a scalar in their places, by which a layer that did not run is known.
    """
    for layer in done.layers:
        for value in _layer_values(layer) if layer.caller else ():
            kind = TensorProto.INT32 if value == layer.lengths else TensorProto.FLOAT
            if _expose_value(graph, layer, value, kind, _branch_name(layer, value)):
                yield _branch_name(layer, value)


def _expose_value(graph: GraphProto, layer: Layer, value: str, kind: int, name: str) -> bool:
    """Make a value of a layer a value `name` of a graph in which it is, or in a branch; whether it is."""
    own = direction_outputs(layer, 0)[0]
    if any(own in node.output for node in graph.node):
        graph.node.append(helper.make_node("Identity", [value], [name], name=name))
        return True
    for node in graph.node:
        branches = list(bodies_of(node)) if node.op_type == "If" else []
        names = [f"{name}/{index}" for index in range(len(branches))]
        found = [_expose_value(branch, layer, value, kind, one) for branch, one in zip(branches, names, strict=True)]
        if not any(found):
            continue
        for branch, one, there in zip(branches, names, found, strict=True):
            if not there:
                scalar = helper.make_tensor(one, kind, (), [0])
                branch.node.append(helper.make_node("Constant", [], [one], name=one, value=scalar))
            branch.output.append(helper.make_tensor_value_info(one, kind, None))
        node.output.append(name)
        return True
    return False


def _layer_values(layer: Layer) -> list[str]:
    """What goes into a layer and comes out of it, without repetitions."""
    values = [layer.x, layer.lengths, layer.h0, layer.c0]
    for index in range(len(layer.reverse)):
        values += direction_outputs(layer, index)
    return [value for value in dict.fromkeys(values) if value]


def _branch_name(layer: Layer, value: str) -> str:
    # The branches of an If may have values of the same name.
    return _probe_name(f"{layer.name}/{value}")


def _probe_name(value: str) -> str:
    return f"{value}/probe"


def layer_errors(done: Rewritten, values: Mapping[str, np.ndarray]) -> Iterator[LayerError]:
    """Each int8 layer of a model against its emulation, for the `values` of a `Probe`."""
    for layer in done.layers:
        found = _values_of(layer, values)
        if found is None:
            yield LayerError(layer.name, None)
            continue
        directions = [_layer_error(layer, index, found) for index in range(len(layer.reverse))]
        yield max(directions, key=lambda found: found.ratio)
    for linear in done.linear:
        names = linear_values(linear)
        if names[1] not in values:
            yield LayerError(linear.name, None)
            continue
        rows, actual = (values[name] for name in names)
        reference, low = linear.emulate(rows), linear.emulate(rows, np.float32)
        yield _error(linear.name, actual, reference, low, float(np.abs(reference).max(initial=0.0)))
    for embedding in done.embeddings:
        table = embedding.table.integers.T.astype(np.float32) * embedding.table.scales[:, None]
        same = np.array_equal(values[embedding.rows], table[values[embedding.indices]])
        yield LayerError(embedding.name, 0.0 if same else np.inf)


def _values_of(layer: Layer, values: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray] | None:
    """The values of a layer by their own names; None for one that did not run, or is too deep in bodies."""
    if not layer.caller:
        return values
    names = {value: _branch_name(layer, value) for value in _layer_values(layer)}
    if not all(name in values for name in names.values()) or not values[names[layer.x]].ndim:
        return None
    return {value: values[name] for value, name in names.items()}


def linear_values(linear: Linear) -> tuple[str, str]:
    """What a Linear layer multiplies and its product, by their names in a `Probe`."""
    if linear.caller:
        return _probe_name(linear.rows), _probe_name(linear.product)
    return linear.rows, linear.product


def _layer_error(layer: Layer, index: int, values: Mapping[str, np.ndarray]) -> LayerError:
    """The largest error of a direction's outputs."""
    output, hn, *cell = direction_arrays(layer, index, values)
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
    found = [_error(layer.name, actual, reference[name], low[name], max(1.0, scale)) for name, actual in pairs]
    return max(found, key=lambda one: one.ratio)


def _error(name: str, actual: np.ndarray, reference: np.ndarray, low: np.ndarray, scale: float) -> LayerError:
    """The largest error, and that of `low` or float32's rounding of a number of size `scale`."""
    if actual.shape != reference.shape:
        return LayerError(name, np.inf)
    error = float(np.abs(actual - reference).max(initial=0.0))
    if np.isnan(error):
        error = np.inf
    return LayerError(name, error, max(float(np.abs(low - reference).max(initial=0.0)), EPSILON * scale))


def _differences(expected: Mapping[str, Any], actual: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for name, array in expected.items():
        if array.dtype.kind == "f" and array.size:
            size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
            change = float(np.sqrt(np.mean(np.square(array.astype(np.float64) - actual[name]))))
            found[name] = change / size if size else change
    return found
