"""Finds out why a file differs: the first step and layer that do, and the likely causes."""
