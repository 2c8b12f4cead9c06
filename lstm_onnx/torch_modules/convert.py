"""Converts a file's graph to the steps of a program, and the submodules and parameters that they use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from onnx import NodeProto
from torch import Tensor, nn

from ..onnxgraph import bodies_of, shape_of, value_of
from ..onnxgraph.recurrent import input_of, is_onnx_operator
from .elementwise import SIZES
from .graph import FileGraph, attribute_values, torch_array, with_folded_weights
from .layers import layer_of, scope_of
from .operator_layers import operator_layer, recurrent_module
from .products import PRODUCTS
from .program import IfStep, LoopStep, OperatorStep, Program, RecurrentStep, ScanStep, Scope, Step, values_read
from .stacks import Stack, cell_of, stacks_of
from .values import Scalar

_AXES_SECOND = "CumSum Expand OneHot Reshape Split Squeeze Tile TopK Trilu Unsqueeze"
_INDEX_INPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys((*_AXES_SECOND.split(), *(name for name in PRODUCTS if name.startswith("Reduce"))), (1,)),
    "ConstantOfShape": (0,),
    "Loop": (0,),
    "Pad": (1, 3),
    "Slice": (1, 2, 3, 4),
}
"""By operator: the inputs that are shapes, axes or sizes."""
_SIZE_OPERATORS = (*SIZES, "Concat", "Gather", "Equal", "Where", "Range", "Reshape")
"""Operators that compute sizes, with integers of at most one axis."""
_GUARD = "at_least_one_step"
"""The name that an export gives to the nodes that fail if a sequence has no steps."""
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


@dataclass
class Modules:
    """The submodules and parameters of a converted module.

    Attributes:
        root: the module to which they are added.
        buffers: the names of stored values that are not parameters.
        places: by name, stored values with the attribute of each: bodies may use the same name for different values.
        stacks: the recurrent modules by path, so that a second call uses the same module.
        shared: by name of a stored weight, its parameter, which is shared by the modules that read it.
    """

    root: nn.Module
    buffers: frozenset[str] = frozenset()
    places: dict[str, list[tuple[np.ndarray, str]]] = field(default_factory=dict)
    stacks: dict[str, nn.Module] = field(default_factory=dict)
    shared: dict[str, nn.Parameter] = field(default_factory=dict)

    def add(self, path: str, module: nn.Module) -> str:
        """Add a module, or find its equal; returns its path, which differs from `path` if that is taken."""
        path = _as_path(path)
        number = 1
        wanted = path
        while (other := self._at(wanted)) is not None:
            if _same(other, module):
                return wanted
            number += 1
            wanted = f"{path}_{number}"
        owner, _, name = wanted.rpartition(".")
        parent = self.scope(owner)
        if parent is None or hasattr(nn.Module, name):
            return self.add(f"{path.replace('.', '_')}_", module)
        parent.add_module(name, module)
        return wanted

    def share(self, path: str, weights: Mapping[str, str]) -> None:
        """Share a module's parameters with other modules that read the same weights of the file.

        Weights whose elements are all equal are equal by chance, such as those of two norms before training.

        Args:
            path: the module.
            weights: the stored weight of each of its parameters.
        """
        module = self.root.get_submodule(path)
        for own, name in weights.items():
            parameter = module.get_parameter(own)
            varies = parameter.numel() > 1 and bool((parameter != parameter.reshape(-1)[0]).any())
            if varies and (known := self._known(name, parameter)) is not parameter:
                setattr(module, own, known)

    def _known(self, name: str, parameter: nn.Parameter) -> nn.Parameter:
        """The parameter that already has this name, otherwise this one; some tools give two weights one name."""
        known = self.shared.setdefault(name, parameter)
        return known if known.dtype == parameter.dtype and torch.equal(known, parameter) else parameter

    def value(self, name: str, array: np.ndarray, *, named: bool) -> str:
        """Add a stored value as a parameter, or as a buffer if it is not floating-point; returns its dotted name.

        Args:
            name: in the file.
            array: the value.
            named: whether the name is that of a parameter or buffer, rather than made up for a constant.
        """
        places = self.places.setdefault(name, [])
        for other, place in places:
            if other is array or (other.dtype == array.dtype and np.array_equal(other, array)):
                return place
        path = _as_path(name)
        owner, _, last = path.rpartition(".")
        parent = self.scope(owner)
        if parent is None or hasattr(parent, last):
            path, parent = self._free(path), self.root
            last = path
        tensor = torch_array(array)
        if tensor.is_floating_point() and named and name not in self.buffers:
            parent.register_parameter(last, self._known(name, nn.Parameter(tensor)))
        else:
            parent.register_buffer(last, tensor, persistent=named)
        places.append((array, path))
        return path

    def scope(self, path: str) -> nn.Module | None:
        """The `Scope` at a path, created if there is nothing; None if another kind of module is there."""
        module = self.root
        for name in path.split(".") if path else ():
            inner = module._modules.get(name)
            if inner is None:
                if hasattr(module, name) or not isinstance(module, Scope):
                    return None
                inner = Scope()
                module.add_module(name, inner)
            module = inner
        return module

    def scope_path(self, path: str) -> str:
        """The longest prefix of a path that is a `Scope`, or can be one."""
        while path and not isinstance(self.scope(path), Scope):
            path = path.rpartition(".")[0]
        return path

    def sort(self, names: Sequence[str]) -> None:
        """Sort the submodules by the order of these names of parameters; those without parameters come last."""
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            owner = name
            while owner := owner.rpartition(".")[0]:
                first.setdefault(owner, index)
        for path, module in self.root.named_modules():
            order = sorted(module._modules, key=lambda name, at=path: first.get(f"{at}.{name}".strip("."), len(names)))  # type: ignore[misc]
            inner = {name: module._modules[name] for name in order}
            module._modules.clear()
            module._modules.update(inner)

    def _at(self, path: str) -> nn.Module | None:
        module: nn.Module | None = self.root
        for name in path.split("."):
            module = module._modules.get(name) if module is not None else None
        return module

    def _free(self, path: str) -> str:
        name = path.replace(".", "_")
        while hasattr(self.root, name):
            name += "_"
        return name


def buffer_names(names: Sequence[str]) -> frozenset[str]:
    """The names of buffers among those of parameters and buffers in an exported file.

    Parameters come first there, each module's own before those of its submodules, which are contiguous; so the buffers
    begin with the first name that breaks this order.
    """
    owners: list[str] = []
    for index, name in enumerate(names):
        owner, _, own = name.rpartition(".")
        new = not owners or owner != owners[-1]
        again = new and any(other == owner or f"{other}.".startswith(f"{owner}." if owner else "") for other in owners)
        if again or own in ("running_mean", "running_var"):
            return frozenset(names[index:])
        owners += [owner] if new else []
    return frozenset()


def _as_path(name: str) -> str:
    if _PATH.fullmatch(name):
        return name
    return re.sub(r"\W+", "_", name).strip("_") or "value"


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are equal: of the same class and sizes, with the same numbers."""
    modes = [getattr(module, "mode", None) for module in (one, other)]  # extra_repr leaves nn.RNN's nonlinearity out
    if type(one) is not type(other) or one.extra_repr() != other.extra_repr() or modes[0] != modes[1]:
        return False
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(
        mine[name].dtype == others[name].dtype and torch.equal(mine[name], others[name]) for name in mine
    )


