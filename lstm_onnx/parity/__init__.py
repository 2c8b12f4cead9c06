"""Parity: does a file give what PyTorch gives, in units of PyTorch's own rounding error?

Reports and golden files work without torch.
"""
