"""Writes folders for other programs: a model repository for Triton and, in `web`, a folder for browsers and Node."""

from __future__ import annotations

from .triton import TritonResult, deploy_triton

__all__ = ["TritonResult", "deploy_triton"]
