"""A module made ready: a copy that runs as a function of named inputs and states.

The exporter traces it, and whoever compares a file with PyTorch runs it, in the module's own
precision or in float64.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ExportError, LSTMOnnxError
from .arguments import Arguments
from .attribute_states import ForwardFailed, Slot, Snapshot, Stateful, named_tensors, slots_of
from .clone import cloned, with_open_len
from .dtype_mode import DtypeMode
from .opaque_ops import Site, install
from .user_code import line_of

Tensors = dict[str, Tensor]


class FixedSizeError(ExportError):
    """A size came out fixed; other example sizes may not fix it.

    `axes` are those that did, by input and axis, where they are known.
    """

    def __init__(self, message: str, axes: Collection[tuple[str, int]] = ()) -> None:
        super().__init__(message)
        self.axes = frozenset(axes)


@dataclass(frozen=True)
class Prepared:
    """A module as a function.

    `stateful` is the copy; `sites` its recurrent modules by path; `outputs` the names of its
    results; `slots` the attributes in which it keeps state.  `native` is the dtype of the module that
    it was copied from, where the copy has another.
    """

    stateful: Stateful
    sites: dict[str, Site]
    arguments: Arguments
    outputs: tuple[str, ...]
    native: torch.dtype | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The attributes in which the module keeps state."""
        return self.stateful.slots

    @property
    def states(self) -> dict[str, str]:
        """Each attribute state's input and output."""
        return {name: after for slot in self.slots for name, after in zip(slot.names, slot.next_names, strict=True)}

    def run(self, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Call the module.

        Args:
            inputs: the tensors of `arguments`, of any sizes that the module takes.
            states: the attribute states by their inputs' names.

        Returns:
            The outputs by name, and the states after the call by their outputs' names.

        Raises:
            ExportError: the forward fails; the message has its own, and the line.
        """
        tensors, held = [inputs[name] for name in self.arguments.tensors], [states[name] for name in self.states]
        with quiet(self.dtype, self.native):
            results, after = called(lambda: self.stateful(tensors, held))
        return dict(zip(self.outputs, results, strict=True)), dict(zip(self.states.values(), after, strict=True))

    @property
    def dtype(self) -> torch.dtype:
        """The first recurrent module's."""
        first = next(iter(self.sites.values()))
        found: torch.dtype = getattr(torch, first.spec.dtype)
        return found


@contextlib.contextmanager
def quiet(dtype: torch.dtype, native: torch.dtype | None = None) -> Iterator[None]:
    """No gradients; and for a float64 copy new tensors of float64, as its code may make zeros of its own.

    With `native`, the dtype of the module that was converted, code that names it computes in `dtype`.
    """
    before = torch.get_default_dtype()
    if dtype == torch.float64:
        torch.set_default_dtype(dtype)
    try:
        with torch.no_grad(), contextlib.nullcontext() if native is None else DtypeMode(native, dtype):
            yield
    finally:
        torch.set_default_dtype(before)


def called(forward: Any) -> Any:
    """Call the user's code; whatever it raises becomes an error that shows the line."""
    try:
        return forward()
    except LSTMOnnxError:
        raise
    except Exception as error:
        raise _failure(error) from error


def _failure(error: BaseException) -> ExportError:
    if isinstance(error, ForwardFailed) and error.__cause__ is not None:
        error = error.__cause__
    line = line_of(error)
    at = f" at {line}" if line else ""
    if "Attempted to wrap RNN, GRU, or LSTM" in str(error):
        return ExportError(
            f"a recurrent module is called within torch.cond or another such operator{at}; compute both branches "
            "and choose with torch.where"
        )
    first = next((row.strip() for row in str(error).splitlines() if row.strip()), "")
    return ExportError(f"the module's forward fails{at}: {type(error).__name__}: {first}")


def prepare(
    module: nn.Module,
    arguments: Arguments,
    *,
    output_names: tuple[str, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> Prepared:
    """Copy a module, run it on its example inputs, and find the states that it keeps.

    Args:
        module: the module; it is not changed.
        arguments: what to call it with.
        output_names: names for its results, in order.
        dtype: convert the copy (and floating-point inputs) to it.

    Raises:
        ExportError: it has no recurrent module, fails on the example, gives something else each time,
            or keeps what is no tensor.
    """
    scripted = [path or type(module).__name__ for path, part in module.named_modules() if _is_script(part)]
    if scripted:
        raise ExportError(f"{scripted[0]} is a TorchScript module, which cannot be traced; use what it was made from")
    copy = cloned(module, dtype)
    with_open_len(copy)
    sites = install(copy)
    if not sites:
        raise ExportError(
            f"{type(module).__name__} holds no nn.LSTM, nn.GRU, nn.RNN or cell of them among its submodules; "
            "torch.onnx.export is for modules without"
        )
    native = None if dtype is None else _native_dtype(module, dtype)
    if dtype is not None:
        arguments = replace(arguments, tensors=_converted(arguments.tensors, dtype))

    def begin() -> None:
        for site in sites.values():
            site.begin()

    args, kwargs = arguments.call(arguments.tensors)
    first = Snapshot(copy)
    own_dtype = getattr(torch, next(iter(sites.values())).spec.dtype)
    with quiet(own_dtype, native):
        begin()
        result = named_tensors(called(lambda: copy(*args, **kwargs)))
        if not result:
            raise ExportError(f"{type(module).__name__}.forward returns no tensor")
        slots = slots_of(copy, first, first.changed(copy))
    names = _output_names([name for name, _ in result], output_names, arguments)
    order = list(arguments.tensors)
    stateful = Stateful(copy, slots, begin, lambda tensors: arguments.call(dict(zip(order, tensors, strict=True))))
    prepared = Prepared(stateful, sites, arguments, names, native)
    _check_repeats(prepared, [tensor for _, tensor in result])
    return prepared


def _native_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of the module's recurrent parameters, None where it is `dtype` already."""
    recurrent = (part for part in module.modules() if isinstance(part, (nn.RNNBase, nn.RNNCellBase)))
    found = next((item.dtype for part in recurrent for item in part.parameters()), torch.get_default_dtype())
    return None if found == dtype else found


def _is_script(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _converted(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _output_names(found: list[str], asked: tuple[str, ...] | None, arguments: Arguments) -> tuple[str, ...]:
    if asked is not None:
        if len(asked) != len(found) or len(set(asked)) != len(asked):
            raise ExportError(
                f"{len(asked)} output names were given ({', '.join(asked)}) for {len(found)} tensors "
                f"({', '.join(found)}); give a name of its own to each"
            )
        found = list(asked)
    # An input and an output of one name would be one value in ONNX.
    return tuple(f"{name}.out" if name in arguments.tensors else name for name in found)


def initial_states(prepared: Prepared) -> Tensors:
    """The attribute states that the module starts with; zeros where its attribute is empty at first."""
    states: Tensors = {}
    for slot in prepared.slots:
        tensors = slot.initial or tuple(torch.zeros_like(tensor) for tensor in slot.after)
        states |= dict(zip(slot.names, tensors, strict=True))
    return states


def _check_repeats(prepared: Prepared, first: list[Tensor]) -> None:
    """The same inputs and states must give the same outputs, and states from zeros what an empty attribute gave."""
    states = initial_states(prepared)
    inputs = prepared.arguments.tensors
    outputs, after = prepared.run(inputs, states)
    again, _ = prepared.run(inputs, states)
    for name, one in outputs.items():
        if not _close(one, again[name]):
            raise ExportError(
                f"the module gives another {name} each time it is called with the same inputs; a file cannot "
                "draw random numbers as it does (F.dropout needs training=self.training), nor see states that are kept "
                "in an object of one's own (keep a tensor or a tuple of tensors in an attribute)"
            )
    for (name, one), own in zip(outputs.items(), first, strict=True):
        if not _close(one, own):
            empty = ", ".join(slot.where for slot in prepared.slots if slot.initial is None)
            raise ExportError(
                f"with zeros in {empty or 'its attributes'} the module gives another {name} than at its first call, "
                "so its state cannot become an input of the file; pass the state as an argument of forward"
            )
    if states:
        prepared.run(inputs, dict(zip(states, after.values(), strict=True)))


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))


def example_sizes(prepared: Prepared) -> list[dict[str, int]]:
    """Sizes of the open axes to trace at, the second for when the first does not do, and a third.

    torch takes a 1 for a constant: no axis is 1, and in the second none comes down to 1 behind
    kernels and strides either.  In the third no two are alike, since a comparison of two that are ties
    them to each other.  All are within the limits asked.
    """
    own, within = prepared.arguments.sizes, prepared.arguments.within
    larger = itertools.count(2)
    first = {name: within(name, next(larger)) if size == 1 else size for name, size in own.items()}
    second = {name: within(name, 4 * size + 3) for name, size in first.items()}
    third: dict[str, int] = {}
    for name, size in second.items():
        third[name] = within(name, next(n for n in itertools.count(size) if n not in third.values()))
    return [sizes for index, sizes in enumerate((first, second, third)) if sizes not in (first, second, third)[:index]]


def resized(prepared: Prepared, sizes: Mapping[str, int]) -> tuple[Tensors, Tensors]:
    """The example inputs and initial states at other sizes.

    Raises:
        ExportError: the module does not run at them.
    """
    own = prepared.arguments.sizes
    states = initial_states(prepared)
    inputs = prepared.arguments.resized(sizes)
    changed = [(own[name], sizes[name]) for name in own if own[name] != sizes[name]]
    problem: ExportError | None = None
    # Which axis of a state is the batch is for the module to tell: it runs, or it does not.
    for axis, (old, new) in [(None, (0, 0)), *itertools.product((1, 0, 2), changed if states else ())]:
        wider = states if axis is None else {name: _widened(state, axis, old, new) for name, state in states.items()}
        try:
            prepared.run(inputs, wider)
        except ExportError as error:
            problem = problem or error
        else:
            return inputs, wider
    at = ", ".join(f"{name} {size}" for name, size in sizes.items())
    raise FixedSizeError(f"the module fails at {at}, so nothing shows that these axes are open: {problem}") from problem


def _widened(state: Tensor, axis: int, old: int, new: int) -> Tensor:
    if axis >= state.dim() or state.shape[axis] != old:
        return state
    return state.index_select(axis, torch.arange(new, device=state.device) % old)
