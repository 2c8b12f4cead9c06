"""The names of nodes, values and initializers in exported files.

A recurrent layer is called after its module, its call and its number: ``encoder/lstm/l0/LSTM``, or from a
module's second call on ``encoder/lstm/call2/l0/LSTM``.  Its weights, shared by all calls, are
``encoder/lstm/l0/W`` and so on; its states are ``encoder.lstm.h0``, ``encoder.lstm.hn``.  Names depend on
the module alone, so that two exports of a module are the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

DIRECTIONS = ("forward", "reverse")
FOLDED_INVERSE = "W_hr_pinv"
"""The pseudo-inverse of W_hr by which a folded layer multiplies h0."""


def scope_prefix(path: str, call: int = 0) -> str:
    """What the nodes of a module's call start with: ``encoder/lstm/``, ``encoder/lstm/call2/``."""
    # A slash in a name, such as a key of an nn.ModuleDict, would make "a/b" the path of b in a.
    return state_prefix(path, call).replace("/", ":").replace(".", "/")


def state_prefix(path: str, call: int = 0) -> str:
    """What the states of a module's call start with: ``encoder.lstm.``, ``encoder.lstm.call2.``."""
    own = f"call{call + 1}" if call else ""
    return "".join(f"{part}." for part in (path, own) if part)


def state_names(name: str, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The inputs and outputs of an attribute's `count` tensors: two are taken for (h, c).

    Inputs and outputs sort alike, since Triton pairs them by their sorted names.
    """
    if count == 1:
        return (f"{name}.h0",), (f"{name}.hn",)
    if count == 2:
        return (f"{name}.h0", f"{name}.c0"), (f"{name}.hn", f"{name}.cn")
    return tuple(f"{name}.{i}.h0" for i in range(count)), tuple(f"{name}.{i}.hn" for i in range(count))


def node_name(scope: str, op_type: str, used: Counter[str]) -> str:
    """A new name after the module whose code made the node: ``encoder/out/MatMul``, ``encoder/out/MatMul_2``.

    Args:
        scope: the module's path with slashes, or "".
        op_type: the node's operator.
        used: how often each name occurred; the new one is counted.
    """
    name = f"{scope}/{op_type}" if scope else op_type
    used[name] += 1
    return name if used[name] == 1 else f"{name}_{used[name]}"


_OPERANDS: Mapping[str, Mapping[int, str]] = {
    "MatMul": {1: "weight"},
    "Gemm": {1: "weight", 2: "bias"},
    "Add": {1: "bias"},
    "Conv": {1: "weight"},
}


def operand_name(node: str, op_type: str, index: int) -> str:
    """An initializer without a name of its own, after the node that first reads it: ``out/MatMul/weight``."""
    return f"{node}/{_OPERANDS.get(op_type, {}).get(index, index)}"
