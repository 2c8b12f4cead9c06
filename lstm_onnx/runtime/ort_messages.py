"""What ONNX Runtime's messages say to a user."""

from __future__ import annotations

import re

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
