"""Engines other than ONNX Runtime."""
