"""A module as a function of named inputs and states."""
