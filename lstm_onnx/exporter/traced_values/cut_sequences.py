"""Sequences that the user's code cuts at traced lengths: ``torch.split(x, lengths.tolist())``, ``y[i, :n]``.

Their sizes depend on the lengths, which a list of tensors in a graph cannot have.  What puts the sequences side by side
again computes with the whole tensor and all lengths.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils.weak import WeakIdKeyDictionary

from ...errors import ExportError
from ..user_code import user_line
from .number_index import is_taken

_cuts: Any = WeakIdKeyDictionary()
"""By a row that was cut at a traced length: the whole row, as a tensor and an index, and the length."""
_check: Any = torch._check
_CONCATENATIONS = ("cat", "concat", "concatenate")


class SplitSequences(tuple[Tensor, ...]):
    """The parts of a tensor along its first axis, one after the other; their number is not fixed.

    Attributes:
        flat: all of them, ``(steps, ...)``.
        lengths: of each, ``(batch,)``.
    """

    flat: Tensor
    lengths: Tensor

    def __new__(cls, flat: Tensor, lengths: Tensor) -> SplitSequences:
        """Make the tuple underneath, which has no items."""
        self = super().__new__(cls)
        self.flat, self.lengths = flat, lengths
        return self

    def padded(self, padding_value: float) -> Tensor:
        """The sequences side by side, ``(batch, time, ...)``."""
        steps: Any = self.flat.shape[0]
        longest = _longest(self.lengths, steps)
        places = _valid(longest, self.lengths).nonzero()
        _check(places.shape[0] == steps)
        value = self.flat.new_full((self.lengths.shape[0], longest, *self.flat.shape[1:]), padding_value)
        return value.index_put((places[:, 0], places[:, 1]), self.flat)

    def _refuse(self, *_: Any) -> NoReturn:
        raise ExportError(
            f"at {user_line()}: the code takes the parts that torch.split made at traced lengths one by one, and their "
            "number and sizes have no form in ONNX; put them side by side with pad_sequence, and use a mask"
        )

    __iter__ = __len__ = __getitem__ = __add__ = __contains__ = __reversed__ = _refuse


def note_cut(cut: Any, tensor: Tensor, index: Any) -> None:
    """Remember what a row, such as ``y[i, :n]``, is a part of, if its first axis ends at a traced length."""
    items = index if type(index) is tuple else (index,)
    place = next((place for place, item in enumerate(items) if type(item) is slice), None)
    views = all(item is None or item is ... or type(item) in (int, slice) for item in items)
    if place is None or not views or any(type(item) is not int for item in items[:place]):
        return
    item = items[place]
    if item.start in (None, 0) and item.step in (None, 1) and is_taken(item.stop):
        _cuts[cut] = tensor, (*items[:place], slice(None), *items[place + 1 :]), item.stop


def padded(sequences: Any, padding_value: float = 0.0, padding_side: str = "right") -> tuple[Tensor, Tensor] | None:
    """Sequences of traced lengths side by side, ``(batch, time, ...)``, and their lengths; None for any others.

    Raises:
        ExportError: they would be padded on the left.
    """
    found = None if isinstance(sequences, SplitSequences) else _whole_rows(sequences)
    if padding_side != "right" and (found is not None or isinstance(sequences, SplitSequences)):
        raise ExportError(f"at {user_line()}: sequences of traced lengths can be padded only on the right")
    if isinstance(sequences, SplitSequences):
        return sequences.padded(padding_value), sequences.lengths
    if found is None:
        return None
    value, lengths = found
    steps: Any = value.shape[1]
    valid = _valid(steps, lengths).reshape(*value.shape[:2], *[1] * (value.dim() - 2))
    value = torch.where(valid, value, torch.full((), padding_value, dtype=value.dtype))
    return value.narrow(1, 0, _longest(lengths, steps)), lengths


def concatenated(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor | None:
    """What ``torch.cat`` makes of rows that were cut at traced lengths; None for other functions and tensors."""
    dims = (*args[1:], *kwargs.values())
    if func.__name__ not in _CONCATENATIONS or not args or kwargs.keys() - {"dim", "axis"} or dims not in ((), (0,)):
        return None
    found = _whole_rows(args[0])
    return None if found is None else found[0][_valid(found[0].shape[1], found[1])]


def _whole_rows(sequences: Any) -> tuple[Tensor, Tensor] | None:
    """The rows that were cut, ``(batch, time, ...)``, and how many steps each has; None for other sequences."""
    if type(sequences) not in (list, tuple) or not all(isinstance(sequence, Tensor) for sequence in sequences):
        return None
    cuts = [_cuts.get(sequence) for sequence in sequences]
    if not cuts or None in cuts:
        return None
    whole = [tensor[index] for tensor, index, _ in cuts]
    if any(row.dim() != whole[0].dim() or not _alike(row.shape, whole[0].shape) for row in whole):
        return None
    rows = torch.stack(whole)
    steps: Any = rows.shape[1]
    ends = torch.stack([torch.scalar_tensor(end, dtype=torch.int64) for *_, end in cuts])
    return rows, torch.where(ends < 0, ends + steps, ends).clamp(0, steps)


def _alike(one: Any, other: Any) -> bool:
    return all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))


def _valid(steps: Any, lengths: Tensor) -> Tensor:
    return torch.arange(steps).unsqueeze(0) < lengths.unsqueeze(1)


def _longest(lengths: Tensor, steps: Any) -> Any:
    longest: Any = lengths.max().item()
    _check(longest >= 0)
    _check(longest <= steps)
    return longest
