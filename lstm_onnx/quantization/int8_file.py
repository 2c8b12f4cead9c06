"""`quantize`: converts a float32 file to int8, and proves the result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from onnx import helper

from ..atomic_io import require_apart
from ..errors import ConfigError, ModelError, ProviderError
from ..metadata import Metadata
from ..onnxgraph import load_inlined
from ..onnxgraph.load import entries_of, metadata_of, read_sparse
from ..onnxgraph.nodes import REPAIR_FIRST, has_loops
from ..onnxgraph.write import require_model_path, write_model
from ..runtime import load
from ..runtime.arguments import LARGEST_SEED, integer
from ..runtime.trial import require_drawable
from ..runtime.unchanged import of_one_file
from ..spec import INT8_LAYERS
from ..terminal_text import one_line
from .kernels import KERNELS, MATMUL_INTEGER
from .operators import LEAST_WEIGHTS
from .proof import ROUNDINGS, Proof, prove
from .rewrite import Rewritten, quantize_model
from .speed import slower_layers

_HARDLY_SMALLER = 0.95
"""An int8 file with at least this share of the float32 file's bytes gets a note."""


@dataclass(frozen=True)
class QuantizeResult:
    """What `quantize` wrote.

    Attributes:
        path: the int8 file.
        source: the float32 file.
        num_bytes: the total size of the files that were written.
        source_bytes: the size of the float32 weights and their model.
        quantized: the names of the nodes that are int8 now.
        kept: nodes that stay float32, and why: recurrent ones, those whose sums may overflow, and those in bodies that
            could not be compared.
        proof: how it was compared with an emulation of int8 arithmetic, and with the float32 file.
        nodes: the number of the graph's nodes, without those in bodies.
        external_data: the file beside `path` that holds weights over 2 GB, or None.
        slower: notes on layers that are faster in float32, see `speed`.
    """

    path: str
    source: str
    num_bytes: int
    source_bytes: int
    quantized: tuple[str, ...]
    kept: dict[str, str]
    proof: Proof
    nodes: int = 0
    external_data: str | None = None
    slower: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What stays float32 and why, how far the outputs are from float32's, and where int8 gains nothing."""
        kept = [f"{name} stays float32: {reason}" for name, reason in self.kept.items()]
        inputs = "your data" if self.proof.on_data else "random inputs"
        drift = [
            f"{name} differs from float32's by {difference:.2%} (root mean square, on {inputs})"
            for name, difference in self.proof.differences.items()
        ]
        resized = [
            f"{name} has a different shape than in float32 on {inputs}: its size depends on the numbers"
            for name in self.proof.other_shapes
        ]
        size = []
        if self.num_bytes > _HARDLY_SMALLER * self.source_bytes:
            change = "larger" if self.num_bytes > self.source_bytes else "hardly smaller"
            size = [f"the file is {change} than float32's: its int8 nodes and scales outweigh what its weights save"]
        return (*kept, *drift, *resized, *size, *self.slower)

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """What was written, how it was proven, and what it costs, as text."""
        share = self.num_bytes / self.source_bytes
        lines = [f"{one_line(self.path)}: {self.num_bytes:,} bytes, {share:.0%} of {one_line(self.source)}"]
        nodes = "1 layer" if len(self.quantized) == 1 else f"{len(self.quantized)} layers"
        lines.append(
            f"int8: {nodes}, {self.proof.compared} compared with float64: largest error "
            f"{self.proof.ratio:.2g} roundings, {ROUNDINGS} are allowed"
        )
        lines += [one_line(note) for note in self.notes]
        return "\n".join(lines)


