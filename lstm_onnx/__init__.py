"""PyTorch LSTMs in production through ONNX: export, check, run and verify."""

__version__ = "0.1.0"
