"""A file is run beside its module before it is kept: other shapes, both sides of each size decision, chunks."""
