"""Packed sequences while a module is traced: the padded tensor and its lengths, carried along.

ONNX's operators take a padded tensor and its lengths, so nothing is packed: a `PaddedSequence` takes the
place of the PackedSequence between pack_padded_sequence and pad_packed_sequence.  The user's code may
have imported these functions by name, so their code objects are replaced, only while a trace runs and
only for its thread.
"""

from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false, is_concrete_int
from torch.nn.utils import rnn as torch_rnn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.weak import WeakIdKeyDictionary

from ...errors import ExportError
from ..copies.caller_state import replaced
from ..copies.rebuilt_code import rebuilt_function
from ..traced_values.cut_sequences import padded
from ..traced_values.each_number import EachNumber, TracedArray, only_each
from ..user_code import user_line

_tracing_thread: int | None = None
_originals: dict[str, Callable[..., Any]] = {}


class PaddedSequence(PackedSequence):
    """A padded tensor and its lengths, which stand for a PackedSequence.

    Attributes:
        value: ``(batch, time, ...)`` if `batch_first`, else ``(time, batch, ...)``.
        lengths: ``(batch,)``, integers.
        batch_first: the layout of `value`.
        zero_padded: whether the padding is zeros, as in the output of a recurrent operator.
        sort: whether torch would sort the sequences by their lengths.
    """

    value: Tensor
    lengths: Tensor
    batch_first: bool
    zero_padded: bool
    sort: bool
    _found_rows: _Rows | None
    _own_data: Tensor | None
    _versions: list[tuple[Tensor, int, str]]

    def __new__(
        cls, value: Tensor, lengths: Tensor, batch_first: bool, *, zero_padded: bool, sort: bool = False
    ) -> PaddedSequence:
        """Make the namedtuple underneath, whose fields are hidden by properties."""
        self: PaddedSequence = tuple.__new__(cls, (None, None, None, None))
        self.value, self.lengths, self.batch_first, self.zero_padded = value, lengths, batch_first, zero_padded
        self.sort = sort
        self._found_rows, self._own_data = None, None
        self._versions = []
        self._note(value, "the tensor")
        self._note(lengths, "the lengths")
        return self

    def _note(self, tensor: Tensor, what: str) -> None:
        self._versions.append((tensor, _version(tensor), what))

    def require_unwritten(self) -> None:
        """Refuse a tensor that was written in place since: torch has packed a copy, and its data are other memory.

        Raises:
            ExportError: there is one.
        """
        for tensor, version, what in self._versions:
            if _version(tensor) != version:
                raise ExportError(
                    f"{user_line()}: {what} of a packed sequence {'was' if what == 'the tensor' else 'were'} written "
                    "in place before this use of the sequence; write into a copy, x = x.clone(), and give a packed "
                    "sequence other data by packed._replace(data=data)"
                )

    def with_value(self, value: Tensor, *, zero_padded: bool = True) -> PaddedSequence:
        """The same sequences with other values, such as the output of a recurrent module."""
        other = PaddedSequence(value, self.lengths, self.batch_first, zero_padded=zero_padded, sort=self.sort)
        other._found_rows = self._found_rows
        return other

    # torch's documented fields, computed as torch computes them.

    def _rows(self) -> _Rows:
        self.require_unwritten()
        if self._found_rows is None:
            steps = self.value.shape[1 if self.batch_first else 0]
            self._found_rows = _packed_rows(steps, self.lengths, sort=self.sort)
        return self._found_rows

    @property
    def data(self) -> Tensor:
        """The valid steps, ``(steps, ...)``: the first of each sequence, the second of each, and so on."""
        if self._own_data is None:
            rows, value = self._rows(), self.value if self.batch_first else self.value.transpose(0, 1)
            self._own_data = value[rows.sequence, rows.step]
            self._note(self._own_data, "the data")
        return self._own_data

    @property
    def batch_sizes(self) -> Tensor:
        """For each step, how many sequences have it."""
        sizes = self._rows().batch_sizes
        _sources[sizes] = self
        return sizes

    @property
    def sorted_indices(self) -> Tensor | None:
        """The sequences in order, the longest first; None where the user's code sorted them."""
        return self._rows().order if self.sort else None

    @property
    def unsorted_indices(self) -> Tensor | None:
        """The position of each sequence in that order."""
        return self._rows().order.argsort() if self.sort else None

    def __getitem__(self, index: Any) -> Any:
        """As of a tuple."""
        return self._fields_now()[index]

    def __iter__(self) -> Any:
        """As of a tuple."""
        return iter(self._fields_now())

    def _fields_now(self) -> tuple[Any, ...]:
        return self.data, self.batch_sizes, self.sorted_indices, self.unsorted_indices

    def _replace(self, **fields: Any) -> PaddedSequence:
        """As of a namedtuple.

        Raises:
            ExportError: something else than `data` is replaced.
        """
        if set(fields) != {"data"}:
            raise ExportError(f"{user_line()}: of a packed sequence only data can be replaced, as the lengths stay")
        return self.with_data(fields["data"])

    def with_data(self, data: Tensor) -> PaddedSequence:
        """The same sequences with other numbers, ``(steps, ...)``: other features, or one number for each step."""
        rows = self._rows()
        time = self.value.shape[1 if self.batch_first else 0]
        value = data.new_zeros((self.lengths.shape[0], time, *data.shape[1:]))
        value = value.index_put((rows.sequence, rows.step), data)
        if not self.batch_first:
            value = value.transpose(0, 1)
        other = self.with_value(value)
        other._own_data = data
        other._note(data, "the data")
        return other

    def in_order(self) -> PaddedSequence:
        """The sequences in the order of `sorted_indices`."""
        order = self._rows().order
        value = self.value.index_select(0 if self.batch_first else 1, order)
        return PaddedSequence(value, self.lengths[order], self.batch_first, zero_padded=self.zero_padded)

    def to(self, *args: Any, **kwargs: Any) -> PaddedSequence:
        """As of a tensor."""
        return self.with_value(self.value.to(*args, **kwargs), zero_padded=self.zero_padded)

    def cuda(self, *args: Any, **kwargs: Any) -> PaddedSequence:
        """As of a tensor."""
        return self.with_value(self.value.cuda(*args, **kwargs), zero_padded=self.zero_padded)

    def cpu(self, *args: Any, **kwargs: Any) -> PaddedSequence:
        """As of a tensor."""
        return self.with_value(self.value.cpu(*args, **kwargs), zero_padded=self.zero_padded)

    def __repr__(self) -> str:
        """Instead of the tuple's."""
        return f"PaddedSequence({tuple(self.value.shape)})"


