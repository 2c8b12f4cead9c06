"""Extracts from ONNX Runtime's messages what helps a user."""

from __future__ import annotations

import re

from ..errors import ModelError, ProviderError

_PARAMETERS = r"\((?:[^()]|\([^()]*\))*\)"
_NOISE = (
    r"(?:\[ONNXRuntimeError\] : )?\b\d+ : [A-Z_]+ : "
    r"|Load model from (?s:.{1,4096}?) failed:"
    # file.cc:12 type name(parameters) [with T = type], by gcc and clang; file.cc:12 name, by MSVC
    r"|/[^\s:]{1,200}\.(?:cc|cpp|cu|h|hpp):\d+ "
    rf"[^()\n]{{0,300}}(?<=\S){_PARAMETERS}(?:[^() ]*{_PARAMETERS})*[^() ]*(?: const)?(?: \[with [^\]]*\])? "
    r"|\b[A-Z]:\\[^\s:]{1,200}\.(?:cc|cpp|cu|h|hpp):\d+ [\w:<>~]+ "
)
"""Parts of ONNX Runtime's messages that only help its developers."""


def first_line(error: BaseException) -> str:
    """The first line of an ONNX Runtime error, without codes, source locations and the file's path."""
    lines = re.sub(_NOISE, "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()


def open_error(error: BaseException, path: str, *, on_cpu: bool) -> ModelError | ProviderError:
    """The error to raise in place of ONNX Runtime's own if it cannot open a session."""
    reason = first_line(error)
    if "pthread_create failed" in reason:  # not the model's fault
        return ProviderError(
            f"ONNX Runtime cannot start its threads: {reason.rpartition('error msg: ')[2]}",
            hint="pass fewer threads, or raise the limit of memory or of processes, such as a container's",
            path=path,
        )
    if reason.startswith("Protobuf parsing failed"):
        reason = "it is not an ONNX model, or is truncated"
    if on_cpu and "Could not find an implementation for" in reason:
        # Most such operators are implemented in float32 and since opset 7, which the message does not say.
        reason += (
            "; its CPU provider lacks it in this dtype or version: export it as float32 with a later opset, or "
            'use provider "cuda"'
        )
    return ModelError(f"ONNX Runtime cannot open it: {reason}", path=path)
