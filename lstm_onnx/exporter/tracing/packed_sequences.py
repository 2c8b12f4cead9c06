"""Packed sequences while a module is traced: the padded tensor and its lengths, carried along.

ONNX's operator takes lengths beside a padded tensor, so nothing is packed: `Padded` poses as the
PackedSequence between pack_padded_sequence and pad_packed_sequence.  The user's code may have
imported these two functions by name, so it is their code that is exchanged, for the thread that
traces and for the time of the trace alone.
"""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import is_concrete_int
from torch.nn.utils import rnn as torch_rnn
from torch.nn.utils.rnn import PackedSequence

from ...errors import ExportError
from .user_code import user_line

_tracing_thread: int | None = None
_originals: dict[str, Callable[..., Any]] = {}


class Padded(PackedSequence):
    """What stands for a PackedSequence in a trace.

    value ``(batch, time, features)`` if `batch_first`, else ``(time, batch, features)``; lengths
    ``(batch,)``; `clean` says that the padding is zeros already, as a recurrent operator leaves it.
    """

    value: Tensor
    lengths: Tensor
    batch_first: bool
    clean: bool

    def __new__(cls, value: Tensor, lengths: Tensor, batch_first: bool, *, clean: bool) -> Padded:
        """A namedtuple underneath, whose fields are hidden by properties that refuse."""
        self: Padded = tuple.__new__(cls, (None, None, None, None))
        self.value, self.lengths, self.batch_first, self.clean = value, lengths, batch_first, clean
        return self

    def with_value(self, value: Tensor) -> Padded:
        """The output of a recurrent module that was given this one."""
        return Padded(value, self.lengths, self.batch_first, clean=True)

    # These four are torch's documented fields, and what reads them must fail.

    @property
    def data(self) -> NoReturn:
        """Refused."""
        raise _refusal("data")

    @property
    def batch_sizes(self) -> NoReturn:
        """Refused."""
        raise _refusal("batch_sizes")

    @property
    def sorted_indices(self) -> NoReturn:
        """Refused."""
        raise _refusal("sorted_indices")

    @property
    def unsorted_indices(self) -> NoReturn:
        """Refused."""
        raise _refusal("unsorted_indices")

    def __getitem__(self, index: Any) -> NoReturn:
        """Refused."""
        raise _refusal(f"[{index}]")

    def __iter__(self) -> NoReturn:
        """Refused."""
        raise _refusal("unpacking")

    def to(self, *args: Any, **kwargs: Any) -> Padded:
        """As tensors do."""
        return Padded(self.value.to(*args, **kwargs), self.lengths, self.batch_first, clean=self.clean)

    def cuda(self, *args: Any, **kwargs: Any) -> Padded:
        """As tensors do."""
        return Padded(self.value.cuda(*args, **kwargs), self.lengths, self.batch_first, clean=self.clean)

    def cpu(self, *args: Any, **kwargs: Any) -> Padded:
        """As tensors do."""
        return Padded(self.value.cpu(*args, **kwargs), self.lengths, self.batch_first, clean=self.clean)

    def __repr__(self) -> str:
        """Not a tuple's."""
        return f"Padded({tuple(self.value.shape)})"


def _refusal(what: str) -> ExportError:
    return ExportError(
        f"{user_line()}: a packed sequence's {what} has no form in ONNX, where sequences stay padded; "
        "call pad_packed_sequence first and work on the padded tensor"
    )


@contextlib.contextmanager
def padded_instead() -> Iterator[None]:
    """Exchange torch's packing functions for this thread; every other thread goes on with torch's own.

    Callers hold the lock that lets one trace run at a time.
    """
    global _tracing_thread
    replaced = {
        torch_rnn.pack_padded_sequence: _pack_padded_sequence,
        torch_rnn.pad_packed_sequence: _pad_packed_sequence,
        torch_rnn.pack_sequence: _pack_sequence,
        torch_rnn.unpack_sequence: _unpack_sequence,
    }
    codes = {function: function.__code__ for function in replaced}
    for function in replaced:
        _originals[function.__name__] = _copied(function)
    _tracing_thread = threading.get_ident()
    try:
        for function, ours in replaced.items():
            function.__code__ = ours.__code__
        yield
    finally:
        for function, code in codes.items():
            function.__code__ = code
        _tracing_thread = None


def _copied(function: Any) -> Callable[..., Any]:
    """The function as it was, for the other threads."""
    copy: Callable[..., Any] = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


