"""What a recurrent network is: its sizes, and everything that follows from them.

`LSTMSpec` holds the arguments of ``torch.nn.LSTM`` under their own names and gives the shapes of
inputs, states, outputs and parameters; `GRUSpec` and `RNNSpec` do so for ``torch.nn.GRU`` and
``torch.nn.RNN``.  `ExportOptions` says how an LSTM is written down.  Spec and options travel in an
exported file's metadata as JSON, so that the runtime knows them without torch or onnx.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import ConfigError, one_of, shown

DTYPES = ("float32", "float64", "float16")
NONLINEARITIES = ("tanh", "relu")
PROJECTIONS = ("scan", "fold")
PRECISIONS = ("float64", "float32", "float16", "int8")
"""Of float16 and int8 the weights alone: inputs, outputs and states are float32."""
INT8_LAYERS = ("all", "recurrent")
INT8_KERNELS = ("MatMulInteger", "DynamicQuantizeLSTM", "MatMulNBits", "MatMulNBits-256")
"""What computes the products of an int8 file; see `quantization.quantize`."""
TARGETS = ("openvino", "tract", "web", "webgpu", "coreml", "qnn", "tensorrt", "triton")
"""Engines and servers that a file may be meant for, other than ONNX Runtime on this machine."""
MIN_OPSET, MAX_OPSET, DEFAULT_OPSET = 14, 23, 18
"""Opsets 14-21 hold LSTM-14, which every ONNX Runtime runs on CPU and CUDA; 22 and 23 hold LSTM-22."""
_LARGEST_SIZE = 2**31 - 1

D = TypeVar("D", int, str)
"""A dimension: a size, or an axis name."""
S = TypeVar("S", bound="RecurrentSpec")


class _Rule:
    """What one field may hold: a type, a test of the value, and both in words; if `optional`, also None."""

    def __init__(self, type: type, test: Callable[[Any], bool], allowed: str, *, optional: bool = False) -> None:  # noqa: A002 - as in a field
        self.type, self.test, self.allowed, self.optional = type, test, allowed, optional


def _size(minimum: int) -> _Rule:
    return _Rule(int, lambda v: minimum <= v <= _LARGEST_SIZE, f"an integer of {minimum} or more, below 2**31")


def _flag() -> _Rule:
    return _Rule(bool, lambda _: True, "true or false")


def _choice(options: tuple[str, ...], *, optional: bool = False) -> _Rule:
    return _Rule(str, lambda v: v in options, one_of(options), optional=optional)


def _ruled(rule: _Rule, **keywords: Any) -> Any:
    return field(metadata={"rule": rule}, **keywords)


def _check_fields(instance: Any) -> None:
    for item in dataclasses.fields(instance):
        rule: _Rule = item.metadata["rule"]
        value = getattr(instance, item.name)
        if value is None and rule.optional:
            continue
        # bool is an int, and an int is a fine float; everything else must be of the very type.
        right_type = type(value) is rule.type or (rule.type is float and type(value) is int)
        if not right_type or not rule.test(value):
            raise ConfigError.of_argument(item.name, value, rule.allowed)


@dataclass(frozen=True)
class RecurrentSpec:
    """What nn.LSTM, nn.GRU and nn.RNN have in common; each kind adds its own arguments and `dtype`.

    `gates` is how many gates share a matrix, `op_type` the ONNX operator, and `has_cell` whether there
    is a cell state beside h.

    Raises:
        ConfigError: a value is of the wrong type or impossible; the message names the argument and
            what is allowed.
    """

    # Each kind sets its own.  Not annotated: __dataclass_fields__, which callers list, would hold even a ClassVar.
    gates = 0
    op_type = ""
    has_cell = False

    input_size: int = _ruled(_size(1))
    hidden_size: int = _ruled(_size(1))
    num_layers: int = _ruled(_size(1), default=1)
    bias: bool = _ruled(_flag(), default=True)
    batch_first: bool = _ruled(_flag(), default=False)
    dropout: float = _ruled(_Rule(float, lambda v: 0 <= v <= 1, "a number from 0 to 1"), default=0.0)
    bidirectional: bool = _ruled(_flag(), default=False)

    def __post_init__(self) -> None:
        """Refuse what torch would refuse."""
        _check_fields(self)

    @property
    def dtype(self) -> str:
        """One of `DTYPES`; a field of each kind, where it comes last."""
        raise NotImplementedError

    @property
    def num_directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """Features of h: ``hidden_size``, but ``proj_size`` where an LSTM has a projection."""
        return self.hidden_size

    @property
    def output_size(self) -> int:
        """Features of the output: ``num_directions * state_size``."""
        return self.num_directions * self.state_size

    def layer_input_size(self, layer: int) -> int:
        """Features that layer `layer` reads: ``input_size`` for the first, ``output_size`` above it."""
        return self.input_size if layer == 0 else self.output_size

    def sequence_shape(self, batch: D, time: D, features: int) -> tuple[D | int, D | int, int]:
        """Shape of a sequence tensor, ``(batch, time, features)`` or ``(time, batch, features)``."""
        return (batch, time, features) if self.batch_first else (time, batch, features)

    def h_shape(self, batch: D) -> tuple[int, D, int]:
        """Shape of h0 and hn: ``(num_layers * num_directions, batch, state_size)``."""
        return (self.num_layers * self.num_directions, batch, self.state_size)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter of the module by its state-dict name, in torch's order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            shapes |= self._layer_shapes(layer)
        return shapes

    def _layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        gates = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for suffix in direction_suffixes(self.bidirectional):
            shapes[f"weight_ih_l{layer}{suffix}"] = (gates, self.layer_input_size(layer))
            shapes[f"weight_hh_l{layer}{suffix}"] = (gates, self.state_size)
            if self.bias:
                shapes[f"bias_ih_l{layer}{suffix}"] = (gates,)
                shapes[f"bias_hh_l{layer}{suffix}"] = (gates,)
            if self.state_size != self.hidden_size:
                shapes[f"weight_hr_l{layer}{suffix}"] = (self.state_size, self.hidden_size)
        return shapes

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold."""
        # All layers but the first are alike; a number of layers that no memory holds is not gone through.
        first, other = (sum(map(math.prod, self._layer_shapes(layer).values())) for layer in (0, 1))
        return first + (self.num_layers - 1) * other

    @property
    def num_bytes(self) -> int:
        """Bytes of all parameters in the spec's dtype."""
        return self.num_parameters * int(self.dtype.removeprefix("float")) // 8


