"""Turns a module into a function of named inputs and states."""
