"""Where int8 is slower than float32: hidden sizes up to which a layer's nodes cost more than its bytes.

Measured with ``python -m tests.benchmarks.int8``; the measurements are in the page ``int8``.
"""

from __future__ import annotations

from collections.abc import Iterable

from .recurrent import Layer

SLOWER_UP_TO = {
    "LSTM": 256,  # one step 1.18, 100 steps 1.01 of float32's time at 256; 0.55 and 0.51 at 512
    "GRU": 256,  # 0.65 and 0.69 at 512; 1.2 and 1.3 at 256
    "RNN": 256,  # 0.96 and 0.60 at 512
}
"""By operator, the largest hidden size at which float32 is as fast or faster, for one sequence on one thread."""


def slower_layers(layers: Iterable[Layer]) -> tuple[str, ...]:
    """A note on the layers that are as fast or faster in float32; none where there are none."""
    slower = [layer for layer in layers if layer.hidden_size <= SLOWER_UP_TO[layer.op_type]]
    if not slower:
        return ()
    names = ", ".join(layer.name for layer in slower)
    largest = max(SLOWER_UP_TO[layer.op_type] for layer in slower)
    text = f"{names}: as fast or faster in float32, as layers are up to a hidden size of about {largest}"
    return (f"{text}; lstm-onnx bench FILE measures it here",)
