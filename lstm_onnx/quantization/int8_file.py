"""From a float32 file to an int8 one that is proven."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..atomic_io import require_apart, require_writable
from ..errors import ConfigError, ModelError, shown
from ..onnxgraph import load_inlined
from ..onnxgraph.write import write_model
from ..terminal_text import one_line
from .proof import ROUNDINGS, Proof, prove
from .rewrite import quantize_model

LAYERS = ("all", "recurrent")


@dataclass(frozen=True)
class QuantizeResult:
    """What `quantize` wrote.

    Attributes:
        path: the int8 file.
        source: the float32 file.
        num_bytes: the size of all files that were written.
        source_bytes: the size of the float32 weights and their model.
        quantized: the names of the nodes that are int8 now.
        kept: recurrent nodes that stay float32, and why.
        proof: how it was compared with what int8 arithmetic gives, and with the float32 file.
    """

    path: str
    source: str
    num_bytes: int
    source_bytes: int
    quantized: tuple[str, ...]
    kept: dict[str, str]
    proof: Proof

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """What was written, how it was proven, and what it costs, for people."""
        share = self.num_bytes / self.source_bytes
        lines = [f"{one_line(self.path)}: {self.num_bytes:,} bytes, {share:.0%} of {one_line(self.source)}"]
        nodes = "1 layer" if len(self.quantized) == 1 else f"{len(self.quantized)} layers"
        lines.append(
            f"int8: {nodes}, {self.proof.compared} compared with float64: largest error "
            f"{self.proof.ratio:.2g} roundings, {ROUNDINGS} are allowed"
        )
        lines += [f"not compared: {one_line(name)}, in the body of an If or a Loop" for name in self.proof.not_compared]
        lines += [f"float32: {one_line(name)}: {one_line(reason)}" for name, reason in self.kept.items()]
        lines += [
            f"{one_line(name)}: differs from float32's by {difference:.2%} (root mean square, on drawn inputs)"
            for name, difference in self.proof.differences.items()
        ]
        return "\n".join(lines)


def quantize(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    layers: str = "all",
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> QuantizeResult:
    """Write an int8 file of a float32 file, of this package or of any other, and prove it.

    Its inputs, outputs, states and metadata are those of the float32 file.  Weights have 7 bits and a scale for each
    output feature, what they are multiplied by 8 bits and a scale for each row and step, computed as the file runs.
    So no sequence's result depends on the others in its batch, on padding, or on how it is cut into chunks; and no
    CPU's instructions saturate.  A NaN or an infinity makes the results that depend on it NaN.

    Before the file is kept, every int8 layer is compared, on inputs that the file had, with what that arithmetic
    gives in float64; see `proof`.

    Args:
        source: the float32 file.
        path: the file to write.
        layers: "all" are LSTM, GRU, RNN, Linear (MatMul, Gemm) and Embedding (Gather) layers; "recurrent" leaves
            the last two as they are.
        inputs: numpy arrays by input name for the proof; by default they are drawn.
        seed: of the inputs and states that are drawn.

    Raises:
        ConfigError: `layers` is not possible; `path` is `source`.
        FileError: a file cannot be read or written.
        ModelError: the file is not an ONNX model, is not float32, has nothing to quantise, or is int8 already; or
            the int8 file does not compute what it must, and is not kept.
        InputError: inputs cannot be drawn, or `inputs` do not fit.
    """
    if layers not in LAYERS:
        raise ConfigError(f"layers = {shown(layers)} is not possible", hint='it must be "all" or "recurrent"')
    require_writable(path)
    require_apart([os.fspath(path)], [os.fspath(source)])
    done = quantize_model(load_inlined(source), source, layers=layers)
    if not done.quantized:
        reasons = "; ".join(f"{name}: {why}" for name, why in done.kept.items())
        raise ModelError(f"{source}: has no layer to quantise{f' ({reasons})' if reasons else ''}")
    proof = prove(done, source, inputs=inputs, seed=seed)
    _, written = write_model(done.model, done.initializers, path)
    return QuantizeResult(
        os.fspath(path), os.fspath(source), written, done.source_bytes, done.quantized, dict(done.kept), proof
    )
