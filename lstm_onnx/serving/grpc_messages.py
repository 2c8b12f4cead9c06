"""The protocol's infer requests and answers over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import shown
from .errors import Kind, RequestError
from .protocol.messages import MESSAGES
from .requests import InferenceRequest, new_request
from .served_model import VERSION
from .tensors import datatype_of, dtype_of, from_bytes, from_numbers, to_bytes

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_ELSEWHERE = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


def parameters_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A map of InferParameter as values; those without one are left out."""
    found = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            found[name] = getattr(value, choice)
    return found


def read_request(message: Any) -> InferenceRequest:
    """A ModelInferRequest (RequestError)."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(f"there are {len(message.inputs)} inputs, and {len(raw)} raw_input_contents")
    arrays: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(message.inputs):
        name, shape = tensor.name, list(tensor.shape)
        if name in arrays:
            raise RequestError(f"the input {shown(name)} is there twice")
        if any(key in tensor.parameters for key in _ELSEWHERE):
            raise RequestError(f"{shown(name)} is in shared memory, which is not served", Kind.UNSUPPORTED)
        if raw:
            if tensor.HasField("contents"):
                raise RequestError(f"{shown(name)} has contents, and the request has raw_input_contents too")
            arrays[name] = from_bytes(name, tensor.datatype, shape, raw[index])
        else:
            dtype_of(name, tensor.datatype)
            contents = _CONTENTS.get(tensor.datatype)
            if contents is None:
                raise RequestError(f"{shown(name)} is {tensor.datatype}, which takes raw_input_contents")
            arrays[name] = from_numbers(name, tensor.datatype, shape, list(getattr(tensor.contents, contents)))
    names = []
    for output in message.outputs:
        parameters = parameters_of(output.parameters)
        if parameters.get("classification") or any(key in parameters for key in _ELSEWHERE):
            raise RequestError(
                f"{shown(output.name)} is asked for as classes or in shared memory, which is not served",
                Kind.UNSUPPORTED,
            )
        names.append(output.name)
    return new_request(arrays, tuple(names) or None, parameters_of(message.parameters))


def write_response(request: Any, outputs: Mapping[str, np.ndarray]) -> Any:
    """A ModelInferResponse."""
    answer = MESSAGES["ModelInferResponse"](model_name=request.model_name, model_version=VERSION, id=request.id)
    for name in ("sequence_id", "sequence_start", "sequence_end"):
        if name in request.parameters:
            answer.parameters[name].CopyFrom(request.parameters[name])
    for name, array in outputs.items():
        answer.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        answer.raw_output_contents.append(to_bytes(array))
    return answer
