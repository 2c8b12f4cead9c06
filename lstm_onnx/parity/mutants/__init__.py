"""Mutants: wrong copies of a file, with the mistakes that an exporter can make, which a verification must reject."""
