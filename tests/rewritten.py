"""Bytecode with pytest's asserts: from a bare checkout each worker makes a share of it, rather than each all of it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def rewrite_share(config: pytest.Config, worker: int, workers: int) -> None:
    """Have one of so many `workers` rewrite what has no bytecode yet; pytest rewrites the rest where it is imported.

    Workers collect in the same order at the same time, so that without this each rewrites every module itself.
    """
    if sys.dont_write_bytecode:
        return
    with contextlib.suppress(ImportError, AttributeError, KeyError, TypeError):  # another pytest; it only saves time
        from _pytest.assertion import rewrite

        state = config.stash[rewrite.assertstate_key]
        paths = sorted([*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("lstm_onnx/**/*.py")])
        for path in paths[worker::workers]:
            made = rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"
            if made.exists() and made.stat().st_mtime >= path.stat().st_mtime:
                continue
            stat, code = rewrite._rewrite_test(path, config)
            if rewrite.try_makedirs(made.parent):
                rewrite._write_pyc(state, code, stat, made)
