"""Builds a file's module: a bare nn.LSTM, a single recurrent module, or a module that runs the file's graph."""

from __future__ import annotations

import inspect
import keyword
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..exporter.call.metadata import call_from_json
from ..exporter.call.structure import KEYWORD, STAR, Argument, ConstantNode, ContainerNode, Node, TensorNode, constants
from ..exporter.kept_digest import keep_digest, keep_folds
from ..exporter.lstm_with_lengths import LSTMWithLengths
from ..exporter.module_metadata import state_digest
from ..exporter.sources.torch_lstm import module_of
from ..onnxgraph import shape_of
from ..onnxgraph.write import digest
from .convert import Converter, Modules, buffer, buffer_names
from .elementwise import torch_dtype
from .graph import ConvertedFile, read_file, torch_array
from .module import Interface, Outputs, StateInput, new_module
from .operator_layers import recurrent_module
from .program import CellStep, IfStep, LoopStep, Program, RecurrentStep, ScanStep, values_read
from .stacks import stacks_of

_STATES = "states"


def module_of_file(path: str | os.PathLike[str]) -> nn.Module:
    """See `to_torch`."""
    file = read_file(path)
    try:
        return _only_recurrent(file) or _graph_module(file)
    except ModelError as error:
        if error.path is not None:
            raise
        raise ModelError(error.message, path=path, hint=error.hint) from None


def _only_recurrent(file: ConvertedFile) -> nn.Module | None:
    """The module of a file that is a single nn.LSTM, nn.GRU or nn.RNN and nothing more."""
    graph = file.graph
    if not graph.own:
        return None
    stacks = list(stacks_of(graph))
    if len(stacks) != 1 or stacks[0].path or len(stacks[0].nodes) != len(graph.nodes):
        return None
    stack = stacks[0]
    if file.metadata.spec is not None:  # a bare nn.LSTM
        module = module_of(file.metadata.spec, stack.state)
        keep_digest(module, digest(stack.state), file.metadata.digest)
        keep_folds(module, stack.state, stack.folds)
        return LSTMWithLengths(module).eval() if stack.lengths else module
    returned = [stack.outputs.output, stack.outputs.hn, stack.outputs.cn]
    names = ["output.0", "output.1"] if stack.outputs.cn is None else ["output.0", "output.1.0", "output.1.1"]
    arguments = [name for name in (stack.x, stack.h0, stack.c0) if name is not None]
    called = [argument[0] for argument in file.metadata.call or []]
    if [name for name in returned if name] != names or stack.lengths or list(graph.outputs) != names:
        return None
    if list(graph.inputs) != arguments or called != ["input", "hx"][: len(called)] or not called:
        return None
    only = recurrent_module(stack.spec, stack.state, stack.folds)
    keep_digest(only, state_digest(only.state_dict()), file.metadata.digest)
    return only


def _graph_module(file: ConvertedFile) -> nn.Module:
    name = file.name if file.name.isidentifier() and not keyword.iskeyword(file.name) else "ONNXModule"
    placeholder = Program((), (), ())
    interface = Interface(inspect.Signature(), {}, {}, {}, "", Outputs())
    module = new_module(name, placeholder, interface)
    named = [tensor.name for tensor in file.model.graph.initializer if "/" not in tensor.name]
    modules = Modules(module, buffer_names(named) if file.graph.own else frozenset())
    program = Converter(modules).program(file.graph)
    modules.sort(named)
    interface = _interface(file, program, module)
    made = new_module(name, program, interface)
    for part in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
        made.__dict__[part] = module.__dict__[part]
    keep_digest(made, state_digest(made.state_dict()), file.metadata.digest)
    return made.eval()


def _interface(file: ConvertedFile, program: Program, module: nn.Module) -> Interface:
    arguments = _arguments(file, module)
    tensors = [name for argument in arguments for name in _tensor_names(argument.value)]
    if file.metadata.call is None:
        free = [name for name in program.inputs if name not in file.metadata.states]
        inputs = dict(zip(tensors, free, strict=True))
    else:
        inputs = {name: name for name in tensors if name in program.inputs}
    states = _states(file, program, module, set(program.inputs) - set(inputs.values()))
    argument = ""
    if states:
        argument = _STATES
        while any(item.name == argument for item in arguments):
            argument += "_"
    after = {state.output for state in states.values()}
    wanted = [name for name in program.outputs if name not in after]
    fixed = {item.name: tuple(constants((item,))) for item in arguments}
    return Interface(
        _signature(arguments, argument),
        inputs,
        {name: values for name, values in fixed.items() if values},
        states,
        argument,
        _outputs(wanted, file),
        {value.name: shape_of(value.type) for value in file.model.graph.input},
    )


