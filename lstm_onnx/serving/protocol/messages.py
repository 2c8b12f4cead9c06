"""Makes the classes of the protocol's messages, from a descriptor pool of their own.

In protobuf's default pool they would collide with those of other packages with the same messages, such as
tritonclient: whichever is imported second raises an error.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
_DESCRIPTORS = "open_inference.binpb"


def _pool() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString((resources.files(__package__) / _DESCRIPTORS).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


POOL = _pool()
METHODS: dict[str, tuple[str, str]] = {
    method.name: (method.input_type.name, method.output_type.name) for method in POOL.FindServiceByName(SERVICE).methods
}
"""The names of the request and the answer of each method."""


def message(name: str) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


MESSAGES: dict[str, Any] = {name: message(name) for names in METHODS.values() for name in names}
"""The classes of all requests and answers."""
