"""Describes tensors, values and attributes as the file stores them: dimensions, types and sizes, without contents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from onnx import AttributeProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper

T = TypeVar("T")
Dim = int | str | None
"""A size, the name of a dynamic axis, or None for an axis without a name."""
Shape = tuple[Dim, ...]
_PLAIN = frozenset(
    {AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING}
    | {AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS}
)
_INDEX_TYPES = frozenset(
    {TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING}
)
"""The dtypes of shapes, axes and indices, which are never a weight's."""


@dataclass(frozen=True)
class Value:
    """An input or output of the model; its axes are None if their number is unknown."""

    name: str
    dtype: str
    axes: Shape | None

    def __str__(self) -> str:
        """As in ``input float32 (time, batch, 4)``."""
        return f"{self.name} {self.dtype} {shown(self.axes)}"


@dataclass(frozen=True)
class Tensor:
    """A stored tensor's dimensions and type, without its contents; `location` is its external file, if any."""

    dims: tuple[int, ...]
    elem_type: int
    location: str | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """The size in bytes; elements smaller than a byte are packed."""
        return -(-self.size * _bits(self.elem_type) // 8)

    @property
    def is_weight(self) -> bool:
        """Whether its elements count as parameters: it is neither a scalar nor shapes, axes or indices."""
        return bool(self.dims) and self.elem_type not in _INDEX_TYPES

    @classmethod
    def of(cls, tensor: TensorProto) -> Tensor:
        """The description of an initializer."""
        external = tensor.data_location == TensorProto.EXTERNAL
        keys = {entry.key: entry.value for entry in tensor.external_data} if external else {}
        return cls(tuple(tensor.dims), tensor.data_type, keys.get("location"))

    @classmethod
    def of_constant(cls, attribute: AttributeProto) -> Tensor:
        """The description of a Constant node's tensor, from its attribute."""
        if attribute.type == AttributeProto.TENSOR:
            return cls.of(attribute.t)
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            return cls.of(attribute.sparse_tensor.values)
        if attribute.type == AttributeProto.FLOATS:
            return cls((len(attribute.floats),), TensorProto.FLOAT)
        # Any other content (numbers, integers, strings) is not a weight.
        return cls((), TensorProto.INT64)


def value_of(item: ValueInfoProto) -> Value:
    """The description of an input, output or intermediate value; if it is not a tensor, its dtype is its kind."""
    kind = item.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        return Value(item.name, kind.removesuffix("_type"), ())
    return Value(item.name, dtype_name(item.type.tensor_type.elem_type), shape_of(item.type))


def shape_of(kind: TypeProto) -> Shape | None:
    """The dimensions of a tensor's type; None for other types or an unknown rank."""
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)


def axis_name(value: str, axis: int) -> str:
    """The name for an axis without one: ``input[0]``."""
    return f"{value}[{axis}]"


def shown(shape: Shape | None) -> str:
    """As in ``(batch, time, 4)``."""
    if shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"


def dtype_name(elem_type: int) -> str:
    """NumPy's name for an ONNX element type."""
    try:
        name = str(TensorProto.DataType.Name(elem_type))
    except ValueError:
        return "unknown"
    return {"FLOAT": "float32", "DOUBLE": "float64", "UNDEFINED": "unknown"}.get(name, name.lower())


def _bits(elem_type: int) -> int:
    """The bits of one element, from the type's name: float16, int4, float8e4m3fn."""
    digits = re.search("[0-9]+", dtype_name(elem_type))
    return int(digits[0]) if digits else 8


def is_default(domain: str) -> bool:
    """Whether it is the domain of ONNX's own operators."""
    return domain in ("", "ai.onnx")


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node that are numbers, strings or lists of these."""
    plain = (item for item in node.attribute if item.type in _PLAIN and not item.ref_attr_name)
    return {item.name: helper.get_attribute_value(item) for item in plain}


def typed(attributes: dict[str, Any], name: str, kind: type[T]) -> T:
    """The attribute's value; 0 or empty if it is absent or not of this `kind`."""
    value = attributes.get(name)
    return value if isinstance(value, kind) else kind()


def text(value: Any) -> str:
    """An attribute's value as text, whatever its type."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
