"""The placeholder node for a recurrent module in a graph of torch.onnx, until the real nodes replace it."""

from __future__ import annotations

from typing import Any

from onnx.defs import OpSchema
from onnxscript import values

from ..opaque.operators import OPERATOR

DOMAIN, OP_TYPE = OPERATOR.split("::")
_FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)"]


def _schema() -> OpSchema:
    parameter, attribute, optional = (
        OpSchema.FormalParameter,
        OpSchema.Attribute,
        OpSchema.FormalParameterOption.Optional,
    )
    return OpSchema(
        OP_TYPE,
        DOMAIN,
        1,
        "a placeholder for a recurrent module until the real nodes replace it",
        inputs=[
            parameter("x", "T"),
            parameter("h0", "T", param_option=optional),
            parameter("c0", "T", param_option=optional),
            parameter("lengths", "I", param_option=optional),
        ],
        outputs=[parameter(name, "T") for name in ("output", "hn", "cn")],
        type_constraints=[("T", _FLOATS, ""), ("I", ["tensor(int32)", "tensor(int64)"], "")],
        attributes=[
            attribute("module", OpSchema.AttrType.STRING, "", required=True),
            attribute("call", OpSchema.AttrType.INT, "", required=True),
            attribute("batch_first", OpSchema.AttrType.INT, "", required=True),
        ],
    )


_OPAQUE = values.Op(values.Opset(DOMAIN, 1), OP_TYPE, _schema())


def translation(
    x: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    module: str,
    call: int,
    batch_first: bool,
    rows: int,  # noqa: ARG001
    output_size: int,  # noqa: ARG001
    h_size: int,  # noqa: ARG001
    c_size: int,  # noqa: ARG001
) -> Any:
    """The translation for torch.onnx, with the operator's arguments."""
    return _OPAQUE(x, h0, c0, lengths, module=module, call=call, batch_first=int(batch_first))
