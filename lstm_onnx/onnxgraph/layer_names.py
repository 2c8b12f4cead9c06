"""The names that lstm-onnx gives to the nodes and weights of a layer, as far as they are read back from a file.

Layer 0 of the module at path ``encoder`` is ``encoder/l0``: its node is ``encoder/l0/LSTM`` (GRU, RNN, Scan), its
weights are ``encoder/l0/W`` and so on.  A second call of the module adds ``call2/`` to its nodes' names alone.
"""

from __future__ import annotations

import re

_CALL = re.compile(r"(?:^|(?<=/))call[0-9]+/(?=l[0-9]+/[A-Za-z]*$)")
_LAYER = re.compile(r"(?:(?P<path>.+)/)?l[0-9]+/(?:LSTM|GRU|RNN|Scan)")
PSEUDO_INVERSE = "/W_hr_pinv"
"""The weight that maps h0 into a layer whose projection is folded into R."""
MAP_H0, PROJECTIONS = "/unproject_h0", ("/project", "/project_hn")
"""The MatMuls before and after such a layer."""
RECURRENT_MATMUL, NEW_H = "/recurrent_gates", "/new_h"
"""In the body of a layer's Scan, one each for each direction: R h, and what gives h (a product with W_hr, if any)."""
RESET, RECURRENT_BIAS = "/reset", "/recurrent_new_biased"
"""In that of a GRU: the new gate's part of R h times the reset gate, and before it plus its bias."""


def module_path(node: str) -> str | None:
    """The path of the nn.Module whose layer the node of that name is; None for another node."""
    match = _LAYER.fullmatch(_CALL.sub("", node))
    return (match["path"] or "").replace("/", ".") if match else None
