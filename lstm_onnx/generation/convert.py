"""`make_generating`: writes a file that repeats the step in another file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from onnx import ModelProto

from ..atomic_io import require_apart, temporary_folder
from ..errors import ConfigError, ModelError
from ..generation_spec import MAX_STEPS, NOISE, TEMPERATURE, Generation
from ..input_spec import InputSpec
from ..metadata import Metadata
from ..onnxgraph import load_inlined, nodes_of
from ..onnxgraph.load import metadata_of, opset_of, read_weights
from ..onnxgraph.trial import require_harmless
from ..onnxgraph.write import require_model_path, set_metadata, write_model
from ..runtime import Model, load
from ..runtime.arguments import LARGEST_SEED, integer
from ..runtime.trial import require_drawable
from ..runtime.unchanged import of_one_file
from ..terminal_text import one_line
from .choose import OWN
from .layout import Layout, layout_of
from .loop import generating_model
from .proof import GenerationProof, prove_generation

_LEAST_OPSET = 14
"""The least opset: its Reshape can make axes of size 0."""
_DRAWN_STEPS = 12
"""The limit of a random `max_steps`, where the caller passes none."""
_DRAWN_TEMPERATURES = (0.5, 1.5)


@dataclass(frozen=True)
class GeneratingResult:
    """What `make_generating` wrote.

    Attributes:
        path: the file that generates.
        source: the step's file.
        num_bytes: the total size of the files that were written.
        generation: the settings with which it generates.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        states: each state's input, with the output for its last value.
        nodes: the number of its nodes, without those of the loop's body.
        proof: how it was compared with its step.
        external_data: the file beside `path` that holds the weights of a model over 2 GB, or None.
    """

    path: str
    source: str
    num_bytes: int
    generation: Generation
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: Mapping[str, str]
    nodes: int
    proof: GenerationProof
    external_data: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The result as text."""
        g = self.generation
        return "\n".join(
            [
                f"{one_line(self.path)}: {self.num_bytes:,} bytes, repeats the step of {one_line(self.source)}",
                f"feeds back: {one_line(g.output)} as {one_line(g.input)}, {g.choose}",
                f"inputs: {', '.join(map(one_line, self.inputs))}",
                f"outputs: {', '.join(map(one_line, self.outputs))}",
                str(self.proof),
            ]
        )


def make_generating(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    input: str,
    output: str,
    choose: str | None = None,
    top_k: int | None = None,
    stop_token: int | Sequence[int] = (),
    stop_output: str | None = None,
    stop_above: float = 0.5,
    pad: float | None = None,
    states: Mapping[str, str] | None = None,
    seed: int = 0,
    trial: bool | None = None,
) -> GeneratingResult:
    """Write a file that runs a model's step in a loop, in one call, and feeds each step's output to the next.

    The step is a file with states: one that `export` writes with ``states="explicit"``, or of a module that takes its
    states as arguments and returns them.  The new file's results are those of this loop, token for token::

        x = prompt
        for _ in range(max_steps):
            outputs = step(x, states)             # first the whole prompt, then one time step each
            x = chosen(outputs[output][:, -1])
            generated.append(x)

    Its inputs are those of the step, where the input that is fed back is the prompt, and ``max_steps`` (int64, one
    number) or, with "sample", ``noise`` ``(batch, max_steps)``, numbers in [0, 1), and ``temperature``, one number
    above 0.  Its outputs are ``generated``, in the input's own layout: tokens ``(batch, steps)`` or values
    ``(batch, steps, features)``; for tokens ``scores``, the logarithms of their probabilities; if sequences can end,
    ``counts`` ``(batch,)``, the number of steps of each; and the last states, from which another call continues.

    A sequence that has ended keeps its states and yields padding until all sequences of the batch have ended.  Nodes
    with the same results in every step, such as an encoder's, run once.

    The file is kept only if its results equal those of the step in a Python loop, on random prompts.

    Args:
        source: the step's file, from this package or any other.
        path: the file to write.
        input: the input that is fed back; see `Generation` for this and the next arguments.
        output: the output from which the next input is made.
        choose: "greedy", "sample" or "value".
        top_k: for "sample", the number of most probable tokens to sample from.
        stop_token: a token, or several, that ends a sequence.
        stop_output: an output that ends a sequence.
        stop_above: the threshold above which `stop_output` does.
        pad: the value in `generated` for a sequence that has ended.
        states: for a file from another tool, each state input and the output that feeds it, as in `load`.
        seed: the seed of the random prompts.
        trial: whether to open and run `source` in a child process first, as in `load`; by default if it is not from
            lstm-onnx.

    Raises:
        ConfigError: an argument is not possible, or names no input or output.
        FileError: a file cannot be read or written, or `path` is `source`.
        ModelError: the file is not an ONNX model, or its step cannot be run in a loop; or the results of the new file
            differ from those of the step in a Python loop, and it is not kept.
        InputError: `seed` is not valid.
    """
    pairs = {} if states is None else states
    generation = Generation(input, output, choose, top_k, stop_token, stop_output, stop_above, pad, pairs)  # type: ignore[arg-type]
    return write_generating(source, path, generation, seed=seed, trial=trial)


