"""States that a module keeps in its attributes, as ``self.hidden`` of many a tutorial.

Such a module gives other outputs when it is called again, and a trace would freeze what the
attribute held.  Here the attributes that a forward changes are found by running it, and `Stateful`
makes them arguments and results: a call is then a function of its inputs and states alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from ...errors import ExportError, LSTMOnnxError

_INTERNAL = frozenset(vars(nn.Module())) | {
    "_lstm_onnx_site",
    "_flat_weights",
    "_flat_weight_refs",
    "_flat_weights_names",
    "_is_full_backward_hook",
}
_PLAIN = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Slot:
    """An attribute (or buffer) that the forward reads and leaves changed.

    `tree` is the structure of what it holds; `names` and `next_names` are the inputs and outputs of
    its tensors; `initial` the tensors that it holds at first, None where it holds nothing; `after`
    what a first call left.
    """

    path: str
    attribute: str
    is_buffer: bool
    tree: pytree.TreeSpec
    names: tuple[str, ...]
    next_names: tuple[str, ...]
    initial: tuple[Tensor, ...] | None
    after: tuple[Tensor, ...]

    @property
    def where(self) -> str:
        """The attribute as the user writes it."""
        return f"self.{self.path}.{self.attribute}" if self.path else f"self.{self.attribute}"


def _holder(copy: nn.Module, slot: Slot) -> dict[str, Any]:
    """The table that the slot is an entry of; written past Module.__setattr__, which would move it to another."""
    table = copy.get_submodule(slot.path).__dict__
    held: dict[str, Any] = table["_buffers"] if slot.is_buffer else table
    return held


def read(copy: nn.Module, slot: Slot) -> list[Tensor]:
    """The tensors that a slot holds now."""
    leaves, tree = pytree.tree_flatten(_holder(copy, slot)[slot.attribute])
    if tree != slot.tree or not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise ExportError(
            f"{slot.where} holds other things from call to call; keep a tensor or a tuple of tensors in it, "
            "or pass the state as an argument of forward and return it"
        )
    return leaves


def write(copy: nn.Module, slot: Slot, tensors: Sequence[Tensor]) -> None:
    """Put tensors into a slot."""
    _holder(copy, slot)[slot.attribute] = pytree.tree_unflatten(list(tensors), slot.tree)


class Snapshot:
    """What every attribute of a module holds, by identity and, for tensors, by version."""

    def __init__(self, copy: nn.Module) -> None:
        self.held = {key: (value, _marks(value)) for key, value in _attributes(copy)}
        # Copies: a forward may write into a tensor, or replace the items of a list.
        self.content = {key: pytree.tree_map_only(Tensor, _copied, value) for key, value in _attributes(copy)}

    def changed(self, copy: nn.Module) -> list[tuple[str, str, bool]]:
        """``(path, attribute, is_buffer)`` of all that is not as it was.

        Raises:
            ExportError: what changed is no tensor, so it cannot become an input of a file.
        """
        found = []
        for key, value in _attributes(copy):
            before, marks = self.held.get(key, (None, None))
            if value is before and _marks(value) == marks:
                continue
            leaves = pytree.tree_leaves(value)
            if key in self.held and not _has_tensor(value) and not _has_tensor(before) and _same(value, before):
                continue
            if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
                path, attribute, _ = key
                where = f"self.{path}.{attribute}" if path else f"self.{attribute}"
                raise ExportError(
                    f"forward changes {where}, which holds {_what(value)} and no tensors: a file cannot remember it; "
                    "keep it out of forward, or make it a tensor if the outputs depend on it"
                )
            found.append(key)
        return found


def _what(value: Any) -> str:
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _attributes(copy: nn.Module) -> Iterator[tuple[tuple[str, str, bool], Any]]:
    for path, module in copy.named_modules():
        for name, value in module.__dict__.items():
            if name not in _INTERNAL:
                yield (path, name, False), value
        for name, value in module._buffers.items():
            if value is not None:
                yield (path, name, True), value


def _marks(value: Any) -> Any:
    """What shows that a value was changed in place."""
    leaves, tree = pytree.tree_flatten(value)
    return tree, [(id(leaf), leaf._version) if isinstance(leaf, Tensor) else id(leaf) for leaf in leaves]


def _has_tensor(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _same(one: Any, other: Any) -> bool:
    """Whether two values without tensors say the same; objects that nothing is known of are taken to."""
    if isinstance(one, (*_PLAIN, list, tuple, dict, set)):
        try:
            return bool(one == other)
        except (TypeError, ValueError, RuntimeError):
            return False
    return True


def slots_of(copy: nn.Module, first: Snapshot, keys: Sequence[tuple[str, str, bool]]) -> tuple[Slot, ...]:
    """The slots for `keys`, which were changed since `first`; the copy holds what one call left."""
    slots = []
    for key in keys:
        path, attribute, is_buffer = key
        table = copy.get_submodule(path).__dict__
        leaves, tree = pytree.tree_flatten(table["_buffers"][attribute] if is_buffer else table[attribute])
        name = f"{path}.{attribute}" if path else attribute
        names, next_names = _state_names(name, len(leaves))
        old, old_tree = pytree.tree_flatten(first.content.get(key))
        fits = old_tree == tree and all(isinstance(leaf, Tensor) for leaf in old)
        initial = tuple(old) if fits else None
        after = tuple(map(_copied, leaves))
        slots.append(Slot(path, attribute, is_buffer, tree, names, next_names, initial, after))
    return tuple(slots)


def _state_names(name: str, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A pair is taken for (h, c); the names of each state and of its successor sort alike, which Triton needs."""
    if count == 1:
        return (f"{name}.h0",), (f"{name}.hn",)
    if count == 2:
        return (f"{name}.h0", f"{name}.c0"), (f"{name}.hn", f"{name}.cn")
    return tuple(f"{name}.{i}.h0" for i in range(count)), tuple(f"{name}.{i}.hn" for i in range(count))


