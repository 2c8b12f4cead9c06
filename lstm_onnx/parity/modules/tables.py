"""Compares the rows of tables that no case looks up.

Where a module computes the index, as `embedding(x // 7)` does, it is not known which inputs reach a row.  But most rows
of a table show where a file stores it: there, the others must be the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from ..expected import Arrays, Expected
from ..mutants.self_test import folder_of
from ..results import CaseResult
from ..tolerances import EPSILON, K
from .inputs import lookups
from .sizes import differing_rows
from .subject import Subject

TABLES = "rows that no case looks up"
"""The label of the case on these rows."""


def table_problems(subject: Subject, cases: Sequence[Expected]) -> Iterator[CaseResult]:
    """A failure for each table that has other rows in the file, if no case looks them up.

    Args:
        subject: the file and its module.
        cases: those of the subject.
    """
    run = subject.models.float64
    swept = [rows.table for rows in subject.rows.values()]
    inner = run.submodule("")
    own = {tensor.data_ptr(): name for name, tensor in (*inner.named_parameters(), *inner.named_buffers())}
    feeds = next((case.calls[0].feeds for case in cases if case.kind == "whole"), None)
    found = [] if feeds is None else lookups(run, feeds) or []
    # A table that is computed, such as one with a row set to zero, is not as it is stored.
    tables = {own.get(one.table.data_ptr()): one.table for one in found if one.table is not None}
    for name, table in tables.items():
        if name is None or any(table is one for one in swept):
            continue
        differing = _differing(subject, table)
        for case in cases if differing else ():
            for call in case.calls:
                differing -= _looked_up(subject, call.feeds, table)
        if differing:
            rows = f"{len(differing)} of {len(table)} rows of {name} differ from the module's, such as {min(differing)}"
            yield CaseResult(TABLES, error=f"{rows}, and no case looks them up", kind="stored")


def _differing(subject: Subject, table: Tensor) -> set[int]:
    """The rows that differ in the file; none where it stores the table in another form."""
    array = table.detach().cpu().numpy().astype(subject.dtype)
    least = K * EPSILON[subject.dtype] * float(np.abs(array).max(initial=0.0))
    rows = differing_rows(subject.graph, folder_of(subject.model), array, least)
    return set() if rows is None or 2 * len(rows) > len(array) else set(rows.tolist())


def _looked_up(subject: Subject, feeds: Arrays, table: Tensor) -> set[int]:
    found = lookups(subject.models.float64, feeds) or ()
    return {
        row
        for one in found
        if one.table is not None and one.table.data_ptr() == table.data_ptr()
        for row in np.unique(one.rows % one.count).tolist()
    }
