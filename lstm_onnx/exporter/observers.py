"""Modules with which torch.ao.quantization observes numbers, or rounds them as a quantized module does.

A module that was prepared for quantization has them in many places.  Observers pass on the numbers that they get, and
so do those that round once they are switched off.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

_OWN = "torch.ao.quantization."


def rounds(module: nn.Module) -> bool:
    """Whether a module rounds the numbers that it gets to those of an integer type."""
    enabled: Any = getattr(module, "fake_quant_enabled", None)
    return _is_a(module, "fake_quantize", "FakeQuantizeBase") and bool(enabled.any())


def remove_observers(copy: nn.Module) -> None:
    """Replace the submodules of a copy that pass on what they get, and keep records of it, by nn.Identity."""
    for part in list(copy.modules()):
        for name, child in part._modules.items():
            if child is not None and _passes(child):
                part._modules[name] = nn.Identity().eval()


def _passes(module: nn.Module) -> bool:
    if not type(module).__module__.startswith(_OWN) or module._forward_hooks or module._forward_pre_hooks:
        return False
    off = _is_a(module, "fake_quantize", "FakeQuantizeBase") and not rounds(module)
    return off or _is_a(module, "observer", "ObserverBase")


def _is_a(module: nn.Module, file: str, base: str) -> bool:
    # There is none where nothing imported them, and importing them here would cost each export its time.
    return isinstance(module, getattr(sys.modules.get(_OWN + file), base, ()))
