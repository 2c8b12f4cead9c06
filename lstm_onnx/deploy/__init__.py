"""Files in the layout that other servers need."""

from __future__ import annotations

from .triton import TritonResult, deploy_triton

__all__ = ["TritonResult", "deploy_triton"]
