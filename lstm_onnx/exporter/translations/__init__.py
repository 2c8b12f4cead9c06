"""Translations of operators that replace those of `torch.onnx`: sizes and positions as PyTorch computes them."""
