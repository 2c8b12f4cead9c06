"""Says where int8 is slower than float32: up to which hidden size a layer's nodes cost more than its weights save.

Medians of pairs in one run of both files, one thread, input_size = hidden_size, ONNX Runtime 1.31.1, on an AMD EPYC
with AVX512-VNNI; sequences by MatMulInteger on an Intel Xeon with AMX.  A machine without VNNI needs larger layers.
"""

from __future__ import annotations

from collections.abc import Iterable

from .kernels import DYNAMIC_QUANTIZE_LSTM, MATMUL_INTEGER, MATMUL_NBITS, MATMUL_NBITS_256
from .recurrent import Layer

SLOWER_UP_TO = {
    (MATMUL_INTEGER, "LSTM"): (256, 256),  # 1.10 of float32's time at 256, 0.89 at 320; 1.27 at 256, 0.87 at 320
    (MATMUL_INTEGER, "GRU"): (320, 320),  # 1.05 at 320, 0.88 at 384; 1.10 at 320, 0.70 at 384
    (MATMUL_INTEGER, "RNN"): (384, 320),  # 1.28 at 384, 0.95 at 512; 1.10 at 320, 0.91 at 384
    (DYNAMIC_QUANTIZE_LSTM, "LSTM"): (192, 0),  # 1.20 at 192, 0.98 at 256; 0.88 at 64, 0.59 at 128: it has no Scan
    (MATMUL_NBITS, "LSTM"): (192, 192),  # 1.09 at 192, 0.89 at 256; 1.32 at 192, 0.95 at 256
    (MATMUL_NBITS, "GRU"): (256, 256),  # 1.00 at 256, 0.86 at 320; 1.14 at 256, 0.92 at 320
    (MATMUL_NBITS, "RNN"): (320, 192),  # 1.12 at 320, 0.96 at 384; 1.32 at 192, 0.97 at 256
    (MATMUL_NBITS_256, "LSTM"): (192, 192),  # 1.09 at 192, 0.85 at 256; 1.31 at 192, 0.79 at 256
    (MATMUL_NBITS_256, "GRU"): (256, 256),  # 1.14 at 256, 0.84 at 320; 1.04 at 256, 0.83 at 320
    (MATMUL_NBITS_256, "RNN"): (320, 192),  # 1.10 at 320; 1.24 at 192, 0.88 at 256
}
"""By kernel and operator, the largest hidden sizes at which float32 is as fast or faster: for one step of one sequence,
and for 100 steps of one sequence, which run in a Scan."""


def slower_layers(layers: Iterable[Layer]) -> tuple[str, ...]:
    """Notes on the layers that are as fast or faster in float32, step by step and in sequences; none for others."""
    limited = [(layer, SLOWER_UP_TO[layer.kernel, layer.op_type]) for layer in layers]
    notes = []
    for way, what in enumerate(("one step at a time", "whole sequences, one at a time")):
        slower = [(layer.name, limits[way]) for layer, limits in limited if layer.hidden_size <= limits[way]]
        if slower:
            names, largest = ", ".join(name for name, _ in slower), max(limit for _, limit in slower)
            text = f"{names}: float32 is as fast or faster for {what}, as it is up to a hidden size of about {largest}"
            notes.append(f"{text}; lstm-onnx bench SOURCE --hidden-sizes times both here")
    return tuple(notes)
