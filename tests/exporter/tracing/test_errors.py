"""Errors of torch's tracer as sentences."""

from __future__ import annotations

from lstm_onnx.exporter.tracing.errors import unexplained


def test_an_operator_that_torch_cannot_trace() -> None:
    kind = type("UnsupportedOperatorException", (RuntimeError,), {})
    message = str(unexplained(kind("aten.dequantize.self")))
    assert message == "aten.dequantize.self is an operator that torch cannot trace; write it with others"
