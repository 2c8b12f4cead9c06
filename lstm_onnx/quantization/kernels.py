"""The kernels of ONNX Runtime that an int8 file's products are computed by."""

from __future__ import annotations

from ..spec import INT8_KERNELS

MATMUL_INTEGER = "MatMulInteger"
"""ONNX's own operators: a scale for each row and each output feature; the default."""
DYNAMIC_QUANTIZE_LSTM = "DynamicQuantizeLSTM"
"""ONNX Runtime's int8 LSTM: a scale for the whole batch and each output feature."""
MATMUL_NBITS = "MatMulNBits"
"""ONNX Runtime's product by 8-bit weights: a scale for each block of a row and of an output feature."""
KERNELS = INT8_KERNELS
"""What `quantize(kernel=)` takes."""
CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
