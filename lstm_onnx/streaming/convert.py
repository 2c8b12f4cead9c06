"""`make_streaming`: converts a file that takes whole sequences to one that takes them in chunks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from onnx import GraphProto, ModelProto

from ..atomic_io import require_apart, temporary_folder
from ..errors import ConfigError, ModelError, shown
from ..metadata import Metadata, Streaming
from ..onnxgraph import load_inlined, outer_values, shape_of
from ..onnxgraph.load import metadata_of, read_weights
from ..onnxgraph.nodes import REPAIR_FIRST, has_loops, inputs_of
from ..onnxgraph.recurrent import final_states, initial_states, is_onnx_operator
from ..onnxgraph.shape_inference import with_identifiers
from ..onnxgraph.tensors import Shape
from ..onnxgraph.trial import require_harmless
from ..onnxgraph.write import require_model_path, set_metadata, write_model
from ..runtime import load
from ..runtime.arguments import LARGEST_SEED, integer
from ..runtime.trial import require_drawable
from ..runtime.unchanged import of_one_file
from ..symbolic_dims import ANY_SIZE, Limit
from ..terminal_text import one_line
from .follow import follow_time
from .proof import StreamProof, prove_stream
from .rewrite import REVERSE, NodeRefusedError, RefusedError, Rewritten, rewrite


@dataclass(frozen=True)
class StreamingResult:
    """What `make_streaming` wrote.

    Attributes:
        path: the file that streams.
        source: the file that takes whole sequences.
        num_bytes: the total size of the files that were written.
        streaming: how the file takes chunks.
        states: all its states, each with the output that feeds it.
        proof: how it was compared with the source.
    """

    path: str
    source: str
    num_bytes: int
    streaming: Streaming
    states: Mapping[str, str]
    proof: StreamProof

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """What was written and how it streams, as text."""
        s = self.streaming
        lines = [
            f"{one_line(self.path)}: {self.num_bytes:,} bytes, takes {one_line(self.source)}'s sequences in chunks",
            f"delay: {_steps(s.delay)} of the output; hop: {_steps(s.hop)} of the input",
            f"states: {', '.join(map(one_line, self.states))}",
        ]
        if s.chunk > 1:
            lines.append(f"chunks: multiples of {s.chunk} steps")
        elif s.multiple > 1:
            lines.append(f"sequences: multiples of {s.multiple} steps, as in {one_line(self.source)}")
        lines.append(str(self.proof))
        return "\n".join(lines)


@of_one_file("converted")
def make_streaming(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    time: Mapping[str, int] | None = None,
    max_delay: int = 0,
    chunk: int | None = None,
    states: Mapping[str, str] | None = None,
    seed: int = 0,
    trial: bool | None = None,
) -> StreamingResult:
    """Convert a file that takes whole sequences to one that takes chunks of any length.

    Whatever later steps need from earlier ones is carried in states: the last inputs of convolutions
    (``conv1.cache``), running sums, the states of LSTM, GRU, RNN and Scan.  Nothing is computed twice.  `Model.stream`
    runs the file; concatenating what its calls and `Stream.flush` return gives the whole sequence's outputs, for any
    chunks.

    Before the file is kept, it is run in chunks on random sequences, and compared with the source on the whole ones.

    Args:
        source: a file of this package or of any other.
        path: the file to write.
        time: the time axis of each input that has one, such as ``{"x": 1}``.  By default that of the metadata or, in
            a file of this package, the only one along which its recurrent nodes run.
        max_delay: the largest look-ahead to accept: the number of output steps that come only when the sequence has
            ended.  "same" convolutions have (kernel - 1) / 2.
        chunk: if given, the file takes only chunks whose number of steps is a multiple of this; it has fewer nodes and
            is faster.  The model must have no look-ahead, and `chunk` must be a multiple of the product of its strides.
        states: the state inputs that the file has, and the outputs that feed them, such as ``{"h": "hn"}``.  By
            default those of the metadata, or the initial states of recurrent operators whose final states are outputs.
        seed: of the random sequences.
        trial: whether to open and run `source` in a child process first, as in `load`; by default if it is not from
            lstm-onnx.

    Raises:
        ConfigError: `states`, `time` or `max_delay` is not possible.
        FileError: a file cannot be read or written, or `path` is `source`.
        ModelError: the file is not an ONNX model; or something in it needs the whole sequence, or more look-ahead
            than `max_delay`, with the node; or the new file differs from it, and is not kept.
        InputError: `seed` is not possible, or random sequences for the comparison cannot be made.
    """
    if isinstance(max_delay, bool) or not isinstance(max_delay, int) or max_delay < 0:
        raise ConfigError.of_argument("max_delay", max_delay, "a number of steps")
    require_chunk(chunk)
    seed = integer("seed", seed, 0, LARGEST_SEED)
    require_model_path(path)
    require_apart([path], [source])
    require_harmless(source, trial)
    model = with_identifiers(load_inlined(source))
    metadata = _metadata(model, source)
    if states is not None:
        require_states(model, states, source)
    pairs = metadata.states or recurrent_states(model.graph) if states is None else states
    known = dict(metadata.states) == dict(pairs)
    metadata = replace(metadata, states=dict(pairs))
    axes = _time_axes(model, metadata, time, source)
    weights = read_weights(model, source)
    # First, since ONNX Runtime reports violations of ONNX's rules, on which the rewriting relies.
    original = load(source, "cpu", states=metadata.states)
    require_drawable(original)
    try:
        done = rewrite(model, weights, axes, metadata.states, chunk, limit_of_time(metadata, model.graph, axes))
    except RefusedError as why:
        error = refused(_of_the_end(why, model, metadata, axes), source)
        if not metadata.inputs and has_loops(model.graph.node):
            raise ModelError(error.message, path=source, hint=REPAIR_FIRST) from why
        raise error from why
    require_delay(done, max_delay, source)
    if not done.caches and not pairs:
        raise ModelError(
            "needs no states: a chunk's outputs do not depend on other chunks",
            path=source,
            hint="lstm_onnx.load(...).run runs it on each chunk",
        )
    if not done.caches and known:
        raise ModelError(
            "already streams: its states are all that later steps need",
            path=source,
            hint="lstm_onnx.load(...).stream() runs it",
        )
    found = streaming_metadata(metadata, done)
    done.model.metadata_props.extend(model.metadata_props)
    set_metadata(done.model, found)
    with temporary_folder() as folder:
        tried = folder / "streaming.onnx"
        write_model(done.model, done.initializers, tried)
        proof = prove_stream(original, load(tried, "cpu"), seed=seed)
    if proof.problem:
        raise ModelError(f"the streaming file differs from it: {proof.problem}; it was not kept", path=source)
    _, num_bytes = write_model(done.model, done.initializers, path)
    assert found.streaming is not None  # noqa: S101 - just set
    return StreamingResult(os.fspath(path), os.fspath(source), num_bytes, found.streaming, dict(found.states), proof)


def limit_of_time(metadata: Metadata, graph: GraphProto, time: Mapping[str, int]) -> Limit:
    """The least and the largest number of steps for which a file is right.

    Args:
        metadata: the file's.
        graph: the file's.
        time: the time axis of each input that has one.
    """
    shapes = {value.name: shape_of(value.type) or () for value in graph.input if value.name in time}
    limits = [metadata.axis_limits.get(str(shape[time[name]]), ANY_SIZE) for name, shape in shapes.items()]
    return max(low for low, _ in limits), min((high for _, high in limits if high is not None), default=None)


def require_chunk(chunk: object) -> None:
    """Refuse anything that is not a length of chunks (ConfigError)."""
    if chunk is not None and (type(chunk) is not int or not 1 <= chunk < 2**31):
        raise ConfigError.of_argument("chunk", chunk, "a number of steps, 1 or more")


def streaming_metadata(metadata: Metadata, done: Rewritten) -> Metadata:
    """The metadata of a rewritten file."""
    return replace(
        metadata,
        states={**metadata.states, **done.caches},
        initial={**metadata.initial, **done.initial},
        not_streamable="",
        time_axes=(done.time,),
        axis_limits={axis: limits for axis, limits in metadata.axis_limits.items() if axis != done.time},
        size_boundaries={axis: sizes for axis, sizes in metadata.size_boundaries.items() if axis != done.time},
        streaming=done.streaming,
    )


def refused(why: RefusedError, path: str | os.PathLike[str]) -> ModelError:
    """The error for a file that cannot be computed chunk by chunk."""
    hint = f"what can be streamed: {why.instead}" if why.instead else None
    return ModelError(f"cannot be streamed: {why}", path=path, hint=hint)


def _of_the_end(why: RefusedError, model: ModelProto, metadata: Metadata, time: Mapping[str, int]) -> RefusedError:
    """Why a file is refused: a node that goes backwards along time, if there is one, before whatever comes earlier."""
    backwards = follow_time(model, metadata.states).backwards
    shapes = {value.name: shape_of(value.type) or () for value in inputs_of(model.graph) if value.name in time}
    found = (backwards.get(str(shape[time[name]])) for name, shape in shapes.items())
    late = next(filter(None, found), None)
    known = late is None or (isinstance(why, NodeRefusedError) and why.node == late.node)
    return why if known else RefusedError(str(late), REVERSE)


def require_delay(done: Rewritten, max_delay: int, path: str | os.PathLike[str]) -> None:
    """Refuse more look-ahead than `max_delay` (ModelError)."""
    if done.streaming.delay > max_delay:
        delay = done.streaming.delay
        raise ModelError(delay_reason(done), path=path, hint=f"max_delay={delay} (--max-delay {delay}) accepts that")


def delay_reason(done: Rewritten) -> str:
    """What looks ahead, and how far."""
    late = [name for name, output in done.outputs.items() if output.rest == done.streaming.delay]
    where = f" ({', '.join(done.look_ahead)})" if done.look_ahead else ""
    return f"{late[0]} needs {_steps(done.streaming.delay)} of look-ahead{where}"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _metadata(model: ModelProto, source: str | os.PathLike[str]) -> Metadata:
    metadata = metadata_of(model, source)
    if metadata.streaming is not None:
        raise ModelError("already takes chunks of any length", path=source, hint="lstm_onnx.load(...).stream() runs it")
    if metadata.spec is not None and not metadata.spec.bidirectional:
        raise ModelError(
            "is a bare LSTM, which streams without conversion", path=source, hint="lstm_onnx.load(...).stream() runs it"
        )
    return metadata


def _time_axes(
    model: ModelProto, metadata: Metadata, time: Mapping[str, int] | None, source: str | os.PathLike[str]
) -> dict[str, int]:
    """The time axis of each input, validated; by default those with a name that the metadata calls time."""
    shapes = {value.name: shape_of(value.type) for value in inputs_of(model.graph)}
    if time is None:
        found = _named(shapes, metadata.time_axes or ("time",))
        if not found and metadata.inputs:  # other tools' names of axes may be the same for different ones
            recurrent = follow_time(model, metadata.states).recurrent
            found = _named(shapes, recurrent[0]) if len(recurrent) == 1 else {}
        if not found:
            name = next(iter(shapes), "x")
            raise ConfigError(
                "it is not known which axis is time",
                path=source,
                hint=f'pass time, such as {{"{name}": 1}} (--time {name}=1)',
            )
        return found
    if not isinstance(time, Mapping) or not time:
        raise ConfigError(f"time = {shown(time)} is not possible", hint='it must map inputs to axes, such as {"x": 1}')
    axes: dict[str, int] = {}
    for name, axis in time.items():
        if name not in shapes:
            raise ConfigError(f"{shown(name)} is not an input", path=source, hint=f"its inputs are {', '.join(shapes)}")
        if name in metadata.states:
            raise ConfigError(f"{name} is a state, which has no time axis", path=source)
        shape = shapes[name]
        if isinstance(axis, bool) or not isinstance(axis, int) or shape is None or not -len(shape) <= axis < len(shape):
            raise ConfigError(f"{shown(axis)} is not an axis of {name}, which has {len(shape or ())}", path=source)
        axes[name] = axis % len(shape)
    return axes


def _named(shapes: Mapping[str, Shape | None], names: Collection[str]) -> dict[str, int]:
    """The first axis of each input that has one of these names."""
    return {
        name: shape.index(dim) for name, shape in shapes.items() for dim in names if shape is not None and dim in shape
    }


def recurrent_states(graph: GraphProto) -> dict[str, str]:
    """Inputs that only one recurrent operator reads, as its initial state, with the outputs of its final state."""
    inputs = {value.name for value in inputs_of(graph)}
    renamed = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Identity"}
    outputs = {value.name for value in graph.output}
    reads = Counter(name for node in graph.node for name in (*node.input, *outer_values(node)))
    found: dict[str, str] = {}
    for node in filter(is_onnx_operator, graph.node):
        for name, after in zip(initial_states(node), final_states(node), strict=False):
            after = after if after in outputs else renamed.get(after, "")
            if name in inputs and reads[name] == 1 and after in outputs and after not in found.values():
                found[name] = after
    return found


def require_states(model: ModelProto, states: object, path: str | os.PathLike[str]) -> None:
    """Refuse anything but pairs of an input and an output (ConfigError)."""
    if not isinstance(states, Mapping):
        raise ConfigError(
            f"states = {shown(states)} is not possible", hint='it must map inputs to outputs: {"h": "hn"}'
        )
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    for name, output in states.items():
        for kind, value, known in (("input", name, inputs), ("output", output, outputs)):
            if value not in known:
                raise ConfigError(
                    f"{shown(value)} is not an {kind}", path=path, hint=f"its {kind}s are {', '.join(known)}"
                )
    if len(set(states.values())) < len(states):
        raise ConfigError("states names an output twice; each state needs its own", path=path)
