"""States that a module keeps in its attributes, such as ``self.hidden``.

Such a module gives different outputs when it is called again, and a trace would record the attribute's
value as a constant.  The attributes that a forward changes are found by running it, and `StatefulModule`
makes them arguments and results, so that a call is a function of only its inputs and states.
"""

from __future__ import annotations

import collections
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ExportError, InputError, LSTMOnnxError
from ..copies.kept_values import KeptValues
from ..copies.object_parts import attributes_of
from ..node_names import state_names
from .results import named_tensors

_INTERNAL = frozenset(vars(nn.Module())) | {
    *("_lstm_onnx_recurrent", "_flat_weights", "_flat_weight_refs", "_flat_weights_names", "_is_full_backward_hook"),
}


Key = tuple[str, tuple[Any, ...], bool]
"""Identifies an attribute: the submodule's path, the keys that lead from there to it, and whether it is a buffer."""
_SEQUENCES = (list, tuple, collections.deque)
_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))
_UNNAMED = "a tensor or array of the module"
_DEEPEST = 4
"""The most keys from a module to an object that may hold states."""


def state_name(key: Key) -> str:
    """The attribute as the user writes it after ``self.``: ``encoder.caches.0.frames``."""
    path, keys, _ = key
    return ".".join(filter(None, (path, *map(str, keys))))


@dataclass(frozen=True)
class AttributeState:
    """An attribute (or buffer) that the forward changes.

    Attributes:
        key: the submodule's path, the keys that lead from there to it, and whether it is a registered buffer.
        tree: the pytree structure of its value.
        input_names: the graph's input for each of its tensors.
        output_names: the graph's output with the next value of each.
        initial: its tensors before the first call; None where it held no tensors of this structure.
        after: its tensors after the first call.
        is_read: whether outputs depend on it in later calls.
    """

    key: Key
    tree: pytree.TreeSpec
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    initial: tuple[Tensor, ...] | None
    after: tuple[Tensor, ...]
    is_read: bool = True

    @property
    def attribute(self) -> Any:
        """Its name in the submodule, or in the object of the user's class, that holds it."""
        return self.key[1][-1]

    @property
    def where(self) -> str:
        """The attribute as the user writes it, such as ``self.encoder.hidden``."""
        return f"self.{state_name(self.key)}"

    def table(self, copy: nn.Module) -> dict[str, Any]:
        """The dict that holds the value; Module.__setattr__ might move the value to another dict."""
        path, (*owners, _), is_buffer = self.key
        owner: Any = copy.get_submodule(path)
        if is_buffer:
            buffers: dict[str, Any] = owner._buffers
            return buffers
        for key in owners:
            owner = owner[key] if isinstance(owner, (dict, *_SEQUENCES)) else attributes_of(owner)[key]
        return attributes_of(owner)

    def tensors(self, copy: nn.Module) -> list[Tensor] | None:
        """Its current tensors; None where its structure has changed, or it holds anything but tensors."""
        leaves, tree = pytree.tree_flatten(self.table(copy).get(self.attribute))
        return leaves if tree == self.tree and _are_tensors(leaves) else None

    def read(self, copy: nn.Module) -> list[Tensor]:
        """Its current tensors.

        Raises:
            ExportError: its structure has changed, or it holds anything but tensors.
        """
        tensors = self.tensors(copy)
        if tensors is None:
            raise ExportError(
                f"{self.where} does not hold tensors in the same structure in every call; keep a "
                "tensor or a tuple of tensors in it, or pass the state as an argument of forward and return it"
            )
        return tensors

    def write(self, copy: nn.Module, tensors: Sequence[Tensor]) -> None:
        """Replace its tensors."""
        self.table(copy)[self.attribute] = pytree.tree_unflatten(list(tensors), self.tree)


