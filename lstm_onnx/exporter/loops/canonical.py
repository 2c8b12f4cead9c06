"""A traced graph in canonical form: one way to write what loops write in several ways.

The entry of a tensor that a step reads is a select, however the code writes it; copies and views of a whole tensor are
removed; a chain of concatenations becomes one.  No rewriting changes a value, so two equal graphs compute the same.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..aten import argument, aten, aten_operators
from ..tracing.torch_export import FixedGraph
from ..user_code import stack_trace_line
from .pieces import bounds, concatenation, entry_of, is_empty, is_one, is_whole, unchanged, value_of
from .program import Leaf, Node, NoState, NotRolled, Sizes, Trace

RECURRENT = torch.ops.lstm_onnx.recurrent.default
_MANY = 3
"""With this many copies of one value, a list may have one for each entry of an axis: ``[z] * x.size(1)``."""
_CHECKS = {
    *("_assert_tensor_metadata", "_assert_scalar", "_assert_async"),
    *("sym_constrain_range_for_size", "sym_constrain_range"),
}
_SQUEEZES = aten_operators("squeeze.dim squeeze.dims")
_VIEWS = aten_operators("view _unsafe_view")
_SPLITS = aten_operators("split.Tensor chunk split_with_sizes split.sizes tensor_split.sections tensor_split.indices")


def canonical(graph: FixedGraph, stateful: nn.Module, sizes: Sizes) -> Trace:
    """The trace that a graph is.

    Raises:
        NotRolled: it draws random numbers.
    """
    names = {id(tensor): name for name, tensor in (*stateful.named_parameters(), *stateful.named_buffers())}
    form = _Form()
    for item in graph.module.graph.nodes:
        if item.op == "placeholder":
            form.add_input(item)
        elif item.op == "get_attr":
            kept = getattr(graph.module, str(item.target))
            if not isinstance(kept, Tensor):
                raise NotRolled(f"{item.target} runs another graph")
            form.add_leaf(item, names.get(id(kept)), kept)
    return form.trace(graph.module.graph, graph.structure, sizes)


def canonical_program(program: torch.export.ExportedProgram, sizes: Sizes) -> Trace:
    """The trace that an exported program is.

    Raises:
        NotRolled: it draws random numbers, or writes into an input or a buffer.
    """
    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise NotRolled("the forward writes into an input or a buffer")
    form = _Form()
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for spec, item in zip(signature.input_specs, placeholders, strict=True):
        if spec.kind.name == "USER_INPUT":
            form.add_input(item)
            continue
        kept = program.constants.get(spec.target, program.state_dict.get(spec.target))
        if not isinstance(kept, Tensor):
            raise NotRolled(f"{spec.target} is not a tensor")
        form.add_leaf(item, None if spec.kind.name == "CONSTANT_TENSOR" else str(spec.target), kept)
    found = form.trace(program.graph, program.call_spec.out_spec, sizes)
    # A write into a parameter, such as a clamp, gives the same at every call; otherwise it would be a state.
    kept = [spec.kind.name != "PARAMETER_MUTATION" for spec in signature.output_specs]
    return replace(found, outputs=tuple(itertools.compress(found.outputs, kept)))


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous()
    data = content.numpy().tobytes() if content.dtype != torch.bfloat16 else content.float().numpy().tobytes()
    return hashlib.sha256(f"{content.dtype}{tuple(content.shape)}".encode() + data).hexdigest()[:16]


def _made_by(constant: Tensor) -> tuple[Any, tuple[Any, ...]] | None:
    """The operator and arguments that make integers that are all equal, or that count up or down by 1."""
    if constant.dtype not in (torch.int64, torch.int32) or not constant.numel():
        return None
    numbers = constant.detach().cpu().flatten().tolist()
    if len(set(numbers)) == 1:
        return aten.full.default, (tuple(constant.shape), numbers[0])
    step = numbers[1] - numbers[0]
    end = numbers[0] + step * len(numbers)
    if constant.dim() > 1 or abs(step) != 1 or numbers != list(range(numbers[0], end, step)):
        return None
    return aten.arange.start_step, (numbers[0], end, step)


def _meta(value: Any) -> tuple[Any, Any]:
    """Shape and dtype; for several tensors, the shape of each and "several"."""
    if isinstance(value, Tensor):
        return tuple(int(s) if isinstance(s, int) else _hint(s) for s in value.shape), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_meta(item)[0] for item in value), "several"
    return None, type(value).__name__


def _hint(size: Any) -> int:
    hint = size.node.hint
    return -1 if hint is None else int(hint)


@dataclass(frozen=True)
class _Drawn:
    """Random numbers, or what follows from them; the line that draws them."""

    line: str | None


class _Form:
    """The canonical form of a graph, while it is made."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.values: dict[Any, Any] = {}
        self.leaves: dict[str, Tensor] = {}
        self.inputs: list[tuple[Any, Any]] = []
        self.parts: dict[Node, list[Node]] = {}
        self.line: str | None = None
        self.module = ""

    def add_input(self, item: torch.fx.Node) -> None:
        self.values[item] = Leaf(f"input {len(self.inputs)}")
        self.inputs.append(_meta(item.meta["val"]))

    def add_leaf(self, item: torch.fx.Node, name: str | None, tensor: Tensor) -> None:
        """Add a parameter or buffer by its name, and a constant by its content.

        A constant of equal or consecutive integers becomes an operator: Python code may make one whose size is that of
        an axis, as in ``range(batch)`` or ``[start] * batch``.

        Raises:
            NotRolled: its content cannot be read.
        """
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            raise NotRolled("a tensor of torch.vmap or torch.func.grad is kept, which has no numbers outside of it")
        made = None if name is not None else _made_by(tensor)
        if made is not None:
            shape = tuple(tensor.shape)
            self.values[item] = self.made(*made, (("dtype", tensor.dtype),), (shape, tensor.dtype))
            return
        name = name or f"constant {_digest(tensor)}"
        self.values[item], self.leaves[name] = Leaf(name), tensor.detach()

    def trace(self, graph: torch.fx.Graph, structure: Any, sizes: Sizes) -> Trace:
        """The trace of a whole graph, once its inputs and leaves are known."""
        outputs: Any = ()
        for item in graph.nodes:
            if item.op == "output":
                if drawn := self.drawn(item):
                    raise NotRolled("it draws random numbers, and a file cannot draw PyTorch's", drawn.line)
                outputs = self.arguments(item.args[0])
            elif item.op == "call_function":
                self.add(item)
            elif item not in self.values:
                raise NotRolled(f"{item.name} runs another graph")
        return Trace(self.nodes, outputs, structure, self.leaves, sizes, self.inputs)

    def arguments(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return self.values[value]
        if isinstance(value, (list, tuple)):
            return tuple(self.arguments(part) for part in value)
        if isinstance(value, slice):
            raise NotRolled("a slice object is an operator's argument", self.line)
        return value

    def made(self, target: Any, args: Any, kwargs: Any, meta: tuple[Any, Any]) -> Node:
        node = Node(target, tuple(args), tuple(kwargs), *meta, self.line, self.module)
        self.nodes.append(node)
        return node

    def add(self, item: torch.fx.Node) -> None:
        self.line = stack_trace_line(str(item.meta.get("stack_trace", "")))
        self.module = _module_of(item)
        drawn = self.drawn(item)
        if drawn or str(getattr(item.target, "__name__", "")).split(".")[0] in _CHECKS:
            self.values[item] = drawn
            return
        args = self.arguments(item.args)
        kwargs = tuple((name, self.arguments(value)) for name, value in sorted(item.kwargs.items()))
        self.values[item] = self.form_of(item, args, kwargs)

    def drawn(self, item: torch.fx.Node) -> _Drawn | None:
        """The draw that an operator's result follows from.  No output may; a mask that only training uses does."""
        return next((value for node in item.all_input_nodes if isinstance(value := self.values[node], _Drawn)), None)

    def form_of(self, item: torch.fx.Node, args: Any, kwargs: Any) -> Any:
        """An operator in canonical form: a new node, or a value that exists already."""
        # Where the module copies a tensor so that it can view it, reshape needs no copy.
        target: Any = aten.reshape.default if item.target in _VIEWS else item.target
        value: Any = item.meta.get("val")
        if (same := unchanged(item, args, kwargs, value)) is not None:
            return same
        if _draws(target, args, kwargs):
            return _Drawn(self.line)
        if target is RECURRENT:
            return self.recurrent(item, value)
        if target is operator.getitem and isinstance(args[0], Node):
            return self.part(item, args)
        if target in (aten.select.int, aten.slice.Tensor):
            return self.picked(item, args, value)
        if target in (aten.select_scatter.default, aten.slice_scatter.default):
            return self.filled(item, args, value)
        if target in _SQUEEZES and not kwargs:
            return self.squeezed(item, args, value)
        if target is aten.unsqueeze.default:
            return self.unsqueezed(args[0], args[1] % value.dim(), _meta(value))
        if (join := concatenation(item)) is not None:
            return self.concatenated(item, args[0], *join, value)
        if target is aten.stack.default and len(args[0]) >= _MANY and len({id(part) for part in args[0]}) == 1:
            return self.stacked(item, args, value)
        node = self.made(target, args, kwargs, _meta(value))
        if isinstance(value, (tuple, list)) and target is not aten.unbind.int and target not in _SPLITS:
            self.take_apart(node, value)
        return node

    def take_apart(self, node: Node, value: Any) -> None:
        """Add a node for each result, used or not: the last step of a loop uses fewer than the others."""
        self.parts[node] = [
            self.made(operator.getitem, (node, index), (), _meta(part)) for index, part in enumerate(value)
        ]

    def recurrent(self, item: torch.fx.Node, value: Any) -> Node:
        """A call of a recurrent module, without its call number, the only thing that differs between steps."""
        names = [argument.name for argument in RECURRENT._schema.arguments]
        given = {**dict(zip(names, self.arguments(item.args), strict=False)), **dict(item.kwargs)}
        given = {name: self.arguments(argument) for name, argument in given.items()}
        states = [given.get("h0"), given.get("c0")]
        if states[0] is None:
            states = [NoState(), NoState() if given["c_size"] else None]
        kept = ("module", "batch_first", "rows", "output_size", "h_size", "c_size")
        node = self.made(
            RECURRENT,
            (given["x"], *states, given.get("lengths")),
            tuple((name, given[name]) for name in kept),
            _meta(value),
        )
        self.take_apart(node, value)
        return node

    def part(self, item: torch.fx.Node, args: Any) -> Any:
        """One of an operator's results; for parts of a tensor, the select or slice that gives it."""
        source, index = args
        if source in self.parts:
            return self.parts[source][index]
        value, whole = item.meta.get("val"), item.args[0].args[0]  # type: ignore[union-attr]
        of = value_of(whole)
        if source.target is aten.unbind.int:
            dim = argument(source.args, 1) % of.dim()
            return self.made(aten.select.int, (source.args[0], dim, index), (), _meta(value))
        if source.target in _SPLITS:
            dim = argument(source.args, 2, dict(source.kwargs).get("dim", 0)) % of.dim()
            if isinstance(of.shape[dim], int):
                start = sum(shape[dim] for shape in source.shape[:index])
                return self.range(source.args[0], of, dim, start, start + source.shape[index][dim], 1, value)
        return self.made(operator.getitem, args, (), _meta(value))

    def picked(self, item: torch.fx.Node, args: Any, value: Any) -> Any:
        of = value_of(item.args[0])
        dim = argument(args, 1) % of.dim()
        size = of.shape[dim]
        if item.target is aten.select.int:
            index = args[2]
            if isinstance(index, int) and isinstance(size, int):
                index %= size
            if isinstance(size, int) and size == 1:
                return self.squeezed_once(args[0], dim, _meta(value))
            source, row = entry_of(args[0], dim, index, value)
            return row or self.made(aten.select.int, (source, dim, index), (), _meta(value))
        start, end, step = argument(args, 2) or 0, argument(args, 3, None), argument(args, 4, 1)
        return self.range(args[0], of, dim, start, end, step, value)

    def range(self, source: Any, of: Tensor, dim: int, start: Any, end: Any, step: int, value: Any) -> Any:
        """A slice, or a select if it has one entry."""
        size = of.shape[dim]
        start, end = bounds(start, end, size)
        if is_whole(start, end, step, size):
            return source
        if is_one(start, end, size):
            shape, dtype = _meta(value)
            one = self.made(aten.select.int, (source, dim, start), (), (_without(shape, dim), dtype))
            return self.unsqueezed(one, dim, (shape, dtype))
        return self.made(aten.slice.Tensor, (source, dim, start, end, step), (), _meta(value))

    def filled(self, item: torch.fx.Node, args: Any, value: Any) -> Any:
        base, source, dim = args[0], args[1], argument(args, 2) % value.dim()
        size = value.shape[dim]
        if item.target is aten.select_scatter.default:
            index = args[3] % size if isinstance(args[3], int) and isinstance(size, int) else args[3]
            return self.made(aten.select_scatter.default, (base, source, dim, index), (), _meta(value))
        start, end = bounds(argument(args, 3) or 0, argument(args, 4, None), size)
        step = argument(args, 5, 1)
        if is_whole(start, end, step, size):
            return source
        if is_one(start, end, size):
            shape, dtype = _meta(value_of(item.args[1]))
            if len(shape) == value.dim() and shape[dim] == 1:
                row = self.squeezed_once(source, dim, (_without(shape, dim), dtype))
                return self.made(aten.select_scatter.default, (base, row, dim, start), (), _meta(value))
        return self.made(aten.slice_scatter.default, (base, source, dim, start, end, step), (), _meta(value))

    def squeezed(self, item: torch.fx.Node, args: Any, value: Any) -> Any:
        of = value_of(item.args[0])
        dims = args[1] if isinstance(args[1], tuple) else (args[1],)
        if len(dims) == 1 and of.dim():
            dim = dims[0] % of.dim()
            if isinstance(of.shape[dim], int):
                return self.squeezed_once(args[0], dim, _meta(value)) if of.shape[dim] == 1 else args[0]
        return self.made(item.target, args, (), _meta(value))

    def squeezed_once(self, source: Any, dim: int, meta: Any) -> Any:
        if isinstance(source, Node) and source.target is aten.unsqueeze.default and source.args[1] == dim:
            return source.args[0]
        return self.made(aten.squeeze.dim, (source, dim), (), meta)

    def unsqueezed(self, source: Any, dim: int, meta: Any) -> Any:
        if isinstance(source, Node) and source.target is aten.squeeze.dim and source.args[1] == dim:
            return source.args[0]
        return self.made(aten.unsqueeze.default, (source, dim), (), meta)

    def concatenated(
        self, item: torch.fx.Node, parts: Any, dim: int, new_axes: list[tuple[int, ...]], value: Any
    ) -> Any:
        """The tensors of a list along one axis, each with its new axes."""
        rows = []
        for part, of, axes in zip(parts, item.args[0], new_axes, strict=True):  # type: ignore[arg-type]
            shape, dtype = _meta(value_of(of))
            for axis in axes:
                shape = (*shape[:axis], 1, *shape[axis:])
                part = self.unsqueezed(part, axis, (shape, dtype))
            rows.append(part)
        return self.joined(rows, dim, value)

    def joined(self, rows: Sequence[Any], dim: int, value: Any) -> Any:
        """A concatenation; one that begins or ends with another one along the same axis is merged with it.

        So ``out = torch.cat([out, h])`` in each step becomes one list, since only the last one is used.
        """
        parts: list[Any] = []
        for part in rows:
            if isinstance(part, Node) and part.target is aten.cat.default and part.args[1] == dim:
                parts += part.args[0] if part.dtype == value.dtype else (part,)
            else:
                parts.append(part)
        full = [part for part in parts if not is_empty(part, dim, value)]
        if len(full) == 1 and len(parts) > 1:
            return full[0]
        if len(full) >= _MANY and len({id(part) for part in full}) == 1:
            repeats = tuple(len(full) if place == dim else 1 for place in range(value.dim()))
            return self.made(aten.repeat.default, (full[0], repeats), (), _meta(value))
        return self.made(aten.cat.default, (tuple(full or parts), dim), (), _meta(value))

    def stacked(self, item: torch.fx.Node, args: Any, value: Any) -> Any:
        """One value several times."""
        dim = argument(args, 1) % value.dim()
        shape, dtype = _meta(value_of(item.args[0][0]))  # type: ignore[index]
        row = self.unsqueezed(args[0][0], dim, ((*shape[:dim], 1, *shape[dim:]), dtype))
        return self.joined([row] * len(args[0]), dim, value)


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], *shape[dim + 1 :])


def _draws(target: Any, args: Any, kwargs: Any) -> bool:
    if target is aten.scaled_dot_product_attention.default:
        return bool(argument(args, 4, dict(kwargs).get("dropout_p", 0.0)))
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())


def _module_of(item: torch.fx.Node) -> str:
    """The path of the module whose code made the node."""
    stack = item.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    parts = str(path).removeprefix("L['self']").lstrip(".").split(".")
    return ".".join(parts[1:] if parts[0] == "inner" else parts)
