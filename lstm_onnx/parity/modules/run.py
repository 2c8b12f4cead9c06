"""Runs a module with arrays by name, as its file is run.

In the model's precision PyTorch is made to round the way its float64 run does.  A module may round on the way: to
bfloat16, by ``round``, by a cast to integers or by a comparison.  Where a number lies at the edge between two
roundings, PyTorch's two precisions may be on different sides of it.  That is a whole unit of the rounding, which says
nothing of float32's error: as a bound it would allow a file without the rounding.  A right file may be on the other
side as well, which `jumps` finds out.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import ConfigError, ExportError
from ...exporter.call.arguments import Arguments
from ...exporter.functional.call_with_states import call_with_states
from ...exporter.functional.exact_results import as_compared
from ...exporter.functional.functional_module import FunctionalModule
from ...exporter.functional.make_functional import make_functional
from ...exporter.functional.operator_roundings import OperatorRoundings
from ...exporter.opaque.recurrent_module import RecurrentModule
from ...runtime import Model
from ..criterion import magnitude
from ..expected import Arrays
from ..own_states import with_own_states
from .inputs import forward_outputs

_CALLS = 3
"""After this many calls, states that begin with zeros hold other numbers."""


def runs_of(model: Model, module: nn.Module, found: Arguments) -> tuple[FunctionalModule, ModuleRun, ModuleRun]:
    """A module as a function of its inputs and states, and its runs in the native precision and in float64.

    The function has the module's own names of its outputs, the runs have the file's.

    Args:
        model: the file whose inputs and outputs the runs take and give.
        module: the module.
        found: arguments that its forward accepts.

    Raises:
        ConfigError: the file gives other outputs than the module.
        ExportError: the module fails on the arguments.
    """
    own = make_functional(module, found)
    names = _names_in_file(own.outputs, model)
    prepare = functools.partial(make_functional, module, found, output_names=names)
    float64 = prepare(dtype=torch.float64)
    native = prepare(dtype=torch.float32) if own.dtype == torch.float64 else replace(own, outputs=names)
    device = next(iter(found.tensors.values())).device
    return own, ModuleRun(native, model, device), ModuleRun(float64, model, device)


def _names_in_file(own: tuple[str, ...], model: Model) -> tuple[str, ...]:
    """What the file calls each of the module's outputs: the same if it has these names, else by their order.

    Raises:
        ConfigError: there are fewer outputs or more, or one has the name that the file gives to another.
    """
    names = forward_outputs(model)
    if set(own) == set(names):
        return own
    exchanged = any(one in own and one != other for one, other in zip(names, own, strict=False))
    if len(own) != len(names) or exchanged:
        raise ConfigError(
            f"{model.path}: returns {', '.join(names)}, and the module {', '.join(own)}; is the file this module's?"
        )
    return names


class ModuleRun:
    """A prepared module that takes the file's inputs and gives the file's outputs, as float64 arrays."""

    def __init__(self, prepared: FunctionalModule, model: Model, device: torch.device) -> None:
        self._prepared = prepared
        self._model = model
        self._metadata = with_own_states(model.metadata)
        self._device = device
        self.dtypes: dict[str, str] = {}
        """The dtypes of the last run's outputs."""
        self.roundings = Roundings(prepared.native or prepared.dtype)
        """The roundings inside the last run, such as to bfloat16."""
        self._rounds: bool | None = None
        self.left_out: dict[str, np.ndarray] = {}
        """The next values of attribute states that the file does not have, such as one that is never read."""

    @property
    def arguments(self) -> list[str]:
        """The names of forward's tensor arguments."""
        return list(self._prepared.arguments.tensors)

    @property
    def sites(self) -> Mapping[str, RecurrentModule]:
        """The recurrent modules that the forward calls, by path, with the calls of the last run."""
        return {path: item for path, item in self._prepared.recurrent_modules.items() if item.weights}

    @property
    def weights(self) -> int:
        """The number of elements of its parameters."""
        return sum(parameter.numel() for parameter in self._prepared.stateful.inner.parameters())

    @property
    def states(self) -> Mapping[str, str]:
        """The states that it keeps in attributes, and the outputs that update them."""
        return self._prepared.states

    @property
    def state_pairs(self) -> dict[str, str]:
        """All states and the outputs that update them; those in attributes as in the module, whatever the file says."""
        return {**self._metadata.states, **self.states}

    @property
    def largest_cell(self) -> float:
        """The largest finite |c| (or |h|) that a recurrent module of the last run was started from or gave."""
        calls = [call for site in self.sites.values() for call in site.calls]
        states = [state for call in calls for state in (*(call.initial or ()), *call.final)]
        return max((magnitude(_array(state)) for state in states), default=0.0)

    @property
    def has_finite_states(self) -> bool:
        """Whether all recurrent modules of the last run gave finite states alone."""
        calls = [call for site in self.sites.values() for call in site.calls]
        return all(bool(torch.isfinite(state).all()) for call in calls for state in call.final)

    def submodule(self, path: str) -> nn.Module:
        """The module at a path in the copy that is run."""
        return self._prepared.stateful.inner.get_submodule(path)

    def __call__(self, feeds: Arrays, as_in: Roundings | None = None) -> dict[str, np.ndarray]:
        """Run it on inputs and states by the file's names; absent states start as the module's code starts them.

        Args:
            feeds: the inputs and states.
            as_in: where two roundings are possible, numbers are rounded as in this run, such as that of the float64
                copy; integer outputs are the module's own.

        Raises:
            ExportError: it does not run on them.
        """
        if as_in is not None:
            own = self._run(feeds)
            if not as_in.found:
                return own
            same = self._run(feeds, Roundings(as_in.native, as_in))
            return {name: same[name] if array.dtype.kind == "f" else array for name, array in own.items()}
        if self._rounds is False:  # inspecting every operator takes long
            return self._run(feeds)
        self.roundings = Roundings(self.roundings.native)
        results = self._run(feeds, self.roundings)
        if self._rounds is None:
            self._rounds = bool(self.roundings.found)
        return results

    def with_rounded_operators(self, feeds: Arrays, unit: float, seed: int = 0) -> dict[str, np.ndarray]:
        """As a call, with every operator off by up to `unit` of what it adds up; see `operator_roundings`.

        Raises:
            ExportError: it does not run on them.
        """
        return self._run(feeds, OperatorRoundings(unit, seed, self.roundings.native))

    def decisions(self, feeds: Arrays, unit: float = 0.0, seed: int = 0) -> list[np.ndarray]:
        """What the comparisons and roundings to whole numbers give, with operators off as in `with_rounded_operators`.

        Raises:
            ExportError: it does not run on them.
        """
        decided = Roundings(self.roundings.native)
        self._run(feeds, *([OperatorRoundings(unit, seed, decided.native)] if unit else []), decided)
        return [_array(found.double()) for found in decided.found if found.dtype not in decided.narrow]

    def with_rounded_weights(self, feeds: Arrays, unit: float, seed: int = 0) -> dict[str, np.ndarray]:
        """As a call, with each number of its parameters off by up to `unit` of itself.

        Raises:
            ExportError: it does not run on them.
        """
        rng = torch.Generator().manual_seed(seed)
        parameters = list(self._prepared.stateful.inner.parameters())
        kept = [parameter.detach().clone() for parameter in parameters]
        try:
            with torch.no_grad():
                for parameter in parameters:
                    off = torch.rand(parameter.shape, generator=rng, dtype=torch.float64).mul_(2).sub_(1)
                    parameter.mul_(1 + unit * off.to(parameter))
            return self._run(feeds)
        finally:
            with torch.no_grad():
                for parameter, own in zip(parameters, kept, strict=True):
                    parameter.copy_(own)

    def operators(self, feeds: Arrays) -> int:
        """How many operators a call runs: many times the steps, where the module has a loop in Python.

        Raises:
            ExportError: it does not run on them.
        """
        counter = _Counter()
        self._run(feeds, counter)
        return counter.count

    def _run(self, feeds: Arrays, *modes: TorchDispatchMode) -> dict[str, np.ndarray]:
        tensors = {name: self._tensor(array) for name, array in feeds.items()}
        # A state that is an argument of forward is an input to PyTorch.
        inputs = {name: tensors.pop(name) for name in self.arguments if name in tensors}
        states = {**self._start(inputs), **tensors}
        with contextlib.ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            outputs = call_with_states(self._prepared, self._metadata, inputs, states, left_out=True)
        names = {after for name, after in self.states.items() if name not in self._metadata.states}
        self.left_out = {name: _array(outputs.pop(name)) for name in names}
        self.dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in outputs.items()}
        return {name: _array(tensor) for name, tensor in outputs.items()}

    def with_possible_states(self, feeds: Arrays) -> Arrays:
        """The feeds, with the attribute states after a few calls if the module can never have those that are given.

        For example, a running variance is never below 0, and a negative one has no square root.
        """
        if self.states.keys().isdisjoint(feeds) or self._is_finite(feeds):
            return feeds
        given = {name: array for name, array in feeds.items() if name not in self.states}
        states: dict[str, np.ndarray] = {}
        for _ in range(_CALLS):
            with contextlib.suppress(ExportError):
                outputs = self._run({**given, **states})
                states = {name: outputs[after] for name, after in self.states.items() if after in outputs}
        found = {name: states[name].astype(array.dtype) if name in states else array for name, array in feeds.items()}
        return found if self._is_finite(found) else feeds

    def _is_finite(self, feeds: Arrays) -> bool:
        """Whether all results are, as far as it runs."""
        with contextlib.suppress(ExportError):
            return all(np.isfinite(array).all() for array in self._run(feeds).values())
        return True

    def with_rounded_layers(
        self, feeds: Arrays, unit: float, seed: int = 0, as_in: Roundings | None = None
    ) -> dict[str, np.ndarray]:
        """As a call, but the results of each recurrent module are off by up to `unit`.

        A saturated gate is 0 in one implementation and 1e-17 in another; where the module divides by the norm of such
        numbers, its outputs have nothing in common.

        Raises:
            ExportError: it does not run on them.
        """
        rng = torch.Generator().manual_seed(seed)

        def rounded(value: Any) -> Any:
            if isinstance(value, PackedSequence):
                return value._replace(data=rounded(value.data))
            if isinstance(value, tuple):
                return tuple(map(rounded, value))
            off = torch.rand(value.shape, generator=rng, dtype=torch.float64).mul_(2).sub_(1)
            return value + unit * off.to(value)

        handles = [
            self.submodule(path).register_forward_hook(lambda _module, _args, result: rounded(result))
            for path in self.sites
        ]
        try:
            return self(feeds, as_in)
        finally:
            for handle in handles:
                handle.remove()

    def _start(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The initial values of attribute states; the module itself starts those that are its arguments."""
        metadata = self._metadata
        sizes = {
            dim: inputs[spec.name].shape[axis]
            for spec in metadata.inputs
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str) and spec.name in inputs
        }
        start = {}
        for name in metadata.states:
            if name not in inputs and name not in metadata.origins:
                info = self._model.inputs[name]
                shape = tuple(info.smallest_shape(sizes))
                initial = metadata.initial.get(name)
                given = np.zeros((), info.dtype) if initial is None else initial
                try:
                    array = np.broadcast_to(given, shape)
                except ValueError:  # what an earlier call left in an attribute has the batch size of that call
                    raise ExportError(f"its {name} starts as {given.shape}, not {shape}") from None
                start[name] = self._tensor(array.copy())
        return start

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.asarray(array)).to(self._device)  # a state may have no axes
        return tensor.to(self._prepared.dtype) if tensor.is_floating_point() else tensor


def _array(tensor: Tensor) -> Any:
    array = tensor.detach().cpu()
    return array.double().numpy() if array.is_floating_point() else array.numpy()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`."""
        self.count += 1
        return func(*args, **(kwargs or {}))


_NARROW = (torch.float16, torch.bfloat16)
_WHOLE = ("round", "floor", "ceil", "trunc", "sign", "floor_divide")
"""Operators of aten whose results are whole numbers."""


class Roundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, what operators round to is kept in `found`, or is as it was in another run of the same module.

    Args:
        native: the module's own dtype, to which every number is rounded.
        as_in: the other run; a result that is the next one to its result, up or down, is replaced by that.
    """

    def __init__(self, native: torch.dtype, as_in: Roundings | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.native = native
        self.found: list[Tensor] = []
        self.narrow = [dtype for dtype in _NARROW if dtype != native]
        self._others: Iterator[Tensor] | None = None if as_in is None else iter(as_in.found)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`; what it rounds is recorded or replaced."""
        args = as_compared(func.overloadpacket.__name__, args, self.native)
        result = func(*args, **(kwargs or {}))
        unit = self._unit(func, args, kwargs or {}, result)
        if unit is None:
            return result
        if self._others is None:
            self.found.append(result.detach().clone())
            return result
        other = next(self._others, None)
        if other is None or (other.shape, other.dtype.is_floating_point) != (
            result.shape,
            result.dtype.is_floating_point,
        ):
            return result
        other = other.to(result)
        return torch.where(unit(result, other), other, result)

    def _unit(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Whether two results of an operator are next to each other; None of one that does not round."""
        if not (isinstance(result, Tensor) and args and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            return None
        name = func.overloadpacket.__name__
        if result.dtype == torch.bool:
            return torch.ne
        if name == "_to_copy" and result.dtype in self.narrow:
            limits = torch.finfo(result.dtype)
            return lambda one, other: torch.isclose(one, other, limits.eps, limits.eps * limits.tiny)
        if name in _WHOLE or (name == "_to_copy" and not result.is_floating_point()):
            unit = 10.0 ** -kwargs.get("decimals", 0)
            return lambda one, other: torch.isclose(one.double(), other.double(), 0, 1.001 * unit)
        return None
