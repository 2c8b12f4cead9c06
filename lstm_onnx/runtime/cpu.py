"""Reads the name of this CPU, and which of its instruction sets matter for int8 products."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
"""Instructions that add products of bytes in 32 bits, by Linux's names."""
_NAMES = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx2": "AVX2",
    "asimddp": "dot products (ARM)",
    "i8mm": "int8 matrix products (ARM)",
}


@cache
def cpu_flags() -> frozenset[str]:
    """The flags that Linux lists for the CPU; empty on another system."""
    return frozenset((_listed("flags", "Features") or "").split())


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    name = _listed("model name")
    return platform.processor() or platform.machine() if name is None else name


def _listed(*keys: str) -> str | None:
    """What Linux lists for the CPU under the first of these keys; None on another system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(keys)), None)


def int8_instructions(flags: frozenset[str]) -> tuple[bool | None, str]:
    """Whether a CPU with these flags has fast int8 products that do not saturate, None if unknown; and why."""
    found = ", ".join(name for flag, name in _NAMES.items() if flag in flags)
    if flags & VNNI or flags & {"asimddp", "i8mm"}:
        return True, f"{found}: int8 products are exact and fast"
    if "avx2" in flags:
        return False, (
            f"{found} without VNNI: 8-bit weights saturate in 16 bits, 7-bit ones (lstm-onnx quantize) do not; "
            "int8 gains less, and MatMulNBits may be slower than float32"
        )
    return None, "the CPU's instructions are unknown here; 7-bit weights (lstm-onnx quantize) are exact on every CPU"