def _arguments(file: ConvertedFile, module: nn.Module) -> tuple[Argument, ...]:
    """The arguments of the exported module's call; for another tool's file its inputs, except states."""
    if file.metadata.call is not None:
        call, _ = call_from_json(file.metadata.call, module)
        return call
    names: list[str] = []
    for index, name in enumerate(name for name in file.graph.inputs if name not in file.metadata.states):
        plain = "".join(char if char.isalnum() else "_" for char in name).strip("_") or f"input_{index}"
        plain = f"_{plain}" if plain[0].isdigit() or keyword.iskeyword(plain) else plain
        while plain in names:
            plain += "_"
        names.append(plain)
    return tuple(Argument(name, "positional", TensorNode(name)) for name in names)


def _tensor_names(node: Node) -> list[str]:
    if isinstance(node, TensorNode):
        return [node.name]
    if isinstance(node, ContainerNode):
        return [name for item in node.items for name in _tensor_names(item)]
    return []


def _signature(arguments: Sequence[Argument], states: str) -> inspect.Signature:
    parameters: list[inspect.Parameter] = []
    optional = False
    for argument in arguments:
        kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
        default: Any = inspect.Parameter.empty
        if argument.passed == STAR:
            kind = inspect.Parameter.VAR_POSITIONAL
        elif argument.passed == KEYWORD:
            kind = inspect.Parameter.KEYWORD_ONLY
        if isinstance(argument.value, ConstantNode) and kind is not inspect.Parameter.VAR_POSITIONAL:
            default = argument.value.value
            optional = optional or kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        elif optional and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            default = None  # Python allows no required argument after an optional one; `_tensors` reports a missing one
        parameters.append(inspect.Parameter(argument.name, kind, default=default))
    if states:
        kinds = [parameter.kind for parameter in parameters]
        plain = all(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if plain else inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(states, kind, default=None))
    return inspect.Signature(parameters)


def _states(file: ConvertedFile, program: Program, module: nn.Module, names: set[str]) -> dict[str, StateInput]:
    """The inputs of the graph that are not arguments of the module."""
    values = {value.name: value for value in file.model.graph.input}
    axes: dict[str, tuple[str, int]] = {}
    for name, value in values.items():
        for axis, dim in enumerate(shape_of(value.type) or ()):
            if isinstance(dim, str) and name not in names:
                axes.setdefault(dim, (name, axis))
    found: dict[str, StateInput] = {}
    for name in [item for item in program.inputs if item in names]:
        after = file.metadata.states.get(name)
        if after is None:
            raise ModelError(f"its input {name} is neither an argument of the exported module nor a state")
        initial = file.metadata.initial.get(name)
        kept = "" if initial is None else buffer(module, f"initial_{name.replace('.', '_')}", torch_array(initial))
        optional = not kept and _only_states(program, name)
        sizes: list[int | tuple[str, int]] = []
        for place, dim in enumerate(shape_of(values[name].type) or ()):
            if not isinstance(dim, int) and dim not in axes and not optional:
                missing = dim or place
                raise ModelError(
                    f"the size of the axis {missing} of the state {name} is not known from the other inputs"
                )
            sizes.append(dim if isinstance(dim, int) else axes.get(dim or "", 0))
        dtype: torch.dtype = torch_dtype(values[name].type.tensor_type.elem_type)
        found[name] = StateInput(after, tuple(sizes), dtype, kept, optional)
    return found


def _only_states(program: Program, name: str) -> bool:
    """Whether only recurrent modules read a value, as their initial state."""
    for step in program.steps:
        if isinstance(step, IfStep | LoopStep | ScanStep):  # their bodies may read it
            return False
        states = (step.h0, step.c0) if isinstance(step, RecurrentStep | CellStep) else ()
        if values_read(step).count(name) > states.count(name):
            return False
    return name not in program.outputs


def _outputs(names: Sequence[str], file: ConvertedFile) -> Outputs:
    """``output`` is a tensor, ``output.0`` and ``output.1`` are a tuple, other names are a dict's keys."""
    by_name = Outputs(items=tuple((name, Outputs(name)) for name in names))
    if not file.graph.own:
        return Outputs(names[0]) if len(names) == 1 else by_name
    tree: dict[str, Any] = {}
    for name in names:
        *owners, last = name.split(".")
        at = tree
        for owner in owners:
            at = at.setdefault(owner, {})
            if not isinstance(at, dict):
                return by_name
        at[last] = name
    return _arranged(tree["output"] if list(tree) == ["output"] else tree)


def _arranged(tree: Mapping[str, Any] | str) -> Outputs:
    if isinstance(tree, str):
        return Outputs(tree)
    indices = [str(index) for index in range(len(tree))]
    keys: Sequence[str | int] = [int(key) for key in tree] if list(tree) == indices else list(tree)
    return Outputs(items=tuple((key, _arranged(item)) for key, item in zip(keys, tree.values(), strict=True)))