@dataclass(frozen=True)
class _Rows:
    """The origin of each step of a packed sequence.

    Attributes:
        order: the sequences, the longest first.
        sequence: of each step.
        step: its number in its sequence.
        batch_sizes: how many sequences have a step, for each.
    """

    order: Tensor
    sequence: Tensor
    step: Tensor
    batch_sizes: Tensor


def _packed_rows(steps: Any, lengths: Tensor, *, sort: bool) -> _Rows:
    lengths = lengths.to(torch.int64)
    order = torch.sort(lengths, descending=True)[1] if sort else torch.arange(lengths.shape[0])
    valid = torch.arange(steps).unsqueeze(1) < lengths[order].unsqueeze(0)
    places = valid.nonzero()
    check: Any = torch._check
    check(places.shape[0] >= 1)  # each sequence has a step; batch norm asks
    counts = valid.sum(1)
    return _Rows(order, order[places[:, 1]], places[:, 0], counts.narrow(0, 0, _longest(lengths, steps)))


_sources: Any = WeakIdKeyDictionary()
"""By batch_sizes, the packed sequence whose data the user's code may put into a new one."""


def as_padded(sequence: PackedSequence) -> PaddedSequence | None:
    """A packed sequence as a padded one; None if its batch_sizes are not from a sequence that was packed here."""
    if isinstance(sequence, PaddedSequence):
        sequence.require_unwritten()
        return sequence
    source = _sources.get(sequence.batch_sizes) if isinstance(sequence.batch_sizes, Tensor) else None
    if source is None:
        return None
    other: PaddedSequence = source.with_data(sequence.data)
    return other.in_order() if source.sort and sequence.sorted_indices is None else other


@contextlib.contextmanager
def replace_packing_functions() -> Iterator[None]:
    """Replace torch's packing functions for this thread; other threads still call torch's own.

    The caller must hold `caller_state.ONE_AT_A_TIME`.
    """
    global _tracing_thread
    functions = [getattr(torch_rnn, name) for name in (*_REPLACEMENTS, "unpack_sequence")]
    _originals.update({function.__name__: rebuilt_function(function) for function in functions})
    _tracing_thread = threading.get_ident()
    try:
        with contextlib.ExitStack() as stack:
            for function in functions:
                code = _dispatching.__code__.replace(co_name=function.__name__)
                stack.enter_context(replaced(function, "__code__", code))
            yield
    finally:
        _tracing_thread = None


def _dispatching(*args: Any, **kwargs: Any) -> Any:
    # torch's functions get this code, with their names and torch's globals, so it imports what it needs.
    import sys

    from lstm_onnx.exporter.opaque.packed_sequences import dispatch

    return dispatch(sys._getframe().f_code.co_name, *args, **kwargs)


