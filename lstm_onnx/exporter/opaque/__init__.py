"""Recurrent modules as opaque operators, and packed sequences, while a module is traced."""
