"""Mutated files through the command line: see `campaign`."""
