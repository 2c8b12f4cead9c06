"""The arguments of a forward: their arrangement, their names, and both as metadata."""
