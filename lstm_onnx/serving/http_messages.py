"""Reads the bodies of inference requests over HTTP, and writes those of answers: JSON, with raw bytes after it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.text import overflowing_numeral, repeated_key
from ..errors import shown
from .errors import Kind, RequestError
from .requests import SEQUENCE_PARAMETERS, InferenceRequest, new_request, require_plain_output, require_values_here
from .served_model import VERSION
from .tensors import datatype_of, from_bytes, from_numbers, to_bytes, to_json

HEADER_LENGTH = "inference-header-content-length"
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_LEAST_COMPRESSED = 256
"""The least size in bytes of an answer that is compressed."""


@dataclass(frozen=True)
class HttpInference:
    """An inference request, and how its answer is to be written.

    Attributes:
        request: the inputs, and what to do with them.
        id: the client's id for the request; None where it has none.
        binary: for each output that the request names, whether it is asked for as raw bytes, where that is said.
        binary_default: the same for the other outputs.
        echoed: the parameters that the answer repeats.
    """

    request: InferenceRequest
    id: str | None
    binary: Mapping[str, bool]
    binary_default: bool
    echoed: Mapping[str, Any]


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """A body, decompressed to at most `limit` bytes (RequestError where that fails)."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise RequestError(f"Content-Encoding is {shown(encoding)}; it must be gzip or deflate", Kind.ENCODING)
    decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        found = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not {encoding}: {error}") from error
    if len(found) > limit:
        raise RequestError(f"the decompressed body has more than {limit} bytes", Kind.TOO_LARGE)
    if not decompressor.eof or decompressor.unused_data:
        raise RequestError(f"as {encoding}, the body is cut off, or goes on after its end")
    return found


def compressed(body: bytes, accepted: str) -> tuple[bytes, str]:
    """An answer, compressed in a form that the client accepts, and its Content-Encoding."""
    offers: dict[str, float] = {}
    for item in accepted.split(","):
        name, _, quality = item.strip().lower().partition(";")
        try:
            offers[name.strip()] = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            offers[name.strip()] = 0
    best = max(_WINDOW_BITS, key=lambda name: offers.get(name, 0))
    if len(body) < _LEAST_COMPRESSED or not offers.get(best, 0) > 0:
        return body, ""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[best])
    return compressor.compress(body) + compressor.flush(), best


def json_object(body: bytes | memoryview) -> dict[str, Any]:
    """A body as a JSON object (RequestError where it is none)."""
    try:
        value = json.loads(bytes(body), object_pairs_hook=_with_each_key_once)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := repeated_key(pairs)) is not None:
        raise RequestError(f"the body has the key {shown(twice)} twice in one object")
    return dict(pairs)


def read_inference(body: bytes, header_length: str | None) -> HttpInference:
    """Read an inference request (RequestError where it is not valid).

    Args:
        body: the decompressed body.
        header_length: the HTTP header with the number of bytes that are JSON; None where all are.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdecimal() or len(header_length) > 18:
            raise RequestError(f"Inference-Header-Content-Length is {shown(header_length)}; it must be an integer")
        length = int(header_length)
        if length > len(body):
            raise RequestError(f"Inference-Header-Content-Length is {length}, but the body has {len(body)} bytes")
    view = memoryview(body)
    message = json_object(view[:length])
    inputs, rest = _inputs(message, view[length:])
    if any(array.dtype.kind == "f" and np.isinf(array).any() for array in inputs.values()) and (
        numeral := overflowing_numeral(body[:length])
    ):
        raise RequestError(f"the body has the number {shown(numeral)}, which is too large for every datatype")
    if len(rest):
        raise RequestError(f"{len(rest)} bytes after the inputs belong to none of them")
    parameters = _parameters(message, "the request")
    names, binary = _outputs(message)
    number = message.get("id")
    if number is not None and not isinstance(number, str):
        raise RequestError(f"id is {shown(number)}; it must be a string")
    echoed = {name: parameters[name] for name in SEQUENCE_PARAMETERS if name in parameters}
    return HttpInference(
        new_request(inputs, names, parameters), number, binary, parameters.get("binary_data_output") is True, echoed
    )


def _inputs(message: dict[str, Any], rest: memoryview) -> tuple[dict[str, np.ndarray], memoryview]:
    arrays: dict[str, np.ndarray] = {}
    for tensor in _objects(message, "inputs"):
        name = tensor.get("name")
        if not isinstance(name, str) or name in arrays:
            raise RequestError(f"an input has the name {shown(name)}; each needs a different, non-empty string")
        parameters = _parameters(tensor, name)
        require_values_here(name, parameters)
        size = parameters.get("binary_data_size")
        if size is None:
            if "data" not in tensor:
                raise RequestError(f"{name} has neither data nor the parameter binary_data_size")
            arrays[name] = from_numbers(name, tensor.get("datatype"), tensor.get("shape"), tensor["data"])
            continue
        if "data" in tensor:
            raise RequestError(f"{name} has both data and the parameter binary_data_size")
        if type(size) is not int or not 0 <= size <= len(rest):
            raise RequestError(f"{name} has binary_data_size {shown(size)}, but {len(rest)} bytes are left")
        arrays[name] = from_bytes(name, tensor.get("datatype"), tensor.get("shape"), rest[:size])
        rest = rest[size:]
    return arrays, rest


def _outputs(message: dict[str, Any]) -> tuple[tuple[str, ...] | None, dict[str, bool]]:
    binary: dict[str, bool] = {}
    names = []
    for tensor in _objects(message, "outputs"):
        name = tensor.get("name")
        if not isinstance(name, str):
            raise RequestError(f"an output has the name {shown(name)}; it must be a string")
        parameters = _parameters(tensor, name)
        require_plain_output(name, parameters)
        names.append(name)
        if "binary_data" in parameters:
            binary[name] = parameters["binary_data"] is True
    return tuple(names) or None, binary


def _objects(message: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = message.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise RequestError(f"{key} must be a list of JSON objects")
    return found


def _parameters(message: dict[str, Any], where: str) -> dict[str, Any]:
    found = message.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestError(f"the parameters of {where} must be a JSON object")
    return found


def write_inference(
    name: str, inference: HttpInference, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, dict[str, str]]:
    """The body of an answer and its headers."""
    tensors, raw = [], []
    for output, array in outputs.items():
        tensor: dict[str, Any] = {"name": output, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        if inference.binary.get(output, inference.binary_default):
            data = to_bytes(array)
            tensor["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
            tensors.append(_compact(tensor))
        else:
            tensors.append(f'{_compact(tensor)[:-1]},"data":{to_json(array)}}}')
    message: dict[str, Any] = {"model_name": name, "model_version": VERSION}
    if inference.id is not None:
        message["id"] = inference.id
    if inference.echoed:
        message["parameters"] = inference.echoed
    head = f'{_compact(message)[:-1]},"outputs":[{",".join(tensors)}]}}'.encode()
    if not raw:
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *raw]), headers


def _compact(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
