"""The process of an engine that has a Python package: it opens and runs files on request."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ...errors import reason
from ...isolation.child import resolved
from ...isolation.limits import prepare
from .frames import read_message, write_message

_MOST_TEXT = 500
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""A file that is open: inputs by name to outputs by name.  Any exception is a run that failed."""


class Adapter(Protocol):
    """An engine; made with the number of threads, or None for its default."""

    version: str
    """Of the engine."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        """A file, open.

        Args:
            path: the file.
            outputs: the names of its outputs, in their order.
            fixed: open it anew for the sizes of each run, for an engine that can be told them; others ignore it.

        Any exception is a file that cannot be opened.
        """
        ...

    def reason(self, error: Exception) -> str:
        """The part of the engine's message that says what is wrong."""
        ...


def serve(parent: int, adapter_name: str, threads: int) -> None:
    """Answer the requests on stdin until it is closed.

    Args:
        parent: the process that it ends with.
        adapter_name: ``module:class`` of the engine's `Adapter`.
        threads: of the engine; 0 for its default.
    """
    prepare(parent)
    answers = os.fdopen(os.dup(1), "wb")
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        adapter: Adapter = resolved(adapter_name)(threads or None)
    except Exception as error:  # noqa: BLE001 - a package that is missing or broken
        write_message(answers, {"error": reason(error)}, {})
        return
    write_message(answers, {"version": adapter.version}, {})
    files: dict[int, Run] = {}
    while (message := read_message(requests)) is not None:
        fields, arrays = message
        for number in fields["forget"]:
            files.pop(number, None)
        try:
            if "path" in fields:
                files[fields["file"]] = adapter.open(fields["path"], fields["outputs"], fixed=fields["fixed"])
                write_message(answers, {}, {})
            else:
                write_message(answers, {}, files[fields["file"]](arrays))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is an answer
            write_message(answers, {"error": " ".join(adapter.reason(error).split())[:_MOST_TEXT]}, {})