class AttributeSnapshot:
    """The value of every attribute of a module, compared by identity and, for tensors, by version."""

    def __init__(self, copy: nn.Module) -> None:
        # With copies, since a forward may write into a tensor or replace the items of a list.
        self.held = {
            key: (value, _versions(value), pytree.tree_map_only(Tensor, _copied, value))
            for key, value in _attributes(copy)
        }

    def changed(self, copy: nn.Module) -> tuple[AttributeState, ...]:
        """Every attribute that a call of `copy` has changed since, and that holds only tensors."""
        states = []
        for key, value in _attributes(copy):
            before, versions, content = self.held.get(key, (None, None, None))
            leaves, tree = pytree.tree_flatten(value)
            if not leaves or not _are_tensors(leaves):
                continue
            if value is before and _versions(value) == versions and _same_numbers(value, content):
                continue
            old, old_tree = pytree.tree_flatten(content)
            initial = tuple(old) if old_tree == tree and _are_tensors(old) else None
            names = state_names(state_name(key), len(leaves))
            states.append(AttributeState(key, tree, *names, initial, tuple(map(_copied, leaves))))
        return tuple(states)


def _same_numbers(value: Any, content: Any) -> bool:
    """Whether tensors still hold the same values: a write through ``.data`` does not change a tensor's version."""
    pairs = zip(pytree.tree_leaves(value), pytree.tree_leaves(content), strict=True)
    return all(are_equal(now, then) for now, then in pairs if isinstance(now, Tensor) and now.layout == torch.strided)


def are_equal(now: Tensor, then: Tensor) -> bool:
    """Whether a tensor has the same values, shape and dtype as before."""
    if now.is_quantized or now.is_meta or now.shape != then.shape or now.dtype != then.dtype:
        return now.shape == then.shape
    return bool(((now == then) | ((now != now) & (then != then))).all())


def name_of(copy: nn.Module, tensor: Tensor) -> str:
    """The attribute that holds a tensor, as the user writes it, or "a tensor or array of the module"."""
    for key, value in _attributes(copy):
        if any(leaf is tensor for leaf in pytree.tree_leaves(value)):
            return f"self.{state_name(key)}"
    return next((f"self.{name}" for name, own in copy.named_parameters() if own is tensor), _UNNAMED)


def _are_tensors(leaves: Sequence[Any]) -> bool:
    return all(isinstance(leaf, Tensor) for leaf in leaves)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _attributes(copy: nn.Module) -> Iterator[tuple[Key, Any]]:
    for path, owners, owner in owners_of(copy):
        is_module = isinstance(owner, nn.Module)
        for name, value in attributes_of(owner).items():
            if not (is_module and name in _INTERNAL) and not _is_data(value) and not _holds_itself(value):
                yield (path, (*owners, name), False), value
        for name, value in owner._buffers.items() if isinstance(owner, nn.Module) else ():
            if value is not None:
                yield (path, (name,), True), value


def owners_of(copy: nn.Module) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """The objects that may hold states: each submodule by its path, and each object of another class in its attributes.

    Such an object may be an item of a list or a dict.  Each object comes once, with the keys that lead to it.
    """
    seen: set[int] = set()
    for path, module in copy.named_modules():
        yield path, (), module
        attributes = vars(module).items()
        todo: list[tuple[tuple[Any, ...], Any]] = [
            ((name,), value) for name, value in attributes if name not in _INTERNAL
        ]
        for keys, value in todo:
            if id(value) in seen or len(keys) > _DEEPEST or _is_data(value):
                continue
            if isinstance(value, dict):
                inside = list(dict.items(value))
            elif isinstance(value, _SEQUENCES):
                inside = list(enumerate(value))
            elif _is_object(value):
                yield path, keys, value
                inside = list(attributes_of(value).items())
            else:
                continue
            seen.add(id(value))
            todo += [((*keys, key), item) for key, item in inside]


def _is_data(value: Any) -> bool:
    """Whether it is a container of only numbers and text, such as a vocabulary: it is no state, and slow to search."""
    if isinstance(value, dict):
        return bool(value) and _PLAIN.issuperset(map(type, dict.values(value)))
    return isinstance(value, _SEQUENCES) and bool(value) and _PLAIN.issuperset(map(type, value))


def _is_object(value: Any) -> bool:
    """Whether it is an object of a Python class, other than PyTorch's, that may hold a module's state."""
    if isinstance(value, (nn.Module, Tensor, type, types.ModuleType)) or hasattr(type(value), "__get__"):
        return False
    return bool(attributes_of(value)) and not type(value).__module__.startswith(("torch.", "numpy."))


