"""Generating files beside PyTorch."""
