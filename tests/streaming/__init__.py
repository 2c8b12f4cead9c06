"""The time axis followed through graphs."""