@dataclass(frozen=True)
class LSTMSpec(RecurrentSpec):
    """The arguments of ``torch.nn.LSTM``, by its names, with its defaults.

    Raises:
        ConfigError: a value is of the wrong type or impossible; the message names the argument and
            what is allowed.
    """

    gates = 4  # input, forget, cell and output
    op_type = "LSTM"
    has_cell = True

    proj_size: int = _ruled(_size(0), default=0)
    dtype: str = _ruled(_choice(DTYPES), default="float32")

    def __post_init__(self) -> None:
        """Refuse what nn.LSTM would refuse."""
        super().__post_init__()
        if self.proj_size >= self.hidden_size:
            allowed = f"smaller than hidden_size = {self.hidden_size} (0 is for no projection)"
            raise ConfigError.of_argument("proj_size", self.proj_size, allowed)

    @property
    def state_size(self) -> int:
        """Features of h: ``proj_size`` where there is a projection, else ``hidden_size``."""
        return self.proj_size or self.hidden_size

    def c_shape(self, batch: D) -> tuple[int, D, int]:
        """Shape of c0 and cn: ``(num_layers * num_directions, batch, hidden_size)``."""
        return (self.num_layers * self.num_directions, batch, self.hidden_size)


@dataclass(frozen=True)
class GRUSpec(RecurrentSpec):
    """The arguments of ``torch.nn.GRU``, by its names, with its defaults.

    Raises:
        ConfigError: a value is of the wrong type or impossible; the message names the argument and
            what is allowed.
    """

    gates = 3
    op_type = "GRU"

    dtype: str = _ruled(_choice(DTYPES), default="float32")


