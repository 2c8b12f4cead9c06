"""Runs an exported file beside its module before it is kept: other shapes, both sides of size decisions, chunks."""