def _holds_itself(value: Any) -> bool:
    """Whether a container contains itself; a pytree cannot, and so nor can a state."""
    try:
        pytree.tree_structure(value)
    except RecursionError:
        return True
    return False


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 in inference mode, which does not count writes."""
    return 0 if tensor.is_inference() else int(tensor._version)


def _versions(value: Any) -> Any:
    """The identities and versions of a value's leaves, which differ after a change in place."""
    leaves, tree = pytree.tree_flatten(value)
    return tree, [(id(leaf), version_of(leaf)) if isinstance(leaf, Tensor) else id(leaf) for leaf in leaves]


def initial_tensors(states: Sequence[AttributeState]) -> dict[str, Tensor]:
    """The attribute states before the first call; zeros where an attribute holds no tensors yet."""
    found: dict[str, Tensor] = {}
    for state in states:
        tensors = state.initial or tuple(torch.zeros_like(tensor) for tensor in state.after)
        found |= dict(zip(state.input_names, tensors, strict=True))
    return found


class OtherShapeError(ExportError):
    """A state's shape after a call differs from that before it."""


def require_kept_shapes(
    states: Sequence[AttributeState], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> None:
    """Require that each attribute state that is read keeps its shape in a call.

    Args:
        states: the states.
        before: their values before the call, by their inputs' names.
        after: those after the call, by their outputs' names.

    Raises:
        OtherShapeError: one has a different shape.
    """
    for state in states:
        for name, result in zip(state.input_names, state.output_names, strict=True):
            old, new = tuple(before[name].shape), tuple(after[result].shape)
            if state.is_read and old != new:
                raise OtherShapeError(
                    f"{state.where} has shape {old} before a call and {new} after it, but a state must keep its "
                    f"shape from call to call; start with a full window (of zeros), and cut it to as many steps as "
                    "it had"
                )


class ForwardFailed(Exception):  # noqa: N818 - its cause is the error
    """Wraps an error of the user's forward (its cause), so that torch's tracer does not print a graph with it."""


def forward_error(error: BaseException) -> BaseException:
    """The error of the user's forward, unwrapped from `ForwardFailed`."""
    return error.__cause__ if isinstance(error, ForwardFailed) and error.__cause__ is not None else error


class StatefulModule(nn.Module):
    """A module as a function of tensors, with its attribute states as arguments and results.

    Args:
        inner: the module.
        attribute_states: the attributes in which it keeps state.
        kept: everything else that its code may write into; restored after each forward.
        reset_calls: called before each forward.
        call_arguments: returns the tensors as arguments of the forward: ``(args, kwargs)``.
    """

    def __init__(
        self,
        inner: nn.Module,
        attribute_states: tuple[AttributeState, ...],
        kept: KeptValues,
        reset_calls: Callable[[], None],
        call_arguments: Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]],
    ) -> None:
        super().__init__()
        self.inner, self.attribute_states, self.kept = inner, attribute_states, kept
        self.reset_calls, self.call_arguments = reset_calls, call_arguments
        self.number_problem: str | None = None
        """Why the module's number states must be tensors in a trace; None if it has none."""
        self.branched = False
        """Whether a trace has computed both branches of an ``if`` on a value, one of which may never have run."""

    def forward(self, tensors: list[Tensor], states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of the module's own result, and the states after the call; its attributes are restored.

        Raises:
            ForwardFailed: the module's own forward raised an error.
            ExportError: its result or its attributes are of other kinds than before.
        """
        self.reset_calls()
        args, kwargs = self.call_arguments(tensors)
        rest = list(states)
        with self.kept.restored():
            for state in self.attribute_states:
                count = state.tree.num_leaves
                # Clones, since the forward may write into them, and an input must not change.
                state.write(self.inner, [tensor.clone() for tensor in rest[:count]])
                rest = rest[count:]
            try:
                result = self.inner(*args, **kwargs)
            except Exception as error:
                if isinstance(error, LSTMOnnxError) and not isinstance(error, InputError):
                    raise
                raise ForwardFailed(str(error)) from error
            after = [tensor for state in self.attribute_states for tensor in state.read(self.inner)]
        # Clones, since an output must not be the same value as an input.
        return [tensor for _, tensor in named_tensors(result)], [tensor.clone() for tensor in after]
