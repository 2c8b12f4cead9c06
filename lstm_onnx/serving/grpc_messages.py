"""Reads the protocol's inference requests from gRPC messages, and writes the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import shown
from .errors import RequestError
from .protocol.messages import MESSAGES
from .requests import SEQUENCE_PARAMETERS, InferenceRequest, new_request, require_plain_output, require_values_here
from .served_model import VERSION
from .tensors import datatype_of, dtype_of, from_bytes, from_numbers, to_bytes

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def parameters_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values in a map of InferParameter; parameters without a value are left out."""
    choices = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in choices.items() if choice is not None}


def read_request(message: Any) -> InferenceRequest:
    """Read a ModelInferRequest (RequestError where it is not valid)."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(f"there are {len(message.inputs)} inputs, but {len(raw)} raw_input_contents")
    arrays: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(message.inputs):
        name, shape = tensor.name, list(tensor.shape)
        if name in arrays:
            raise RequestError(f"the input {shown(name)} is given twice")
        require_values_here(name, tensor.parameters)
        if raw:
            if tensor.HasField("contents"):
                raise RequestError(f"{shown(name)} has contents, but the request has raw_input_contents too")
            arrays[name] = from_bytes(name, tensor.datatype, shape, raw[index])
        else:
            dtype_of(name, tensor.datatype)
            contents = _CONTENTS.get(tensor.datatype)
            if contents is None:
                raise RequestError(f"{shown(name)} is {tensor.datatype}, which must come in raw_input_contents")
            arrays[name] = from_numbers(name, tensor.datatype, shape, list(getattr(tensor.contents, contents)))
    names = []
    for output in message.outputs:
        require_plain_output(output.name, parameters_of(output.parameters))
        names.append(output.name)
    return new_request(arrays, tuple(names) or None, parameters_of(message.parameters))


def write_response(request: Any, outputs: Mapping[str, np.ndarray]) -> Any:
    """A ModelInferResponse."""
    answer = MESSAGES["ModelInferResponse"](model_name=request.model_name, model_version=VERSION, id=request.id)
    for name in SEQUENCE_PARAMETERS:
        if name in request.parameters:
            answer.parameters[name].CopyFrom(request.parameters[name])
    for name, array in outputs.items():
        answer.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        answer.raw_output_contents.append(to_bytes(array))
    return answer
