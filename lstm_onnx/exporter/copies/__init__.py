"""Copies a module and what it holds, and undoes what a call changes."""
