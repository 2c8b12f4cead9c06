"""Wrong copies of a file: the mistakes that an exporter can make, to see whether a verification rejects them."""

from __future__ import annotations

from .catalogue import MUTATORS, Mutator
from .graph import Edit, Site
from .selftest import LEVELS, mutants_of, require_level, self_test

__all__ = ["LEVELS", "MUTATORS", "Edit", "Mutator", "Site", "mutants_of", "require_level", "self_test"]
