"""`repair`: turns loops into recurrent operators, and states into inputs and outputs, and makes the batch dynamic."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from onnx import ValueInfoProto

from ..atomic_io import require_apart, temporary_folder
from ..errors import ModelError
from ..metadata import Metadata
from ..onnxgraph import nodes_of, shape_of
from ..onnxgraph.load import metadata_of
from ..onnxgraph.recurrent import is_onnx_operator
from ..onnxgraph.trial import require_harmless
from ..onnxgraph.write import require_model_path, set_metadata, write_model
from ..runtime import Model, load
from ..runtime.arguments import LARGEST_SEED, integer
from ..runtime.batch_axes import state_dim_names
from ..runtime.compared_chunks import Compared, compared_chunks
from ..runtime.trial import require_drawable
from ..runtime.unchanged import of_one_file
from ..terminal_text import one_line
from .batch import BATCH, fixed_batch, name_open_axes, open_batch, reshapes_opened
from .graph import Graph
from .operators import chains_to_operators, loops_to_operators
from .plain import computed_sizes, limited, read_as, simplify
from .proof import Proof, marks_of, prove, sizes_in_runs, values_of
from .states import Exposed, closed_states, expose, fixed_sizes


@dataclass(frozen=True)
class RepairResult:
    """What `repair` wrote.

    Attributes:
        path: the repaired file.
        source: the file that it was made from.
        operators: by the name of a Loop or Scan, or of the first step of an unrolled loop, the operator that it became.
        states: each new state input, and the output that is its next value.
        batch_opened: whether the batch had a fixed size and is dynamic now.
        nodes: the number of nodes in the repaired file, including those in bodies.
        source_nodes: the same for the source.
        num_bytes: the total size of the files that were written.
        proof: how it was compared with the source.
        not_streamable: how its chunks differ from the whole sequence; "" if they do not.
        time: the time axis of each input along which a stream is cut; empty if every call has a fixed size.
        notes: what was not repaired, and why.
    """

    path: str
    source: str
    operators: Mapping[str, str]
    states: Mapping[str, str]
    batch_opened: bool
    nodes: int
    source_nodes: int
    num_bytes: int
    proof: Proof
    not_streamable: str
    time: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """What was changed and how it was compared, as text."""
        lines = [
            f"{one_line(self.path)}: {self.num_bytes:,} bytes, {self.nodes} nodes instead of {self.source_nodes}",
            *(f"{one_line(name)}: now the operator {op_type}" for name, op_type in self.operators.items()),
        ]
        if self.states:
            pairs = ", ".join(f"{one_line(name)} -> {one_line(after)}" for name, after in self.states.items())
            lines.append(f"states: {pairs}")
            along = ", ".join(f"axis {axis} of {one_line(name)}" for name, axis in self.time.items())
            yes = f"along {along}" if along else "each call goes on where the one before ended"
            lines.append(f"streams: {'no, ' + self.not_streamable if self.not_streamable else yes}")
        if self.batch_opened:
            lines.append("batch: any size")
        return "\n".join([*lines, *map(one_line, self.notes), str(self.proof)])


@of_one_file("repaired")
def repair(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, seed: int = 0, trial: bool | None = None
) -> RepairResult:
    """Write a copy of another tool's file that is faster, streams, and takes batches of any size.

    A loop that computes an LSTM, GRU or RNN (a Loop, a Scan, or unrolled steps) becomes that operator.  The initial
    states of forward recurrent operators become inputs, and their final states outputs; the metadata pairs them, so
    that `load` and `Model.stream` know them.  A fixed batch becomes dynamic.  A missing state starts as in the source.

    Before the file is kept, it is compared with the source at several sizes.

    Args:
        source: a file of any exporter.
        path: the file to write.
        seed: of the random inputs.
        trial: whether to open and run `source` in a child process first, as in `load`; by default if it is not from
            lstm-onnx.

    Raises:
        FileError: a file cannot be read or written, or `path` is `source`.
        ModelError: it is not an ONNX model, or ONNX Runtime cannot run it; there is nothing to repair in it; or the
            new file differs from it, and is not kept.
        InputError: `seed` is not possible.
    """
    seed = integer("seed", seed, 0, LARGEST_SEED)
    require_model_path(path)
    require_apart([path], [source])
    require_harmless(source, trial)
    graph = Graph.of(source)
    metadata = metadata_of(graph.model, source)
    before = graph.size
    original = load(source, "cpu", threads=1)
    require_drawable(original)
    name_open_axes(graph.inputs)
    simplify(graph)
    marks = marks_of(graph.nodes, graph.arrays)
    sizes = computed_sizes(graph, original, seed=seed)
    read_as(graph, sizes.same)
    simplify(graph)
    operators = {**loops_to_operators(graph, sizes.zeros), **chains_to_operators(graph, sizes.constants)}
    found, notes = closed_states(graph)
    starts = values_of(graph.complete(), original, [state.before for state in found if state.before], seed=seed)
    fixed = fixed_batch(graph, found[0].batch if found else None)
    exposed = expose(graph, found, starts, _batch_name(graph.inputs, fixed), opened=fixed is not None)
    notes = [*notes, *exposed.notes]
    graph.remove_unread()
    if not operators and not exposed.states and fixed is None:
        raise _nothing(graph, notes, source)
    metadata = replace(
        metadata,
        states={**metadata.states, **exposed.states},
        initial={**metadata.initial, **exposed.initial},
        not_streamable=None,
    )
    with temporary_folder() as folder:
        tried = folder / "repaired.onnx"
        opened = False
        if fixed is not None:
            opened, note = _with_open_batch(graph, fixed, exposed, metadata, original, tried, seed, marks)
            notes += [note] if note else []
        if not opened:
            _write(graph, metadata, tried)
        with load(tried, "cpu", threads=1) as model:
            proof = prove(original, model, seed=seed, fixed=fixed if opened else None, marks=marks)
            compared = _compared(model) if exposed.states and not proof.problem else None
            runs = [] if proof.problem else sizes_in_runs(model, seed=seed)
            dims = [model.inputs[name].shape[axis] for name, axis in compared.inputs.items()] if compared else []
        if not operators and not exposed.states and not opened:
            raise _nothing(graph, notes, source)
        if proof.problem:
            raise ModelError(f"the repaired file differs from it: {proof.problem}; it was not kept", path=source)
        why = "" if compared is None else compared.why
        if compared is not None:
            times = () if why else tuple(dict.fromkeys(dim for dim in dims if isinstance(dim, str)))
            metadata = replace(metadata, not_streamable=why or None, time_axes=times)
    if runs:
        _name_output_axes(graph, runs, opened=opened)
    num_bytes = _write(graph, metadata, path)
    return RepairResult(
        os.fspath(path),
        os.fspath(source),
        operators,
        exposed.states,
        opened,
        graph.size,
        before,
        num_bytes,
        proof,
        why,
        compared.inputs if compared is not None and not why else {},
        tuple(notes),
    )


def _compared(model: Model) -> Compared | None:
    """The comparison of chunks of the repaired file; None if all calls have one size, which is then a chunk's."""
    compared = compared_chunks(model)
    dims = {dim for name, info in model.inputs.items() if name not in model.states for dim in info.shape}
    if compared is None and any(not isinstance(dim, int) for dim in dims - state_dim_names(model)):
        return Compared("it accepted none of the chunks that were tried, so none was compared", {}, {})
    return compared


