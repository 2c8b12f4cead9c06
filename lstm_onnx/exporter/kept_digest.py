"""What identifies the weights of a file that became a module, for the files that are exported from it again.

A file may hold less than the module that it was exported from: parameters that no output needs are not in it, and a
projected layer has the sum of its two biases.  As long as a converted module has the numbers of its file, its export is
of the same weights, and says so.
"""

from __future__ import annotations

from typing import Any

_ATTRIBUTE = "_lstm_onnx_digests"


def keep_digest(module: Any, own: str, original: str | None) -> None:
    """Note the digest of a converted module's parameters, and that of the file that it was made of."""
    if original is not None and own != original:
        module.__dict__[_ATTRIBUTE] = (own, original)


def kept_digest(module: Any, own: str) -> str:
    """The digest of the file that a module was made of, if its parameters are still those; else their own."""
    before, original = module.__dict__.get(_ATTRIBUTE, (None, own))
    return str(original) if before == own else own
