"""Copies of a module and of what it holds, and what a call changes, put back."""
