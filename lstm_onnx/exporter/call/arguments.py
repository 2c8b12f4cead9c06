"""The example inputs of a module: named tensors, in the containers that its forward takes.

A tensor's name is that of its argument, followed by the keys inside it: ``tokens``, ``batch.features``, ``xs.0``.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ConfigError, ExportError, LSTMOnnxError, reason
from ...input_spec import INPUT_DTYPES, InputSpec, draw
from ...symbolic_dims import ANY_SIZE, Limit, clamped, least_size, names_in, size_of
from .dynamic_shapes import Axes, Limits, axes_of, by_argument, default_axis_name, shape_at
from .structure import Argument, Call, Path, arguments_of, constants, put_together, take_apart


@dataclass(frozen=True)
class Arguments:
    """The tensors in a forward's arguments, and how the arguments are nested.

    Attributes:
        tensors: by name, in the forward's order.
        axes: the dynamic axes of each tensor, by a name, or by an expression of names such as ``4*time - 16``.
        call: the arguments, with the names of tensors in the tensors' places.
        limits: the requested sizes of axes, by name; an axis without an entry may have any size.
        guessed: whether the caller did not name the dynamic axes.
    """

    tensors: dict[str, Tensor]
    axes: dict[str, Axes]
    call: Call
    limits: Limits = field(default_factory=dict)
    guessed: bool = False

    def args_and_kwargs(self, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` with these tensors (or other objects, such as shapes) in the tensors' places."""
        return put_together(self.call, tensors)

    def as_example_inputs(self) -> Any:
        """The arguments as `bind_arguments` takes them: a tuple, or a dict by name where some have to be named."""
        args, kwargs = self.args_and_kwargs(self.tensors)
        names = [argument.name for argument in self.call]
        return {**dict(zip(names, args, strict=False)), **kwargs} if kwargs else args

    @property
    def unnamed(self) -> frozenset[str]:
        """Dynamic axes that the user has not named; without those whose name several axes share."""
        defaults = {default_axis_name(name, axis) for name, axes in self.axes.items() for axis in axes}
        labels = Counter(label for axes in self.axes.values() for label in axes.values())
        return frozenset(label for label, count in labels.items() if count == 1 and label in defaults)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each dynamic axis in the example, except of axes that follow from others."""
        found: dict[str, int] = {}
        for name, axes in self.axes.items():
            for axis, label in axes.items():
                if label.isidentifier():
                    found.setdefault(label, self.tensors[name].shape[axis])
        return found

    def within(self, axis: str, size: int) -> int:
        """`size`, clamped to the axis's limits."""
        return clamped(size, self.limits.get(axis, ANY_SIZE))

    def with_limits(self, limits: Mapping[str, Limit]) -> Arguments:
        """These arguments with further limits; an axis with one possible size is not dynamic.

        Raises:
            ConfigError: no size is left, or the example has another one.
        """
        found = dict(self.limits)
        for axis, (least, largest) in limits.items():
            before, after = found.get(axis, ANY_SIZE)
            ends = [end for end in (after, largest) if end is not None]
            found[axis] = max(before, least), min(ends) if ends else None
        for axis, size in self.sizes.items():
            if size != clamped(size, found.get(axis, ANY_SIZE)):
                least, largest = found[axis]
                allowed = f"{least} or more" if largest is None else f"from {least} to {largest}"
                raise ConfigError(f"the axis {axis} has size {size} in the example, and must be {allowed}")
        fixed = {axis for axis, (least, largest) in found.items() if least == largest}
        axes = {
            name: {axis: label for axis, label in axes.items() if not names_in(label) <= fixed}
            for name, axes in self.axes.items()
        }
        kept = {axis: pair for axis, pair in found.items() if axis not in fixed and pair != ANY_SIZE}
        return replace(self, axes=axes, limits=kept)

    def resize(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """The tensors at other sizes: repeated or cut along the dynamic axes."""
        return {
            name: resize_tensor(tensor, {axis: _size(label, sizes) for axis, label in self.axes[name].items()})
            for name, tensor in self.tensors.items()
        }

    def resize_filled(self, sizes: Mapping[str, int]) -> dict[str, Tensor] | None:
        """As `resize`, but lengths whose longest fills an axis still do so; None if there are no such lengths."""
        before = {size: sizes[label] for label, size in self.sizes.items() if sizes[label] != size}
        filling = {
            name: before[int(tensor.max())] - int(tensor.max())
            for name, tensor in self.tensors.items()
            if _may_be_lengths(tensor) and int(tensor.max()) in before
        }
        if not filling:
            return None
        resized = self.resize(sizes)
        return resized | {name: (resized[name] + more).clamp(min=1) for name, more in filling.items()}

    def resize_indices(self, sizes: Mapping[str, int]) -> dict[str, Tensor] | None:
        """As `resize`, but with integers below every size, so that they are valid indices; None if they already are."""
        most = min(sizes.values(), default=1) - 1
        resized = self.resize(sizes)
        within = {name: tensor.clamp(max=most) for name, tensor in resized.items() if holds_integers(tensor)}
        return resized | within if any(not torch.equal(resized[name], own) for name, own in within.items()) else None

    def specs(self) -> tuple[InputSpec, ...]:
        """The shape and dtype of each tensor, and the range of integers."""
        return tuple(_spec(name, tensor, self.axes[name]) for name, tensor in self.tensors.items())


def size_notes(arguments: Arguments) -> Iterator[str]:
    """Notes on numbers in the arguments that equal a size of the example, and stay fixed at other sizes."""
    for name, value in constants(arguments.call):
        numbers = value if isinstance(value, torch.Size) else [value]
        for axis, size in arguments.sizes.items():
            if size > 1 and any(type(number) is int and number == size for number in numbers):
                yield (
                    f"{name} is {value} in the file at all sizes; if that is only because {axis} is {size} in the "
                    "example, take it from a tensor's shape in forward"
                )


def draw_arguments(
    module: nn.Module, specs: Sequence[InputSpec], sizes: Mapping[str, int], *, seed: int = 0, call: Call | None = None
) -> Arguments:
    """Random arguments of a forward, from a description of its inputs, such as a config's or a file's.

    Args:
        module: only the signature of its forward is used.
        specs: the inputs; a name with dots is an entry of a dict argument, or of a tuple if it is a number.
        sizes: a size for each axis name.
        seed: of the random numbers.
        call: how the inputs are nested; None derives that from their names.

    Raises:
        ExportError: the forward does not take such arguments.
        ConfigError: random inputs of these sizes cannot be made.
    """
    arrays = draw(specs, sizes, np.random.default_rng(seed))
    tensors = {spec.name: torch.from_numpy(arrays[spec.name]) for spec in specs}
    axes = {spec.name: {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in specs}
    if call is None:
        named = _nested(tensors)
        _require_arguments(module, list(named))
        return bind_arguments(module, named, _nested(axes), where=f"the inputs {', '.join(tensors)}")
    return Arguments(tensors, axes, call)


def _require_arguments(module: nn.Module, names: Sequence[str]) -> None:
    """Refuse names that are not arguments of the forward (ExportError)."""
    signature = inspect.signature(module.forward)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    unknown = [name for name in names if name not in signature.parameters]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        takes = f"{type(module).__name__}.forward{signature}"
        raise ExportError(f"the input {unknown[0]} is not an argument of {takes}; name each input as forward does")


def _nested(values: Mapping[str, Any]) -> Any:
    """``{"batch.tokens": x}`` as ``{"batch": {"tokens": x}}``, and ``{"xs.1": y, "xs.0": x}`` as ``{"xs": (x, y)}``."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        parts.setdefault(first, {})[rest] = value
    tree = {name: inner[""] if inner.keys() == {""} else _nested(inner) for name, inner in parts.items()}
    places = [str(place) for place in range(len(tree))]
    return tuple(tree[place] for place in places) if tree.keys() == set(places) else tree


def resize_tensor(tensor: Tensor, sizes: Mapping[int, int]) -> Tensor:
    """`tensor` with other sizes along some axes, by repeating its entries or cutting it.

    Repetitions of an entry follow it directly, so that lengths stay sorted and a mask's padding stays at its end.
    """
    for axis, size in sizes.items():
        own = tensor.shape[axis]
        if size != own:
            index = torch.arange(size, device=tensor.device)
            tensor = tensor.index_select(axis, index * own // size if size > own else index)
    return tensor


def holds_integers(tensor: Tensor) -> bool:
    """Whether its dtype is an integer type other than bool."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _may_be_lengths(tensor: Tensor) -> bool:
    """Whether it is a row or a column of positive integers."""
    is_line = tensor.dim() > 0 and 0 < tensor.numel() == max(tensor.shape)
    return is_line and holds_integers(tensor) and int(tensor.min()) >= 1


def _spec(name: str, tensor: Tensor, axes: Axes) -> InputSpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(axes.get(axis, size) for axis, size in enumerate(tensor.shape))
    ends = (int(tensor.min()), int(tensor.max())) if holds_integers(tensor) and tensor.numel() else ()
    return InputSpec(name, shape, dtype, *ends)


def bind_arguments(
    module: nn.Module, example_inputs: Any, dynamic_shapes: Any, *, where: str = "example_inputs"
) -> Arguments:
    """Bind example inputs to the forward's arguments, and name their tensors and dynamic axes.

    Args:
        module: only its forward's signature is used.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of arguments by name.
        dynamic_shapes: as torch.export takes them, by argument (or in the arguments' order): for each tensor ``{axis:
            name}`` or one entry per axis.  A name is a string or a ``torch.export.Dim``, whose min and max bound the
            axis; None, an int and Dim.STATIC mean a static axis, Dim.DYNAMIC and Dim.AUTO a dynamic one without a
            name.  If `dynamic_shapes` is None, all axes of integers and booleans are dynamic, and all but the last of
            other tensors; the exporter then finds the dynamic axes by running the module (`find_dynamic_axes`).
        where: the name of the inputs in messages.

    Raises:
        ExportError: the arguments do not fit the forward, or hold no tensor.
        ConfigError: `dynamic_shapes` does not fit the arguments, or an argument cannot be read.
    """
    try:
        return _bound(module, example_inputs, dynamic_shapes, where)
    except LSTMOnnxError:
        raise
    except (TypeError, ValueError, RecursionError) as error:  # such as a list that contains itself
        raise ConfigError(f"{where} or dynamic_shapes cannot be used: {reason(error)}") from error


def _bound(module: nn.Module, example_inputs: Any, dynamic_shapes: Any, where: str) -> Arguments:
    arguments = arguments_of(_bind(module, example_inputs, where))
    shapes = by_argument(dynamic_shapes, [name for name, _, _ in arguments])
    tensors: dict[str, Tensor] = {}
    detached: dict[int, Tensor] = {}  # one for what is one tensor
    axes: dict[str, Axes] = {}
    limits: list[Limits] = []

    def add(name: str, tensor: Tensor, path: Path, shapes: Any) -> None:
        if name in tensors:
            raise ConfigError(f"two tensors of {where} would be named {name}; rename a key")
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in INPUT_DTYPES:
            known = ", ".join(INPUT_DTYPES)
            mend = ""
            if tensor.is_complex():
                mend = f"; pass torch.view_as_real({name}), and call torch.view_as_complex in forward"
            elif tensor.dtype == torch.bfloat16:
                mend = f"; pass {name}.float(), and a precision for a bfloat16 module"
            raise ExportError(f"{name} has dtype {dtype}, which a file's inputs cannot have; they can be {known}{mend}")
        if tensor.is_meta:
            raise ExportError(f"{name} is on the meta device, where tensors have no values; pass a tensor on the CPU")
        if tensor.layout is not torch.strided:
            raise ExportError(f"{name} is sparse, and a file's inputs are dense; pass {name}.to_dense()")
        tensors[name] = detached.setdefault(id(tensor), tensor.detach())
        axes[name], own = axes_of(name, tensor, shape_at(shapes, path, name))
        limits.append(own)

    call = tuple(
        Argument(name, passed, take_apart(value, name, functools.partial(add, shapes=shapes[name])))
        for name, passed, value in arguments
    )
    if not tensors:
        raise ExportError(f"{where} hold no tensor")
    found = Arguments(tensors, axes, call, guessed=dynamic_shapes is None)
    _check_sizes(found)
    least = least_sizes(label for own in axes.values() for label in own.values())
    limits.append({name: (size, None) for name, size in least.items()})
    for requested in limits:
        found = found.with_limits(requested)
    return found


def _bind(module: nn.Module, example_inputs: Any, where: str) -> inspect.BoundArguments:
    """The example as arguments by name."""
    inputs = example_inputs
    if isinstance(inputs, Mapping):
        # A dict holds arguments by name, or is itself the only argument.
        candidates: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), dict(inputs)), ((inputs,), {})]
    else:
        candidates = [(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {})]
    signature = inspect.signature(module.forward)
    problem: TypeError | None = None
    for args, kwargs in candidates:
        try:
            return signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = problem or error
    raise ExportError(f"{where} do not fit {type(module).__name__}.forward{signature}: {problem}")