class Converter:
    """Makes the programs of a graph and of its bodies."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.more: dict[str, np.ndarray] = {}

    def program(self, graph: FileGraph) -> Program:
        """The program of a graph; its submodules and parameters are added.

        Raises:
            ModelError: PyTorch has no module for a recurrent operator.
        """
        graph = with_folded_weights(graph)
        taken: dict[int, Step | None] = {}
        for stack in stacks_of(graph) if graph.own else ():
            step, nodes = self._stack_step(graph, stack)
            taken.update((id(node), None) for node in nodes)
            # At the place of the stack's first node, where everything that it reads exists.
            first = next(node for node in graph.nodes if any(node is item for item in stack.nodes))
            taken[id(first)] = step
        steps: list[Step] = []
        for node in graph.nodes:
            if id(node) in taken:
                found = taken[id(node)]
                steps += [found] if found is not None else []
                continue
            steps.append(self._step(graph, node, taken))
        return self._with_values(graph, steps)

    def _stack_step(self, graph: FileGraph, stack: Stack) -> tuple[Step, list[NodeProto]]:
        """The call of a recurrent module, and the nodes that it replaces."""
        cell = cell_of(graph, stack)
        if cell is not None:
            path = self.modules.add(stack.path, self.modules.stacks.setdefault(stack.prefix, cell.module))
            return replace(cell.step, path=path), [*stack.nodes, *cell.nodes]
        module = self.modules.stacks.get(stack.prefix)
        if module is None:
            module = self.modules.stacks[stack.prefix] = recurrent_module(stack.spec, stack.state, stack.folds)
        path = self.modules.add(stack.path or stack.spec.op_type.lower(), module)
        names = stack.outputs
        lengths, nodes = stack.lengths or "", list(stack.nodes)
        cast = graph.producers.get(lengths)
        if cast is not None and lengths.endswith("/int32") and cast.op_type == "Cast":
            nodes += [cast] if lengths not in graph.outputs else []
            lengths = input_of(cast, 0)
        outputs = (names.output or "", names.hn or "", names.cn or "")
        x = stack.x
        guard = [node for node in graph.nodes if str(node.name).startswith(f"{stack.call_prefix}{_GUARD}")]
        if guard and x == f"{stack.call_prefix}{_GUARD}":  # PyTorch's modules refuse empty sequences themselves
            x = input_of(guard[-1], 0)
            nodes += guard
        return RecurrentStep(path, x, stack.h0 or "", stack.c0 or "", lengths, outputs), nodes

    def _step(self, graph: FileGraph, node: NodeProto, taken: dict[int, Step | None]) -> Step:
        if is_onnx_operator(node):
            spec, state, call = operator_layer(graph, node)
            path = self.modules.add(_operator_path(node), recurrent_module(spec, state))
            return replace(call, path=path)
        if node.op_type in ("Scan", "Loop", "If"):
            return self._body_step(graph, node)
        layer = layer_of(graph, node)
        if layer is not None:
            taken.update((id(item), None) for item in layer.nodes[1:])
            if layer.module is None or isinstance(layer.step, OperatorStep):
                assert isinstance(layer.step, OperatorStep)  # noqa: S101 - a layer without a module calls an operator
                self.more.update(layer.stored)
                return replace(layer.step, scope=self.modules.scope_path(layer.step.scope))
            path = self.modules.add(layer.path, layer.module)
            self.modules.share(path, layer.weights)
            return replace(layer.step, path=path)
        attributes: dict[str, Any] = {**attribute_values(node), "opset": graph.opset}
        if node.op_type == "Split":
            attributes["outputs"] = len(node.output)
        scope = self.modules.scope_path(scope_of(graph, node))
        return OperatorStep(str(node.op_type), tuple(node.input), tuple(node.output), attributes, scope)

    def _body_step(self, graph: FileGraph, node: NodeProto) -> Step:
        outputs = tuple(node.output)
        if node.op_type == "If":
            bodies = {item.name: graph.body(item.g) for item in node.attribute}
            then, otherwise = (self.program(bodies[name]) for name in ("then_branch", "else_branch"))
            return IfStep(input_of(node, 0), then, otherwise, outputs)
        inner = next(bodies_of(node))
        body = self.program(graph.body(inner))
        if node.op_type == "Loop":
            stacked = inner.output[len(node.input) - 1 :]
            types = tuple((value_of(item).dtype, shape_of(item.type)) for item in stacked)
            return LoopStep(body, input_of(node, 0), input_of(node, 1), tuple(node.input[2:]), outputs, types)
        values = attribute_values(node)
        scanned = values["num_scan_inputs"]
        states = len(node.input) - scanned
        stacked = len(outputs) - states
        return ScanStep(
            body,
            tuple(node.input),
            outputs,
            states,
            tuple(values.get("scan_input_axes", [0] * scanned)),
            tuple(map(bool, values.get("scan_input_directions", [0] * scanned))),
            tuple(values.get("scan_output_axes", [0] * stacked)),
            tuple(map(bool, values.get("scan_output_directions", [0] * stacked))),
        )

    def _with_values(self, graph: FileGraph, steps: list[Step]) -> Program:
        """The program with the stored values that its steps read."""
        attributes: dict[str, str] = {}
        numbers: dict[str, Any] = {}
        for name in dict.fromkeys([*(name for step in steps for name in values_read(step)), *graph.outputs]):
            array = graph.arrays.get(name, self.more.get(name))
            if array is None or name in graph.producers:
                continue
            named = name not in graph.anonymous
            if _is_number(graph, name, array):
                number = array.tolist()
                wide = isinstance(number, float) and array.dtype != np.float32
                numbers[name] = Scalar(number, getattr(torch, str(array.dtype))) if wide else number
            else:
                attributes[name] = self.modules.value(name, array, named=named)
        return Program(graph.inputs, tuple(steps), graph.outputs, attributes, numbers)


def _is_number(graph: FileGraph, name: str, array: np.ndarray) -> bool:
    """Whether a stored value is a shape, axes, a size or a number in a formula, rather than a parameter or a table."""
    if array.ndim == 0 and array.dtype.kind in "fb":
        return name in graph.anonymous or not graph.own
    if array.dtype != np.int64 or array.ndim > 1 or name in graph.outputs:
        return False
    if graph.own and name not in graph.anonymous:
        return False
    return all(_reads_size(node, name, scalar=array.ndim == 0) for node in graph.users.get(name, []))


def _reads_size(node: NodeProto, name: str, *, scalar: bool) -> bool:
    if scalar or node.op_type in _SIZE_OPERATORS:
        return True
    places = _INDEX_INPUTS.get(str(node.op_type), ())
    return all(index in places for index, value in enumerate(node.input) if value == name)


def _operator_path(node: NodeProto) -> str:
    """``/encoder/rnn/LSTM`` of torch's exporter is ``encoder.rnn``; a name without a path is kept."""
    parts = [part for part in re.split(r"[/]+", str(node.name)) if part]
    if len(parts) > 1 and parts[-1].split("_")[0] == node.op_type:
        number = parts[-1].partition("_")[2]
        return ".".join(_as_path(part) for part in parts[:-1]) + (f"_{number}" if number else "")
    return _as_path("_".join(parts)) if parts else str(node.op_type).lower()


def buffer(module: nn.Module, name: str, value: Tensor) -> str:
    """Add a non-persistent buffer; returns its name."""
    while hasattr(module, name):
        name += "_"
    module.register_buffer(name, value, persistent=False)
    return name
