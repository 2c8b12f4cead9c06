from __future__ import annotations

from ..cli.conftest import run_cli

__all__ = ["run_cli"]
