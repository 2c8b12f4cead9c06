"""Verifies generating files against their step in a Python loop in PyTorch."""