class ForwardFailed(Exception):  # noqa: N818 - its cause is the error
    """The user's forward raised its cause; in this wrapping, torch's tracer prints no graph with it."""


class Stateful(nn.Module):
    """A module as a function of tensors: attribute states are arguments and results as well.

    `call` puts the tensors into the containers that the module takes, as ``(args, kwargs)``.
    """

    def __init__(
        self,
        inner: nn.Module,
        slots: tuple[Slot, ...],
        begin: Callable[[], None],
        call: Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]],
    ) -> None:
        super().__init__()
        self.call = call
        self.inner = inner
        self.slots = slots
        self.begin = begin

    def forward(self, tensors: list[Tensor], states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of the module's own result, and the states that it leaves.

        The attributes are afterwards as they were.

        Raises:
            ForwardFailed: the module's own forward raised something.
            ExportError: its result or its attributes are of other kinds than before.
        """
        self.begin()
        args, kwargs = self.call(tensors)
        before = [_holder(self.inner, slot)[slot.attribute] for slot in self.slots]
        rest = list(states)
        try:
            for slot in self.slots:
                count = slot.tree.num_leaves
                # A copy, since the forward may write into it, and an input is not its to change.
                write(self.inner, slot, [state.clone() for state in rest[:count]])
                rest = rest[count:]
            try:
                result = self.inner(*args, **kwargs)
            except LSTMOnnxError:
                raise
            except Exception as error:
                raise ForwardFailed(str(error)) from error
            after = [leaf for slot in self.slots for leaf in read(self.inner, slot)]
        finally:
            for slot, value in zip(self.slots, before, strict=True):
                _holder(self.inner, slot)[slot.attribute] = value
        # A state that is passed on as it came must not be an output that is an input.
        return [tensor for _, tensor in named_tensors(result)], [leaf.clone() for leaf in after]


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def named_tensors(result: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a forward's result, each with the keys that lead to it: ``output``, ``output.0``, ``logits``."""
    found = []
    for path, leaf in pytree.tree_flatten_with_path(result, is_leaf=_is_packed)[0]:
        if _is_packed(leaf):
            raise ExportError(
                "forward returns a packed sequence, which has no form in ONNX; return what pad_packed_sequence "
                "makes of it, and the lengths"
            )
        if not isinstance(leaf, Tensor):
            continue
        parts = [str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind))) for key in path]
        if not parts or parts[0].isdecimal():
            parts.insert(0, "output")
        found.append((".".join(parts), leaf))
    return found
