"""Names the kernels of ONNX Runtime that compute the products of an int8 file."""

from __future__ import annotations

from ..spec import INT8_KERNELS

MATMUL_INTEGER = "MatMulInteger"
"""ONNX's own operators: a scale for each row and each output feature; the default."""
DYNAMIC_QUANTIZE_LSTM = "DynamicQuantizeLSTM"
"""ONNX Runtime's int8 LSTM: a scale for the whole batch and each output feature."""
MATMUL_NBITS = "MatMulNBits"
"""ONNX Runtime's product by 8-bit weights: a scale for each block of a row and of an output feature."""
MATMUL_NBITS_256 = "MatMulNBits-256"
"""The same with blocks of up to 256 features instead of 64."""
BLOCK_SIZES = {MATMUL_NBITS: 64, MATMUL_NBITS_256: 256}
"""By kernel, the most input features that share a scale, of 4 bytes per block.

At 128 and more, ONNX Runtime adds up a row in another order alone than in a batch."""
SAME_BITS_ALONE = (MATMUL_INTEGER, MATMUL_NBITS)
"""The kernels whose results have the same bits for a row alone and in a batch."""
KERNELS = INT8_KERNELS
"""The values of `quantize(kernel=)`."""
CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