def _size(label: str, sizes: Mapping[str, int]) -> int:
    found = size_of(label, sizes)
    if found is None or found < 1:
        raise ExportError(f"the axis {label} has no entries at {', '.join(f'{n} {s}' for n, s in sizes.items())}")
    return found


def least_sizes(labels: Iterable[str]) -> dict[str, int]:
    """The smallest size of each axis at which no axis that follows from it alone has size 0."""
    least: dict[str, int] = {}
    for label in labels:
        names = names_in(label)
        if len(names) == 1 and not label.isidentifier():
            name = next(iter(names))
            least[name] = max(least_size(label, name), least.get(name, 1))
    return least


def flatten_advice(name: str, axis: int) -> str:
    """What to write where an input's axis has entries for each of two others, one of which no input has."""
    return f"export a module whose {name} has both axes, and which passes {name}.flatten({axis}, {axis + 1}) on"


def _check_sizes(found: Arguments) -> None:
    for name, axes in found.axes.items():
        for axis, label in axes.items():
            size, expected = found.tensors[name].shape[axis], size_of(label, found.sizes)
            if expected is None:
                missing = ", ".join(sorted(names_in(label) - found.sizes.keys()))
                mend = f"; where no input has it, {flatten_advice(name, axis)}" if len(names_in(label)) > 1 else ""
                raise ConfigError(
                    f"the axis {label} of {name} needs an axis named {missing} in dynamic_shapes, too{mend}"
                )
            if size != expected:
                raise ConfigError(
                    f"the axis {label} has size {expected} in one input and {size} in {name} (axis {axis})"
                )
            if size < 1:
                raise ExportError(f"{name} has size 0 along {label}; give an example with at least one entry there")