@dataclass(frozen=True)
class RNNSpec(RecurrentSpec):
    """The arguments of ``torch.nn.RNN``, by its names, with its defaults.

    Raises:
        ConfigError: a value is of the wrong type or impossible; the message names the argument and
            what is allowed.
    """

    gates = 1
    op_type = "RNN"

    nonlinearity: str = _ruled(_choice(NONLINEARITIES), default="tanh")
    dtype: str = _ruled(_choice(DTYPES), default="float32")


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written to ONNX.

    `lengths` adds the int32 input ``lengths`` (batch,).  `projection` chooses the lowering of ``proj_size > 0`` and of
    layers of float64: "scan" is exact for every weight, "fold" keeps the standard operators. `opset` is that of the
    default ONNX domain.  `precision` is one of `PRECISIONS`, None for the module's own; `layers` says which layers
    ``precision="int8"`` applies to, "all" or the "recurrent" ones, and `kernel` which operator computes their
    products.  `target` is one of `TARGETS`: layers get a form that gives right results there, and a model without one
    is refused; None is for ONNX Runtime.

    Raises:
        ConfigError: a value is of the wrong type or impossible.
    """

    lengths: bool = _ruled(_flag(), default=False)
    projection: str = _ruled(_choice(PROJECTIONS), default="scan")
    opset: int = _ruled(
        _Rule(int, lambda v: MIN_OPSET <= v <= MAX_OPSET, f"an integer from {MIN_OPSET} to {MAX_OPSET}"),
        default=DEFAULT_OPSET,
    )
    precision: str | None = _ruled(_choice(PRECISIONS, optional=True), default=None)
    layers: str = _ruled(_choice(INT8_LAYERS), default=INT8_LAYERS[0])
    kernel: str = _ruled(_choice(INT8_KERNELS), default=INT8_KERNELS[0])
    target: str | None = _ruled(_choice(TARGETS, optional=True), default=None)

    def __post_init__(self) -> None:
        """Refuse what cannot be written."""
        _check_fields(self)
        for name, value, default in (("layers", self.layers, "all"), ("kernel", self.kernel, INT8_KERNELS[0])):
            if value != default and self.precision != "int8":
                raise ConfigError(f"{name} = {shown(value)} is not possible", hint='it goes with precision = "int8"')

    @property
    def dtype(self) -> str | None:
        """What the module is computed in: float32 where `precision` is that of the weights alone; None for its own."""
        return "float32" if self.precision in ("float16", "int8") else self.precision

    def to_dict(self) -> dict[str, Any]:
        """The fields without the newer ones that have their defaults, so that older versions read them."""
        newer = (("precision", None), ("layers", INT8_LAYERS[0]), ("kernel", INT8_KERNELS[0]), ("target", None))
        return {name: value for name, value in dataclasses.asdict(self).items() if (name, value) not in newer}


def direction_suffixes(bidirectional: bool) -> tuple[str, ...]:
    """What torch appends to a parameter's name for each direction."""
    return ("", "_reverse") if bidirectional else ("",)


def allowed_values(cls: type) -> dict[str, str]:
    """For each field of a spec or of `ExportOptions`, what it may hold, in words."""
    return {item.name: item.metadata["rule"].allowed for item in dataclasses.fields(cls)}


def from_attributes(cls: type[S], values: Mapping[str, Any]) -> S:
    """A spec of a module's attributes: like torch, it takes any truth value for a flag and any integer for a size.

    Raises:
        ConfigError: a value is impossible.
    """
    types = {item.name: item.metadata["rule"].type for item in dataclasses.fields(cls)}
    return cls(**{name: _converted(value, types[name]) for name, value in values.items()})


def _converted(value: Any, kind: type) -> Any:
    try:
        if kind is bool:
            return bool(value)
        if kind is int:
            return operator.index(value)
        return float(value) if kind is float else value
    except (TypeError, ValueError, RuntimeError):
        return value  # which the spec refuses
