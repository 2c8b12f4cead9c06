"""What Python code reads from traced tensors: their numbers, ``len``, ``tolist``, checks of values."""

from pathlib import Path

FILES = [str(path) for path in Path(__file__).parent.glob("*.py")]
"""Its files, which stand between the user's code and torch in a trace."""
