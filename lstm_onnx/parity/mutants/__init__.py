"""Wrong copies of a file: the mistakes that an exporter can make, to see whether a verification rejects them."""

from __future__ import annotations

from .catalogue import MUTATORS, Mutator
from .copies import folder_of, opened, read_graph
from .graph_edit import Edit, Site, known_shapes
from .outcome import Outcome
from .self_test import LEVELS, Subject, mutated, require_level, self_test

__all__ = [
    "LEVELS",
    "MUTATORS",
    "Edit",
    "Mutator",
    "Outcome",
    "Site",
    "Subject",
    "folder_of",
    "known_shapes",
    "mutated",
    "opened",
    "read_graph",
    "require_level",
    "self_test",
]
