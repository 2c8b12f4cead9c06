"""Writing a model: its metadata, its weights (over 2 GB in a file beside it), and what was written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper, numpy_helper

from .. import __version__
from ..atomic_io import atomic_write, require_writable
from ..checksum import KEY, UNKNOWN, with_checksum
from ..errors import FileError
from ..metadata import Metadata
from ..spec import ExportOptions, LSTMSpec
from .weights import digest

EXTERNAL_DATA_THRESHOLD = 2**31 - 2**24
"""Bytes of weights above which they are written to a file of their own: protobuf cannot hold 2 GiB."""
_DIGEST_DIGITS = 8
_MAX_STEM_BYTES = 255 - len("..data") - _DIGEST_DIGITS
"""Bytes of the model's file name that the data file's name can start with."""
_ALIGNMENT = 4096
"""External tensors start at page boundaries, so that a runtime can map them into memory."""
_INLINE_BYTES = 1024
"""Smaller tensors stay in the model: shape inference reads axes and sizes, and cannot read another file."""
VERSIONS = {"lstm_onnx": __version__, "onnx": onnx.__version__}


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: the .onnx file.
        spec: the LSTM's sizes; None for a module that is more than an nn.LSTM.
        options: the options of the export.
        nodes: the number of the graph's nodes, without those of a Scan's body.
        parameters: the number of the module's parameters, as PyTorch counts them.
        num_bytes: the size of all files that were written.
        digest: SHA-256 of the weights.
        external_data: the file beside `path` that holds the weights of a model over 2 GB, or None.
        inputs: the names of the graph's inputs.
        outputs: the names of the graph's outputs.
        states: each state input and the output that is its next value.
        notes: remarks for the user, such as limits of an axis.
    """

    path: str
    spec: LSTMSpec | None
    options: ExportOptions
    nodes: int
    parameters: int
    num_bytes: int
    digest: str
    external_data: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON; spec and options as dicts."""
        return asdict(self)


def require_output_path(path: str | os.PathLike[str]) -> None:
    """Refuse a path that no model can be written to, before anything is computed.

    Raises:
        FileError: it is "-", its folder does not exist or is not writable, or it is a folder.
    """
    if isinstance(path, str) and path == "-":
        raise FileError('"-": a model is not written to stdout; name a file, such as model.onnx (or ./- for that name)')
    require_writable(path)


def float64_notes(nodes: Iterable[NodeProto], initializers: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A note where recurrent operators compute in float64, which ONNX Runtime 1.31 implements on CUDA alone."""
    operators = {
        node.op_type
        for node in nodes
        if node.op_type in ("LSTM", "GRU", "RNN") and initializers[node.input[1]].dtype == np.float64
    }
    if not operators:
        return ()
    names = " or ".join(sorted(operators))
    note = f"ONNX Runtime's CPU provider has no float64 {names}, so the file runs on CUDA alone"
    return (f"{note}; export module.float() for the CPU",)


def make_model(
    name: str,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    opset: int,
) -> ModelProto:
    """A model without its initializers and metadata, in the oldest format that has the opset."""
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs),
        opset_imports=opsets,
        # Any later format would only exclude older runtimes.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="lstm-onnx",
        producer_version=__version__,
    )


def write_export(
    model: ModelProto,
    initializers: Mapping[str, np.ndarray],
    metadata: Metadata,
    path: str | os.PathLike[str],
    *,
    parameters: int,
    notes: tuple[str, ...] = (),
) -> ExportResult:
    """Write a model with its metadata to `path`.

    Args:
        model: without its initializers and metadata, which are added.
        initializers: its weights and constants by name.
        metadata: with options and a digest.
        path: the file.
        parameters: the number of the module's parameters.
        notes: remarks for the user.

    Raises:
        FileError: a file cannot be written.
    """
    assert metadata.options is not None  # noqa: S101 - every exporter sets them
    helper.set_model_props(model, metadata.to_metadata())
    external, num_bytes = write_model(model, initializers, path)
    return ExportResult(
        path=os.fspath(path),
        spec=metadata.spec,
        options=metadata.options,
        nodes=len(model.graph.node),
        parameters=parameters,
        num_bytes=num_bytes,
        digest=str(metadata.digest),
        external_data=external,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        states=dict(metadata.states),
        notes=notes,
    )


def write_model(
    model: ModelProto, initializers: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> tuple[str | None, int]:
    """Write `model` with `initializers` to `path`.

    Returns:
        The external data file's path, or None where the weights are in the model; and the number of
        bytes written to all files.

    Raises:
        FileError: a file cannot be written.
    """
    total = sum(array.nbytes for array in initializers.values())
    if total <= EXTERNAL_DATA_THRESHOLD:
        tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
        return None, _write_proto(model, tensors, path)
    target = Path(os.path.realpath(path))
    # Named by its content: if anything fails, the model that was there before still has its own data.
    data = target.with_name(f"{_data_stem(target)}.{digest(initializers)[:_DIGEST_DIGITS]}.data")
    existed = data.exists()
    try:
        tensors, size = _write_data(data, initializers)
        written = _write_proto(model, tensors, path)
    except BaseException:
        if not existed:
            data.unlink(missing_ok=True)
        raise
    _remove_stale(target, data)
    return str(data), size + written


def _write_data(data: Path, initializers: Mapping[str, np.ndarray]) -> tuple[list[TensorProto], int]:
    """Write the large tensors to `data`; returns all tensors for the model, and the number of bytes written."""
    tensors = []
    offset = 0
    with atomic_write(data) as stream:
        for name, array in initializers.items():
            if array.nbytes < _INLINE_BYTES:
                tensors.append(numpy_helper.from_array(array, name))
                continue
            tensors.append(_external_tensor(name, array, data.name, offset))
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            padding = -array.nbytes % _ALIGNMENT
            stream.write(b"\0" * padding)
            offset += array.nbytes + padding
    return tensors, offset


def _data_stem(target: Path) -> str:
    """The model's file name, shortened and made unique by a digest where there is no room for a suffix."""
    name = os.fsencode(target.name)
    if len(name) <= _MAX_STEM_BYTES:
        return target.name
    start = name[: _MAX_STEM_BYTES - _DIGEST_DIGITS - 1].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(name).hexdigest()[:_DIGEST_DIGITS]}"


def _remove_stale(target: Path, data: Path) -> None:
    """Delete data files of earlier exports to `target`, which no model refers to any more."""
    stale = re.compile(re.escape(_data_stem(target)) + rf"\.[0-9a-f]{{{_DIGEST_DIGITS}}}\.data")
    for file in target.parent.iterdir():
        if stale.fullmatch(file.name) and file.name != data.name:
            with contextlib.suppress(OSError):
                file.unlink()


def _write_proto(model: ModelProto, tensors: list[TensorProto], path: str | os.PathLike[str]) -> int:
    complete = ModelProto()
    complete.CopyFrom(model)
    complete.graph.initializer.extend(tensors)
    # First of the metadata, so that check recognises a file that is truncated after it.
    complete.metadata_props.insert(0, StringStringEntryProto(key=KEY, value=UNKNOWN))
    content = with_checksum(complete.SerializeToString(deterministic=True))
    with atomic_write(path) as stream:
        stream.write(content)
    return len(content)


def _external_tensor(name: str, array: np.ndarray, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