@of_one_file("converted")
def write_generating(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    generation: Generation,
    *,
    seed: int = 0,
    trial: bool | None = None,
) -> GeneratingResult:
    """As `make_generating`."""
    seed = integer("seed", seed, 0, LARGEST_SEED)
    require_model_path(path)
    require_apart([path], [source])
    require_harmless(source, trial)
    model = load_inlined(source)
    _require_opset(model, source)
    states = {**metadata_of(model, source).states, **generation.states} if generation.states else None
    with load(source, "cpu", threads=1, states=states) as step:
        require_drawable(step)
        layout = layout_of(step, generation)
        _require_names(model, source)
        built, constants = generating_model(model, read_weights(model, source), layout)
        set_metadata(built, generating_metadata(step, layout))
        with temporary_folder() as folder:
            tried = folder / "generating.onnx"
            write_model(built, constants, tried)
            with load(tried, "cpu", threads=1) as made:
                proof = prove_generation(step, made, seed=seed)
    if proof.not_run:
        raise ModelError(f"the step cannot be run to compare the generating file with it: {proof.not_run}", path=source)
    if proof.problem:
        raise ModelError(f"the generating file differs from its step: {proof.problem}; it was not kept", path=source)
    external, num_bytes = write_model(built, constants, path)
    return GeneratingResult(
        os.fspath(path),
        os.fspath(source),
        num_bytes,
        layout.step.generation,
        tuple(value.name for value in built.graph.input),
        tuple(value.name for value in built.graph.output),
        dict(layout.states),
        len(built.graph.node),
        proof,
        external,
    )


def _require_opset(model: ModelProto, source: str | os.PathLike[str]) -> None:
    opset = opset_of(model)
    if opset < _LEAST_OPSET:
        raise ModelError(
            f"has opset {opset}, but a generating file needs {_LEAST_OPSET}",
            path=source,
            hint="convert it with onnx.version_converter",
        )


def _require_names(model: ModelProto, source: str | os.PathLike[str]) -> None:
    names = {value for node in nodes_of(model.graph.node) for value in (*node.input, *node.output)}
    if any(name.startswith(OWN) for name in names):
        raise ModelError(f"has values whose names start with {OWN}, which the generating file uses itself", path=source)


def generating_metadata(step: Model, layout: Layout) -> Metadata:
    """The metadata of a file that repeats this step."""
    metadata = step.metadata
    described = {spec.name: spec for spec in metadata.inputs}
    own = [described.get(name) or _spec(step, name) for name in (layout.fed.name, *layout.context)]
    specs = {spec.name: spec for spec in own}
    fed, context = _of_all_tokens(specs.pop(layout.fed.name), layout), list(specs.values())
    batch = fed.shape[layout.step.batch_axis]
    added = [InputSpec(MAX_STEPS, (), "int64", 1, _DRAWN_STEPS)]
    if layout.step.generation.choose == "sample":
        dtype = str(layout.output.dtype)
        low, high = _DRAWN_TEMPERATURES
        added = [InputSpec(NOISE, (batch, MAX_STEPS), dtype, 0, 1), InputSpec(TEMPERATURE, (), dtype, low, high)]
    return replace(
        metadata,
        states=dict(layout.states),
        inputs=(fed, *added, *context),
        not_streamable="it makes its own inputs; to continue, pass its last states to another call",
        time_axes=(),
        streaming=None,
        loop_states=(*metadata.loop_states, *metadata.streaming_or_default.caches),
        generation=layout.step,
    )


def _of_all_tokens(fed: InputSpec, layout: Layout) -> InputSpec:
    """The prompt's tokens: the step must accept every token that it can choose."""
    tokens = layout.output.shape[-1]
    if not layout.step.of_tokens or not isinstance(tokens, int):
        return fed
    return replace(fed, low=0, high=tokens - 1)


def _spec(step: Model, name: str) -> InputSpec:
    info = step.inputs[name]
    shape = tuple(
        dim if isinstance(dim, int) or (dim and dim.isidentifier()) else f"{_identifier(name)}_{axis}"
        for axis, dim in enumerate(info.shape)
    )
    try:
        return InputSpec(name, shape, str(info.dtype))
    except ConfigError as error:
        raise ModelError(f"cannot generate: its input {info}: {error}", path=step.path) from error


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name) or "axis"
