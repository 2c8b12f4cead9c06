"""The nn.Module of a converted file: submodules, parameters, and the graph that its forward runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..exporter.call.structure import POSITIONAL, Argument, arguments_of, constants, take_apart
from ..onnxgraph import Shape
from .program import Program, Scope
from .values import tensor


@dataclass(frozen=True)
class StateInput:
    """A state that is an input of the file but not an argument of the exported module.

    Attributes:
        output: the output that is its next value.
        axes: its size along each axis, or ``(input, axis)`` for an input's axis of the same size.
        dtype: its torch dtype.
        initial: the buffer with its initial value; "" for zeros.
        optional: whether only recurrent modules read it, for which None means zeros.
    """

    output: str
    axes: tuple[int | tuple[str, int], ...]
    dtype: torch.dtype
    initial: str
    optional: bool


@dataclass(frozen=True)
class Outputs:
    """The nesting of the outputs: a name, or nested outputs by key; integer keys make a tuple."""

    name: str = ""
    items: tuple[tuple[str | int, Outputs], ...] = ()

    def of(self, values: Mapping[str, Any]) -> Any:
        """The values, nested."""
        if not self.items:
            return values[self.name]
        built = {key: item.of(values) for key, item in self.items}
        return tuple(built.values()) if all(isinstance(key, int) for key in built) else built


@dataclass(frozen=True)
class Interface:
    """What a converted module takes and returns.

    Attributes:
        signature: of its forward, without self.
        inputs: the graph's inputs that are arguments, by their names in the signature's tensors.
        fixed: by argument, the constants with which the file was exported.
        states: the states by the graph's inputs.
        states_argument: the argument that takes them; "" if there are none.
        outputs: the nesting of what it returns.
        shapes: those of the graph's inputs, from the file.
    """

    signature: inspect.Signature
    inputs: Mapping[str, str]
    fixed: Mapping[str, tuple[Any, ...]]
    states: Mapping[str, StateInput]
    states_argument: str
    outputs: Outputs
    shapes: Mapping[str, Shape | None] = field(default_factory=dict)


class ONNXModule(Scope):
    """A converted file.

    Its class has the name of the exported module's class.  `to_torch` describes its call.
    """

    _program: Program
    _interface: Interface

    def __reduce__(self) -> Any:
        """Recreate the class when it is unpickled, since each file has its own."""
        return _empty, (type(self).__name__, self.__dict__["_interface"].signature), self.__dict__

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        interface, program = self._interface, self._program
        bound = interface.signature.bind(*args, **kwargs)
        states = bound.arguments.pop(interface.states_argument, None) if interface.states_argument else None
        given = _tensors(interface, bound)
        values = {graph_name: given[name] for name, graph_name in interface.inputs.items()}
        carried = dict(states or {})
        for name, state in interface.states.items():
            value = carried.pop(name, None)
            values[name] = self._initial(state, values) if value is None and not state.optional else value
        if carried:
            known = ", ".join(interface.states)
            raise InputError(f"{', '.join(map(str, carried))} is not a state of the module; its states are {known}")
        for name, value in values.items():
            _require_shape(name, value, interface.shapes.get(name))
        results = program.run(self, [values[name] for name in program.inputs], {})
        named = {name: tensor(value) for name, value in zip(program.outputs, results, strict=True)}
        result = interface.outputs.of(named)
        if states is None:
            return result
        return result, {name: named[state.output] for name, state in interface.states.items()}

    def _initial(self, state: StateInput, values: Mapping[str, Any]) -> Tensor:
        sizes = [axis if isinstance(axis, int) else values[axis[0]].shape[axis[1]] for axis in state.axes]
        device = next((value.device for value in values.values() if isinstance(value, Tensor)), None)
        if state.initial:
            first: Tensor = getattr(self, state.initial)
            return first.expand(sizes)
        return torch.zeros(sizes, dtype=state.dtype, device=device)


def new_module(name: str, program: Program, interface: Interface) -> ONNXModule:
    """A module that runs a graph; submodules and parameters are added to it."""
    module = _empty(name, interface.signature)
    module._program, module._interface = program, interface
    return module


def _empty(name: str, signature: inspect.Signature) -> ONNXModule:
    def forward(self: ONNXModule, *args: Any, **kwargs: Any) -> Any:
        return self._call(args, kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [own, *signature.parameters.values()]
    if any(parameter.name == "self" for parameter in parameters[1:]):
        parameters[0] = own.replace(name="module", kind=inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    kind: type[ONNXModule] = type(name, (ONNXModule,), {"forward": forward, "__module__": __name__})
    return kind()


def _require_shape(name: str, value: Tensor | None, wanted: Shape | None) -> None:
    """Refuse sizes other than those of the file, since its constants may depend on them."""
    if value is None or wanted is None:
        return
    fixed = [(size, dim) for size, dim in zip(value.shape, wanted, strict=False) if isinstance(dim, int)]
    if value.dim() != len(wanted) or any(type(size) is int and size != dim for size, dim in fixed):
        shape = ", ".join("any" if dim is None else str(dim) for dim in wanted)
        raise InputError(f"{name} has the shape {tuple(value.shape)}, and the file takes ({shape})")


def _tensors(interface: Interface, bound: inspect.BoundArguments) -> dict[str, Tensor]:
    """The tensors of a call by name; constants must equal those with which the file was exported."""
    found: dict[str, Tensor] = {}
    for name, _, value in arguments_of(bound):
        node = take_apart(value, name, lambda place, tensor, _: found.update({place: tensor}))
        given = tuple(constants((Argument(name, POSITIONAL, node),)))
        wanted = interface.fixed.get(name, ())
        if given != wanted:
            raise InputError(
                f"{name} is {', '.join(map(repr, given)) or 'a tensor'}, but the file was exported with "
                f"{', '.join(map(repr, wanted)) or 'a tensor'}; export the module again for another value"
            )
    missing = [name for name in interface.inputs if name not in found]
    if missing:
        raise InputError(f"{', '.join(missing)} is missing; the module takes {', '.join(interface.inputs)}")
    return found