def _name_output_axes(
    graph: Graph, runs: Sequence[tuple[Mapping[str, int], Mapping[str, Sequence[int]]]], *, opened: bool
) -> None:
    """Give the outputs' dynamic axes the names of the inputs' axes whose size they had in every run.

    An axis that the file declares otherwise, which was wrong or was that of the fixed batch, becomes dynamic.

    Args:
        graph: its outputs are changed.
        runs: of each, the sizes of the inputs' axes by name, and the outputs' shapes.
        opened: whether the batch had a fixed size.
    """
    names = list(dict.fromkeys(name for axes, _ in runs for name in axes))
    varied = [name for name in names if len({axes.get(name) for axes, _ in runs}) > 1]
    limits = limited(graph.nodes, graph.arrays)
    declared = {value.name: value.type for value in graph.model.graph.output}
    for value in graph.outputs:
        value.type.CopyFrom(declared.get(value.name, value.type))
        dims = value.type.tensor_type.shape.dim
        if any(len(shapes[value.name]) != len(dims) for _, shapes in runs):
            continue  # declared with another number of axes, or none
        for axis, dim in enumerate(dims):
            stated = dim.HasField("dim_value") or dim.dim_param in names
            sizes = [shapes[value.name][axis] for _, shapes in runs]
            if stated and sizes == [axes.get(dim.dim_param, dim.dim_value) for axes, _ in runs]:
                continue
            if stated:
                dim.ClearField("value")
            same = [name for name in varied if sizes == [axes.get(name) for axes, _ in runs]]
            if len(same) == 1 and (value.name not in limits or (opened and same[0] == BATCH)):
                dim.dim_param = same[0]


