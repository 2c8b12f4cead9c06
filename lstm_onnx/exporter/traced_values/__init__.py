"""What the user's Python code reads from traced tensors: values, ``len``, ``tolist``, checks, an ``if`` on a value."""

from pathlib import Path

FILES = [str(path) for path in Path(__file__).parent.glob("*.py")]
"""Its files, which stand between the user's code and torch in a trace."""
