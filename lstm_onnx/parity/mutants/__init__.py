"""Mutants: wrong copies of a file, with the mistakes that an exporter can make, which a verification must reject."""

from __future__ import annotations

from ...onnxgraph.recurrent import Port, RecurrentLayer
from .catalogue import MUTATORS, Mutator, changes_recurrence
from .equivalence import Outcome
from .graph_edit import Edit, known_shapes
from .self_test import LEVELS, Target, folder_of, mutated, opened, read_graph, require_level, self_test

__all__ = [
    "LEVELS",
    "MUTATORS",
    "Edit",
    "Mutator",
    "Outcome",
    "Port",
    "RecurrentLayer",
    "Target",
    "changes_recurrence",
    "folder_of",
    "known_shapes",
    "mutated",
    "opened",
    "read_graph",
    "require_level",
    "self_test",
]
