"""Refuses a forward whose outputs depend on the time, or that keeps something in a file of its own.

Its calls are alike while it is exported: nothing that the module holds has changed.  So the clocks that its code names
go on by a second, an hour and some decades, and the files that it opens are recorded.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import ExportError
from ..copies.caller_state import replaced
from ..copies.code_names import CodeNames, code_names
from ..user_code import stack_line

_CLOCKS = ("time", "monotonic", "perf_counter", "process_time")
_DATES = ("now", "today", "utcnow")
_OPENING = ("open", "read_text", "read_bytes")
_EMPTY, _WRITING = frozenset("wx"), frozenset("wxa+")
"""The letters in a mode of open with which a file is empty at first, or is written."""
_LATER = (1.0, 3600.5, 2.0**30)
"""By how many seconds clocks go on."""


def require_no_outside_reads(module: nn.Module, different: Callable[[], str | None]) -> None:
    """Refuse a module whose outputs depend on the time, or that reads files which it writes.

    Args:
        module: the copy that is run.
        different: runs it, and returns the first output that differs from that of its first call.

    Raises:
        ExportError: it is one.
    """
    names = code_names(module)
    if names.attributes & {*_CLOCKS, *(f"{name}_ns" for name in _CLOCKS), *_DATES}:
        for seconds in _LATER:
            with later(names, seconds):
                name = different()
            if name is not None:
                raise ExportError(
                    f"{name} depends on the time, which forward reads and a file cannot; pass the time as an argument "
                    "of forward"
                )
    if names.attributes.isdisjoint(_OPENING):
        return
    opened: list[tuple[str, set[str], str]] = []
    with _recorded(opened):
        different()
    written = {path for path, mode, _ in opened if mode & _WRITING}
    begun: set[str] = set()
    for path, mode, line in opened:
        if mode & _EMPTY:
            begun.add(path)  # what is read from now on is this call's own
        reads = mode.isdisjoint(_WRITING - {"+"}) or (mode >= {"a", "+"} and "seek" in names.attributes)
        if reads and path in written - begun:
            raise ExportError(
                f"{line}forward reads {Path(path).name}, which it writes for its next call, and a file cannot "
                "do so; keep a tensor or a tuple of tensors in an attribute of the module"
            )


class _InPlaceOfItsBase(type):
    """A metaclass of classes that stand in for their base for a while: a call makes an instance of the base."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An instance of the base."""
        return (cls.__base__ or object)(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__base__ or object)


@contextlib.contextmanager
def later(names: CodeNames, seconds: float) -> Iterator[None]:
    """A context in which the code's clocks have gone on, for this thread alone."""
    thread = threading.get_ident()

    def offset() -> dt.timedelta:
        return dt.timedelta(seconds=seconds * (threading.get_ident() == thread))

    def shifted(clock: Callable[[], Any], more: float) -> Callable[[], Any]:
        return lambda: clock() + more if threading.get_ident() == thread else clock()

    others: dict[int, Any] = {}
    with contextlib.ExitStack() as stack:
        for name in _CLOCKS:
            for clock, more in ((name, seconds), (f"{name}_ns", int(seconds * 1e9))):
                own = getattr(time, clock)
                others[id(own)] = shifted(own, more)
                stack.enter_context(replaced(time, clock, others[id(own)]))
        own_dates, own_days = dt.datetime, dt.date

        class Later(own_dates, metaclass=_InPlaceOfItsBase):  # type: ignore[misc, valid-type]
            now = classmethod(lambda _, tz=None: own_dates.now(tz) + offset())
            utcnow = classmethod(lambda _: own_dates.now(dt.UTC).replace(tzinfo=None) + offset())
            today = classmethod(lambda _: own_dates.now() + offset())

        class LaterDay(own_days, metaclass=_InPlaceOfItsBase):  # type: ignore[misc, valid-type]
            today = classmethod(lambda _: (own_dates.now() + offset()).date())

        others |= {id(own_dates): Later, id(own_days): LaterDay}
        stack.enter_context(replaced(dt, "datetime", Later))
        stack.enter_context(replaced(dt, "date", LaterDay))
        for table, used in names.tables.values():
            for name in used:
                if id(own := table[name]) in others:
                    table[name] = others[id(own)]
                    stack.callback(table.__setitem__, name, own)
        yield


@contextlib.contextmanager
def _recorded(opened: list[tuple[str, set[str], str]]) -> Iterator[None]:
    """A context that records which files are opened, in which mode, and where."""
    own, thread = builtins.open, threading.get_ident()

    def recorded(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        line = stack_line() if threading.get_ident() == thread else None
        if line is not None and isinstance(file, (str, bytes, os.PathLike)):
            opened.append((str(Path(os.fsdecode(file)).resolve()), set(mode), f"at {line}: "))
        return own(file, mode, *args, **kwargs)

    with replaced(builtins, "open", recorded), replaced(io, "open", recorded):
        yield
