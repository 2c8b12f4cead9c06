"""Each int8 layer that `quantize` wrote as an `LSTMInfo`: a Scan, known by the names of the products in its body."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from ..onnxgraph import Scope, Tensor, attributes_of, bodies_of, typed
from ..onnxgraph.recurrent import NEW_H, RECURRENT_MATMUL, initial_states, is_scan
from ..quantization.kernels import BLOCK_SIZES, MATMUL_INTEGER, MATMUL_NBITS
from ..quantization.recurrent import HIDDEN_PRODUCT, INPUT_PRODUCT, OR_NAN, RESET_PRODUCT
from .lstms import ELEMENTWISE
from .report import LSTMInfo

INT8 = "int8 "
"""What the kind of these layers starts with."""
_OP_TYPES = {4: "LSTM", 3: "GRU", 1: "RNN"}
_PRODUCTS = (MATMUL_INTEGER, MATMUL_NBITS)
_BY_ROWS = "MatMulInteger: a scale for each row and each output feature"
_BY_BLOCKS = "{kernel}: a scale for each {block} features of a row and of an output feature"


@dataclass(frozen=True)
class _Product:
    """A product of a layer: the weight's integers, its sizes (in, out), and the operator."""

    tensor: Tensor
    sizes: tuple[int, int]
    op_type: str


def int8_info(scope: Scope, node: NodeProto) -> LSTMInfo | None:
    """The int8 layer that the node is, None for any other node."""
    body = next(bodies_of(node), None) if is_scan(node) and node.name.endswith("/Scan") else None
    if body is None:
        return None
    prefix = node.name.removesuffix("/Scan")
    recurrent = _products(scope, body.node, f"/{HIDDEN_PRODUCT}", f"/{RESET_PRODUCT}")
    if recurrent:
        return _operator(scope, node, prefix, recurrent)
    recurrent = _products(scope, body.node, RECURRENT_MATMUL)
    return _projected(scope, node, prefix, recurrent, _products(scope, body.node, NEW_H))


def _operator(scope: Scope, node: NodeProto, prefix: str, recurrent: list[_Product]) -> LSTMInfo | None:
    """One direction of what was an operator: W (I, GH), R (H, GH), of a GRU perhaps in two parts."""
    inputs = _products(scope, scope.nodes, f"{prefix}/{INPUT_PRODUCT}")
    hidden = recurrent[0].sizes[0]
    op_type = _OP_TYPES.get(sum(product.sizes[1] for product in recurrent) // max(hidden, 1))
    if not inputs or op_type is None:
        return None
    reverse = prefix.endswith("/reverse")
    return _info(scope, node, op_type, "reverse" if reverse else "forward", [*inputs, *recurrent], hidden, 0, 1)


def _projected(
    scope: Scope, node: NodeProto, prefix: str, recurrent: list[_Product], projections: list[_Product]
) -> LSTMInfo | None:
    """All directions of a projected LSTM: W (I, D*4H), for each direction R (P, 4H) and perhaps W_hr (H, P)."""
    inputs = _products(scope, scope.nodes, f"{prefix}/input_gates")
    if not inputs or not recurrent:
        return None
    proj_size, gates = recurrent[0].sizes
    direction = "bidirectional" if len(recurrent) > 1 else "forward"
    weights = [*inputs, *recurrent, *projections]
    return _info(scope, node, "LSTM", direction, weights, gates // 4, proj_size, len(recurrent))


def _info(
    scope: Scope,
    node: NodeProto,
    op_type: str,
    direction: str,
    weights: list[_Product],
    hidden_size: int,
    proj_size: int,
    directions: int,
) -> LSTMInfo:
    # The last value that a body reads says which steps are valid.  A broken file's body may read nothing.
    masked = any(value.type.tensor_type.elem_type == TensorProto.BOOL for value in next(bodies_of(node)).input[-1:])
    states = [source for name in initial_states(node) for source in scope.origins(_state(scope, name))[0]]
    products = sum(2 * product.sizes[0] * product.sizes[1] for product in weights)
    return LSTMInfo(
        name=node.name,
        kind=f"{INT8}{op_type}",
        direction=direction,
        input_size=weights[0].sizes[0],
        hidden_size=hidden_size,
        proj_size=proj_size,
        bias=True,
        states=tuple(dict.fromkeys(states)),
        lengths=next((source for name in node.input[-1:] for source in scope.origins(name)[0]), "") if masked else None,
        dtype="int8",
        parameters=sum(product.sizes[0] * product.sizes[1] for product in weights),
        bytes=sum(product.tensor.num_bytes for product in weights),
        flops_per_step=products + directions * hidden_size * ELEMENTWISE[op_type],
        notes=(_note(weights),),
    )


def _note(weights: list[_Product]) -> str:
    """The kernel, and what has a scale."""
    if weights[0].op_type == MATMUL_INTEGER:
        return _BY_ROWS
    blocks = [product.tensor.dims[-1] for product in weights]
    kernel = next((kernel for kernel, largest in BLOCK_SIZES.items() if max(blocks) <= largest), MATMUL_NBITS)
    return _BY_BLOCKS.format(kernel=kernel, block=" or ".join(map(str, sorted(set(blocks)))))


def _state(scope: Scope, name: str) -> str:
    """The initial state itself, before it was made NaN where the other one is."""
    producer = scope.producer(name) if name.endswith(OR_NAN) else None
    return next(iter(producer.input), "") if producer is not None else name


def _products(scope: Scope, nodes: Iterable[NodeProto], *suffixes: str) -> list[_Product]:
    """The products whose layer's names end so."""
    found = []
    for node in nodes:
        name = str(node.name).removesuffix(f"/{node.op_type}").removesuffix("/product")
        if node.op_type not in _PRODUCTS or not name.endswith(suffixes) or len(node.input) < 2:
            continue
        tensor = scope.weight(node.input[1]).tensor
        attributes = attributes_of(node)
        in_blocks = node.op_type == MATMUL_NBITS
        if tensor is None or len(tensor.dims) != (3 if in_blocks else 2):
            continue
        sizes = (typed(attributes, "K", int), typed(attributes, "N", int)) if in_blocks else tensor.dims
        found.append(_Product(tensor, (sizes[0], sizes[1]), node.op_type))
    return found
