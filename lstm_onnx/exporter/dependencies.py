"""The optional packages that exporting needs: torch, and for modules onnxscript and onnx_ir as well."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingDependencyError

_INSTALL = "pip install 'lstm-onnx[torch]' installs it"


def import_torch(why: str) -> Any:
    """The torch module.

    Args:
        why: what needs it, for the message.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependencyError(f"PyTorch is not installed, and {why}; {_INSTALL}") from None
    return torch


def require_tracer() -> None:
    """Require what torch.onnx.export needs besides torch.

    Raises:
        MissingDependencyError: onnxscript or onnx_ir is not installed.
    """
    for package in ("onnxscript", "onnx_ir"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise  # it is installed, and one of its own dependencies is not
            raise MissingDependencyError(
                f"{package} is not installed, and a module that is more than an nn.LSTM is exported with it; {_INSTALL}"
            ) from None
