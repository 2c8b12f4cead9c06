"""What Python code reads from traced tensors: their numbers, ``len``, ``tolist``, checks of values."""