@of_one_file("quantized")
def quantize(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    layers: str = "all",
    kernel: str = MATMUL_INTEGER,
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    trial: bool | None = None,
) -> QuantizeResult:
    """Write an int8 version of a float32 file, from lstm-onnx or any other tool, and verify each of its layers.

    Its inputs, outputs, states and metadata are those of the float32 file.  A NaN or an infinity makes the results
    that depend on it NaN.  With the default kernel, weights have 7 bits and a scale for each output feature; their
    inputs have 8 bits and a scale for each row and step, computed when the file runs.  So no sequence's result depends
    on the others in its batch, on padding, or on how it is cut into chunks; and no CPU's instructions saturate.

    Before the file is kept, the file is run, and every int8 layer is compared with what that arithmetic gives in
    float64 for the layer's inputs; see `proof`.  A layer that cannot be compared stays float32.

    Args:
        source: the float32 file.
        path: the file to write.
        layers: "all" are LSTM, GRU, RNN, Linear (MatMul, Gemm) and Embedding (Gather) layers; "recurrent" leaves
            the last two as they are.
        kernel: "MatMulInteger" is described above, and has only ONNX's own operators.  "DynamicQuantizeLSTM" is the
            fastest for large batches and whole sequences of LSTMs, on CPUs; but one scale is shared by a batch, so
            that a result depends on the other sequences, on padding, on chunks and on the number of threads.
            "MatMulNBits" is the fastest for single streams on CPUs with VNNI, and has 8-bit weights and scales for
            blocks of 64 features; in browsers it is slow.  "MatMulNBits-256" has blocks of up to 256 and is faster,
            but a row alone and in a batch differ as they do in float32.  All three are ONNX Runtime's own operators.
        inputs: numpy arrays by input name for this comparison; by default they are random.
        seed: of the random inputs and states.
        trial: whether to open and run `source` in a child process first, as in `load`; by default if it is not from
            lstm-onnx.

    Raises:
        ConfigError: `layers` or `kernel` is not possible; `path` is `source`.
        FileError: a file cannot be read or written.
        ModelError: the file is not an ONNX model, is not float32, has nothing to quantize, or is int8 already; it has
            a layer that the kernel does not compute; or the int8 file does not compute what it must, and is not kept.
        InputError: `seed` is not possible, random inputs cannot be made, or `inputs` do not fit.
    """
    if not isinstance(layers, str) or layers not in INT8_LAYERS:
        raise ConfigError.of_argument("layers", layers, '"all" or "recurrent"')
    if not isinstance(kernel, str) or kernel not in KERNELS:
        raise ConfigError.of_argument("kernel", kernel, f"one of {', '.join(KERNELS)}")
    seed = integer("seed", seed, 0, LARGEST_SEED)
    require_model_path(path)
    require_apart([path], [source])
    # First, since ONNX Runtime reports violations of ONNX's rules, on which the rewriting relies.
    try:
        model = load(source, provider="cpu", threads=1, trial=trial)
    except ProviderError:
        quantized_model(source, layers=layers, kernel=kernel)  # its error names the layers that are not float32
        raise
    if inputs is None:
        require_drawable(model)
    done = quantized_model(source, layers=layers, kernel=kernel)
    proof = prove(done, model, inputs=inputs, seed=seed)
    if proof.not_compared:
        done = quantized_model(source, layers=layers, kernel=kernel, unproven=proof.not_compared)
        proof = prove(done, model, inputs=inputs, seed=seed)
    external, written = write_model(done.model, done.initializers, path)
    return QuantizeResult(
        path=os.fspath(path),
        source=os.fspath(source),
        num_bytes=written,
        source_bytes=done.source_bytes,
        quantized=done.quantized,
        kept=dict(done.kept),
        proof=proof,
        nodes=len(done.model.graph.node),
        external_data=external,
        slower=slower_layers(done.layers),
    )


def quantized_model(
    source: str | os.PathLike[str], *, layers: str = "all", kernel: str = MATMUL_INTEGER, unproven: Sequence[str] = ()
) -> Rewritten:
    """The int8 form of a float32 file, including its metadata; nothing is run.

    Args:
        source: a file that ONNX Runtime opens.
        layers, kernel: see `quantize`.
        unproven: nodes that stay float32, since their int8 form could not be compared.

    Raises:
        FileError, ModelError: see `quantize`.
    """
    model = load_inlined(source)
    metadata = metadata_of(model, source)
    if metadata.options is not None and metadata.options.precision == "float16":
        raise ModelError(f"{source}: has float16 weights; quantize the float32 file, whose weights are not rounded yet")
    read_sparse(model, source)
    done = quantize_model(model, source, layers=layers, kernel=kernel, unproven=unproven)
    if not done.quantized:
        reasons = "; ".join(f"{name}: {why}" for name, why in done.kept.items())
        reasons = reasons or (
            'those are LSTM, GRU and RNN, and with layers = "all" MatMul and Gemm by a constant float32 matrix of '
            f"{LEAST_WEIGHTS} weights or more on their right, and Gather of its rows"
        )
        hint = REPAIR_FIRST if not metadata.inputs and has_loops(model.graph.node) else None
        if any(array.dtype == np.float64 and array.ndim > 1 for array in done.initializers.values()):
            hint = (
                'its weights are float64: export it with precision="float32" (--precision float32), and quantize that'
            )
        raise ModelError(f"{source}: has no layer to quantize ({reasons})", hint=hint)
    if metadata.options is not None:
        options = replace(metadata.options, precision="int8", layers=layers, kernel=kernel)
        props = entries_of(done.model)
        helper.set_model_props(done.model, props | Metadata(options=options).to_metadata_entry("export"))
    return done
