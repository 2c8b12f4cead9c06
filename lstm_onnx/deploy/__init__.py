"""Folders for other programs: Triton's model repository here, browsers and Node in `web`."""

from __future__ import annotations

from .triton import TritonResult, deploy_triton

__all__ = ["TritonResult", "deploy_triton"]