def dispatch(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call torch's function `name`, or in the tracing thread its replacement.

    Raises:
        ExportError: the function has no form in ONNX.
    """
    if threading.get_ident() != _tracing_thread:
        return _originals[name](*args, **kwargs)
    if name in _REPLACEMENTS:
        return _REPLACEMENTS[name](*args, **kwargs)
    raise _refusal(name)


def _refusal(name: str) -> ExportError:
    return ExportError(
        f"{user_line()}: {name} makes tensors whose sizes depend on the lengths, which has no form in ONNX; "
        "take a padded tensor and its lengths as inputs, and use pack_padded_sequence"
    )


def pack(input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> PaddedSequence:
    """pack_padded_sequence, without packing or sorting.

    Raises:
        ExportError: the lengths are not a tensor, or not one for each sequence.
    """
    lengths = _as_tensor(lengths)
    if not isinstance(lengths, Tensor):
        raise ExportError(
            f"{user_line()}: lengths is a {type(lengths).__name__}, which would be baked into the file; "
            "pass the tensor of lengths itself, an input of the module, without tolist()"
        )
    sequences = input.shape[0 if batch_first else 1]
    if guard_or_false(lengths.shape[0] != sequences):
        raise ExportError(f"{user_line()}: there are not as many lengths as sequences")
    check: Any = torch._check
    check(lengths.shape[0] == sequences)  # both may be numbers of packed steps, of two sequences packed alike
    return PaddedSequence(input, lengths, batch_first, zero_padded=False, sort=not enforce_sorted)


def _as_tensor(lengths: Any) -> Any:
    """Lengths as a tensor: from a list or an array of a traced tensor's numbers, or from floats, which torch takes."""
    each = only_each(lengths)
    if each is not None:
        lengths = each.tensor
    elif isinstance(lengths, TracedArray):
        lengths = lengths.tensor
    elif isinstance(lengths, (list, tuple)) and any(isinstance(item, (torch.SymInt, Tensor)) for item in lengths):
        lengths = torch.stack([torch.as_tensor(item) for item in lengths])
    return lengths.to(torch.int64) if isinstance(lengths, Tensor) and lengths.is_floating_point() else lengths


def pad(
    sequence: Any, batch_first: bool = False, padding_value: float = 0.0, total_length: Any = None
) -> tuple[Tensor, Tensor]:
    """pad_packed_sequence: the padded tensor, cut to the longest sequence or of `total_length` steps, and the lengths.

    Raises:
        ExportError: the sequence was not made by `pack`.
    """
    found = as_padded(sequence) if isinstance(sequence, PackedSequence) else None
    if found is None:
        raise ExportError(f"{user_line()}: pad_packed_sequence gets a {type(sequence).__name__}")
    sequence = found
    value, lengths = sequence.value, sequence.lengths
    axis = 1 if sequence.batch_first else 0
    time = value.shape[axis]
    if not sequence.zero_padded or padding_value != 0.0:
        steps = torch.arange(time, device=value.device)
        column = lengths.to(value.device)
        valid = steps.unsqueeze(0) < column.unsqueeze(1) if axis == 1 else steps.unsqueeze(1) < column.unsqueeze(0)
        valid = valid.reshape(*valid.shape, *[1] * (value.dim() - 2))
        value = torch.where(valid, value, torch.full((), padding_value, dtype=value.dtype))
    if total_length is None:
        value = value.narrow(axis, 0, _longest(lengths, time))
    else:
        if isinstance(total_length, Tensor):
            total_length = total_length.item()
        elif isinstance(total_length, EachNumber):
            operator.index(total_length)  # an error: it stands for all rows' numbers
        value = _of_length(value, axis, total_length, padding_value)
    if batch_first != sequence.batch_first:
        value = value.transpose(0, 1)
    # int64, as in torch; and a clone, since an output that is an input would lose its name.
    return value, lengths.clone() if lengths.dtype == torch.int64 else lengths.to(torch.int64)


def _version(tensor: Tensor) -> int:
    """How often a tensor's memory was written in place; torch counts it for all views together."""
    return 0 if tensor.is_inference() else tensor._version


def _longest(lengths: Tensor, time: Any) -> Any:
    longest: Any = lengths.max().item()  # a symbol in a trace
    check: Any = torch._check
    check(longest >= 1)
    check(longest <= time)
    return longest


def _of_length(value: Tensor, axis: int, total_length: Any, padding_value: float) -> Tensor:
    extra = total_length - value.shape[axis]
    constant = int(extra) if is_concrete_int(extra) else None
    if constant == 0:
        return value
    if constant is None or constant > 0:
        # The number of steps to add or remove may differ from run to run: add enough, then cut.
        added = total_length if constant is None else constant
        shape = list(value.shape)
        shape[axis] = added
        value = torch.cat([value, value.new_full(shape, padding_value)], dim=axis)
    return value.narrow(axis, 0, total_length)


def _pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Any:
    found = padded(sequences, padding_value, padding_side)
    if found is None:
        return _originals["pad_sequence"](sequences, batch_first, padding_value, padding_side)
    return found[0] if batch_first else found[0].transpose(0, 1)


def _pack_sequence(sequences: Any, enforce_sorted: bool = True) -> PaddedSequence:
    found = padded(sequences)
    if found is None:
        raise _refusal("pack_sequence")
    return pack(*found, True, enforce_sorted)


def _unpad(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """unpad_sequence, by slices, which a loop over the rows may have."""
    if not batch_first:
        padded_sequences.transpose_(0, 1)
    return [row[:length] for row, length in zip(padded_sequences, lengths, strict=False)]


_REPLACEMENTS: dict[str, Callable[..., Any]] = {
    "pack_padded_sequence": pack,
    "pad_packed_sequence": pad,
    "unpad_sequence": _unpad,
    "pad_sequence": _pad_sequence,
    "pack_sequence": _pack_sequence,
}
