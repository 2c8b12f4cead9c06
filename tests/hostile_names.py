"""Names that a terminal, GitHub or a page would act upon, a file full of them, and what must be in no output."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAMES = {
    "escape codes": "\x1b[2J\x1b]0;title\x07",
    "carriage return": "right\rwrong",
    "a command on a line of its own": "a\n::error::hacked\nb",
    "a command at the start": "::error file=x::hacked",
    "an old command": "a ##[error]hacked",
    "Azure's command": "##vso[task.complete result=Succeeded]",
    "bidi controls": "a\u202eb\u2066c\u2069",
    "line separators": "a\u2028::error::x\u2029b\x85c\x0bd",
    "markup": "</p><script>alert(1)</script>|`*_[x](y)",
    "very long": "n" * 100_000,
    "very long lines": "a\n" * 50_000,
}
"""Each can stand in an .onnx file, whose texts are UTF-8."""


def unsafe(text: str) -> list[str]:
    """The lines that a terminal or the runner of a CI service would act upon."""
    return [
        line[:200]
        for line in text.split("\n")
        if not line.replace("\t", "").isprintable() or line.lstrip().startswith("::") or re.search(r"##\w*\[", line)
    ]


def write_model(path: str | os.PathLike[str], name: str) -> None:
    """An LSTM of 4 inputs and 3 features, in which all that has a name has one of `name`'s."""
    rng = np.random.default_rng(0)
    w, r = (rng.standard_normal((1, 12, size)).astype(np.float32) for size in (4, 3))
    node = helper.make_node("LSTM", [name, f"{name}W", f"{name}R"], [f"{name}y"], name=f"{name}node", hidden_size=3)
    graph = helper.make_graph(
        [node],
        f"{name}graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}time", f"{name}batch", 4])],
        [helper.make_tensor_value_info(f"{name}y", TensorProto.FLOAT, [f"{name}time", 1, f"{name}batch", 3])],
        [numpy_helper.from_array(w, f"{name}W"), numpy_helper.from_array(r, f"{name}R")],
        doc_string=name,
    )
    opsets = [helper.make_opsetid("", 18)]
    version = helper.find_min_ir_version_for(opsets)
    model = helper.make_model(graph, producer_name=name, opset_imports=opsets, ir_version=version, doc_string=name)
    for key in ("lstm_onnx.notes", "lstm_onnx.whole", name):
        model.metadata_props.add(key=key, value=json.dumps(name))
    Path(path).write_bytes(model.SerializeToString())
    assert onnx.load(path).graph.node[0].name == f"{name}node"