def _nothing(graph: Graph, notes: list[str], source: str | os.PathLike[str]) -> ModelError:
    why = notes
    if not any(map(is_onnx_operator, graph.nodes)):
        inner = [node.op_type for node in nodes_of(graph.nodes) if is_onnx_operator(node)]
        why = ["it has no LSTM, GRU or RNN, and no loop that was recognised as one"]
        if inner:
            kinds = ", ".join(dict.fromkeys(inner))
            why = [f"its operators ({kinds}) are inside a branch or a loop, where they are not changed"]
    elif not notes:
        sizes, of_states = fixed_sizes(graph)
        why = ["its states are inputs, and its batch is dynamic"]
        if sizes:
            why = [f"its states are inputs; their batch of {', '.join(map(str, sizes))} cannot be made dynamic"]
        elif all(isinstance(dim, int) for value in graph.inputs for dim in shape_of(value.type) or ()):
            why = ["its states are inputs; each of its sizes is fixed and cannot be made dynamic"]
        elif of_states:
            why = [f"its states are inputs; their batch of {', '.join(map(str, of_states))} cannot be made dynamic"]
    return ModelError(f"has nothing to repair: {'; '.join(why)}", path=source)


def _with_open_batch(
    graph: Graph,
    fixed: tuple[int, int],
    exposed: Exposed,
    metadata: Metadata,
    original: Model,
    trial: Path,
    seed: int,
    marks: Sequence[float],
) -> tuple[bool, str]:
    """Make the batch dynamic, if the file is right then; otherwise leave it, and say why."""
    axis, size = fixed
    before = [type(value).FromString(value.SerializeToString()) for value in (*graph.inputs, *graph.outputs)]
    arrays, problem = graph.arrays, ""
    open_batch(graph, axis, size, exposed.states)
    for candidate in reshapes_opened(graph, size):
        _write(candidate, metadata, trial)
        try:
            proof = prove(original, load(trial, "cpu", threads=1), seed=seed, fixed=fixed, marks=marks)
        except ModelError as error:
            problem = problem or error.reason
            continue
        if not proof.problem:
            graph.arrays, graph.nodes = candidate.arrays, candidate.nodes
            return True, ""
        problem = problem or proof.problem
    graph.arrays = arrays
    for value, old in zip((*graph.inputs, *graph.outputs), before, strict=True):
        value.CopyFrom(old)
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == BATCH and value.name in (*exposed.states, *exposed.states.values()):
                dim.dim_value = size
    return False, f"the batch stays {size}: {problem}"


def _batch_name(inputs: Sequence[ValueInfoProto], fixed: tuple[int, int] | None) -> str:
    """The name of the batch axis: of the first input that has one, the name of its first dynamic axis."""
    if fixed is not None:
        return BATCH
    names = [dim for value in inputs for dim in shape_of(value.type) or () if isinstance(dim, str)]
    return BATCH if BATCH in names or not names else names[0]


def _write(graph: Graph, metadata: Metadata, path: str | os.PathLike[str]) -> int:
    model = graph.as_model()
    set_metadata(model, metadata)
    return write_model(model, graph.arrays, path)[1]
