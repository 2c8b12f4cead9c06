"""Names the tensors in a forward's arguments, and records how the arguments are nested."""