# The four below lend their code to torch's functions, so they see torch's globals and import what they need.


def _pack_padded_sequence(input: Any, lengths: Any, batch_first: Any = False, enforce_sorted: Any = True) -> Any:
    from lstm_onnx.exporter.tracing.packed_sequences import dispatch

    return dispatch("pack_padded_sequence", input, lengths, batch_first, enforce_sorted)


def _pad_packed_sequence(
    sequence: Any, batch_first: Any = False, padding_value: Any = 0.0, total_length: Any = None
) -> Any:
    from lstm_onnx.exporter.tracing.packed_sequences import dispatch

    return dispatch("pad_packed_sequence", sequence, batch_first, padding_value, total_length)


def _pack_sequence(sequences: Any, enforce_sorted: Any = True) -> Any:
    from lstm_onnx.exporter.tracing.packed_sequences import dispatch

    return dispatch("pack_sequence", sequences, enforce_sorted)


def _unpack_sequence(packed_sequences: Any) -> Any:
    from lstm_onnx.exporter.tracing.packed_sequences import dispatch

    return dispatch("unpack_sequence", packed_sequences)


def dispatch(name: str, *args: Any) -> Any:
    """torch's function `name` for other threads, ours for the one that traces."""
    if threading.get_ident() != _tracing_thread:
        return _originals[name](*args)
    if name == "pack_padded_sequence":
        return pack(*args)
    if name == "pad_packed_sequence":
        return pad(*args)
    raise ExportError(
        f"{user_line()}: {name} makes tensors of sizes that are data, which have no form in ONNX; "
        "take a padded tensor and its lengths as inputs, and use pack_padded_sequence"
    )


def pack(input: Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> Padded:  # noqa: ARG001
    """pack_padded_sequence: nothing moves, and sorting is the operator's business no more."""
    if not isinstance(lengths, Tensor):
        raise ExportError(
            f"{user_line()}: lengths is a {type(lengths).__name__}, which would be baked into the file; "
            "pass the tensor of lengths itself, an input of the module, without tolist()"
        )
    if lengths.shape[0] != input.shape[0 if batch_first else 1]:
        raise ExportError(f"{user_line()}: there are not as many lengths as sequences")
    return Padded(input, lengths, batch_first, clean=False)


def pad(sequence: Any, batch_first: bool, padding_value: float, total_length: Any) -> tuple[Tensor, Tensor]:
    """pad_packed_sequence: trimmed to the longest sequence, or of `total_length` steps."""
    if not isinstance(sequence, Padded):
        raise ExportError(f"{user_line()}: pad_packed_sequence was given a {type(sequence).__name__}")
    value, lengths = sequence.value, sequence.lengths
    axis = 1 if sequence.batch_first else 0
    time = value.shape[axis]
    if not sequence.clean or padding_value != 0.0:
        steps = torch.arange(time, device=value.device)
        column = lengths.to(value.device)
        valid = steps.unsqueeze(0) < column.unsqueeze(1) if axis == 1 else steps.unsqueeze(1) < column.unsqueeze(0)
        value = torch.where(valid.unsqueeze(2), value, torch.full((), padding_value, dtype=value.dtype))
    if total_length is None:
        longest: Any = lengths.max().item()  # a symbol, while it is traced
        check: Any = torch._check
        check(longest >= 1)
        check(longest <= time)
        value = value.narrow(axis, 0, longest)
    else:
        value = _of_length(value, axis, total_length, padding_value)
    if batch_first != sequence.batch_first:
        value = value.transpose(0, 1)
    # int64, as torch gives them; and a copy, since an output that is an input itself would lose its name.
    return value, lengths.clone() if lengths.dtype == torch.int64 else lengths.to(torch.int64)


def _of_length(value: Tensor, axis: int, total_length: Any, padding_value: float) -> Tensor:
    extra = total_length - value.shape[axis]
    constant = int(extra) if is_concrete_int(extra) else None
    if constant == 0:
        return value
    if constant is None or constant > 0:
        # Whether there is too much or too little may differ from run to run: add enough, then cut.
        added = total_length if constant is None else constant
        shape = [value.shape[0], value.shape[1], value.shape[2]]
        shape[axis] = added
        value = torch.cat([value, value.new_full(shape, padding_value)], dim=axis)
    return value.narrow(axis, 0, total_length)
