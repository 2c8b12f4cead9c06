"""Reads the graph that takes whole sequences: its inputs, the names of its axes, and the shapes of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from ...onnxgraph import ONNX_ERRORS, outer_values, shape_of
from ...onnxgraph.shape_inference import sizes_alone, with_shapes, without_weights
from ..size import Size
from .errors import RefusedError
from .facts import Shape

_NUMBERED = re.compile(r"unk__\d+|(axis_)?DynamicDimension[._]\d+")
"""Names of axes by tf2onnx and paddle2onnx, which differ in each input even for a common axis.  If the inputs with time
have only one other such axis, at the same place, it is taken to be their batch.
"""

Inferred = dict[str, tuple[np.dtype[Any] | None, Shape | None]]
"""The dtype and the shape of values, where they are known."""


class Source:
    """A model that takes whole sequences.

    Attributes:
        inputs: by name.
        axis_name: the name of the time axis.
        open_axes: for each name of a dynamic axis that is not time, an input and its axis.
        outputs: their names.
        inferred: the dtypes and shapes of values that shape inference knows.
        ranks: the number of axes of values, known for more of them.
    """

    def __init__(
        self,
        model: ModelProto,
        initializers: Mapping[str, np.ndarray],
        time: Mapping[str, int],
        states: Mapping[str, str],
    ) -> None:
        self.model = model
        self.initializers = initializers
        self.time = time
        self.states = states
        self.inputs = {value.name: value for value in model.graph.input if value.name not in initializers}
        self.outputs = frozenset(value.name for value in model.graph.output)
        self.axis_name = self._time_name()
        self._numbered: dict[int, str] = {}
        self.open_axes = self._open_axes()
        self.ranks: dict[str, int] = {}
        self.inferred = self._infer()

    def dims(self, name: str) -> tuple[int | str, ...]:
        """An input's dims; the time axis has the same name everywhere, and unnamed axes get names."""
        shape = shape_of(self.inputs[name].type)
        if shape is None:
            raise RefusedError(f"the shape of the input {name} is not known")
        dims = [dim if dim is not None and dim != 0 else f"{name}.{axis}" for axis, dim in enumerate(shape)]
        if name in self.time:
            dims[self.time[name]] = self.axis_name
            others = [axis for axis, dim in enumerate(dims) if isinstance(dim, str) and dim != self.axis_name]
            if len(others) == 1 and _NUMBERED.fullmatch(str(dims[others[0]])):
                dims[others[0]] = self._numbered.setdefault(others[0], str(dims[others[0]]))
        return tuple(dims)

    def sizes(self, name: str) -> Shape:
        """`dims` as sizes."""
        known = {self.axis_name, *self.open_axes}
        texts = {dim for dim in self.dims(name) if isinstance(dim, str) and dim not in known}
        products = {text: Size.of_product(text) for text in texts}
        return tuple(products.get(str(dim)) or Size.of(dim) for dim in self.dims(name))

    def _time_name(self) -> str:
        names = []
        for name, axis in self.time.items():
            shape = shape_of(self.inputs[name].type) or ()
            dim = shape[axis] if axis < len(shape) else None
            if isinstance(dim, int) and dim > 0:
                raise RefusedError(
                    f"the axis {axis} of {name} always has {dim} steps; export it with a dynamic time axis"
                )
            names.append(dim if isinstance(dim, str) and dim.isidentifier() else "time")
        for name, value in self.inputs.items():
            for axis, dim in enumerate(shape_of(value.type) or ()):
                if dim in names and self.time.get(name) != axis:
                    raise RefusedError(f"the axis {axis} of {name} is {dim}, too; time names one axis of each input")
        return names[0]

    def _open_axes(self) -> dict[str, tuple[str, int]]:
        found: dict[str, tuple[str, int]] = {}
        follow: list[tuple[str, str]] = []
        for name in [*self.time, *self.inputs]:
            for axis, dim in enumerate(self.dims(name)):
                if not isinstance(dim, str) or dim == self.axis_name:
                    continue
                if dim.isidentifier() or dim.startswith(name):
                    found.setdefault(dim, (name, axis))
                else:
                    follow.append((dim, name))
        for dim, name in follow:
            size = Size.of_product(dim) if name in self.states else None  # as of states with nine rows a sequence
            if size is None or not size.names <= found.keys():
                raise RefusedError(f"the axis {dim} of {name} follows from other axes")
        return found

    def batch(self) -> Size | None:
        """The size of the batch axis; None where it is not dynamic, or not known."""
        sizes = self.open_axes
        own = [name for name, (source, _) in sizes.items() if source in self.time]
        if "batch" in sizes:
            return Size.of("batch")
        states = {dim for name in self.states for dim in self.dims(name) if dim in sizes}
        for names in (states, [n for n in own if sizes[n][1] == 0], own):
            if len(names) == 1:
                return Size.of(next(iter(names)))
        return None

    def names(self) -> set[str]:
        """All names of values and nodes."""
        graph = self.model.graph
        return {
            *self.inputs,
            *self.initializers,
            *self.outputs,
            *(name for node in graph.node for name in node.output),
            *(node.name for node in graph.node),
        }

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each value, also in their bodies."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in {*node.input, *outer_values(node)}:
                found.setdefault(name, []).append(node)
        return found

    def _infer(self) -> Inferred:
        """dtypes and shapes by onnx's shape inference, and `ranks`; none where onnx refuses the model."""
        complete = without_weights(self.model)
        del complete.graph.initializer[:]
        complete.graph.initializer.extend(sizes_alone(self.initializers))
        try:
            shaped = with_shapes(complete, data_prop=False)
        except ONNX_ERRORS:
            return {}
        found: Inferred = {}
        known = set(self.open_axes)
        for value in (*shaped.graph.value_info, *shaped.graph.output):
            kind = value.type.tensor_type.elem_type
            dims = shape_of(value.type)
            if dims is not None:
                self.ranks[value.name] = len(dims)
            sizes = None
            if dims is not None and all(isinstance(dim, int) or dim in known for dim in dims):
                sizes = tuple(Size.of(dim) for dim in dims if dim is not None)
            found[value.name] = (helper.tensor_dtype_to_np_dtype(kind) if kind else None, sizes)
        return found


def module_of(node: NodeProto) -> str:
    """The path of the module that a node belongs to, from a name such as ``encoder.conv1/Conv``."""
    name = (str(node.name) or str(node.op_type)).strip("/")
    path = name.rpartition("/")[0]
    return path.replace("/", ".") if path else name.lower()
