"""What all tests share: one torch thread, hypothesis without a clock, and CUDA tests where there is a GPU."""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Of numpy and torch, here and in child processes, before either is imported: workers share the cores, and threads that
# wait for work spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# The examples follow from the test alone, so that a run can be repeated and two workers agree.
settings.register_profile(
    "lstm-onnx", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lstm-onnx")
gc.disable()  # until the tests are collected: it finds nothing among them, and takes a sixth of that time


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: a fifth of the time, one waits for a server, a browser or a time limit."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in not_in_the_first_part(items):
        item.add_marker(pytest.mark.slow)
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    from lstm_onnx.runtime.providers import cuda_unavailable

    reason = cuda_unavailable()
    if reason is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    # A fifth of the time of an export is the collector's.  What is there by now, and what torch makes, stays anyway; to
    # look for what is not needed among it takes a second.
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 50)


def pytest_runtest_setup() -> None:
    # Workers share the cores.  torch is not imported for this: most tests do without it.
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads") and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    # pytest gives each logger that does not propagate a handler, and where this one has any, torch writes a report of
    # each step of a trace, with its stack and graph.
    logging.getLogger("torch.__trace").propagate = True


def not_in_the_first_part(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests of sweeps that only a whole run has: all but one of `parts` of each family, and of each at least one.

    A family is what has one marker: a test with its parameters, or a file of tests.  Which of it run follows from
    their names, so that workers agree.
    """
    families: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            continue
        for node, sweep in item.iter_markers_with_node("sweep"):
            family = node.nodeid if node is not item else item.nodeid.partition("[")[0]
            families.setdefault((family, *sweep.args), []).append(item)
            break  # the closest
    for (_, parts), family in families.items():
        family.sort(key=lambda item: zlib.crc32(item.name.encode()))
        yield from family[math.ceil(len(family) / parts) :]


@pytest.fixture
def script_environment() -> dict[str, str]:
    """The environment for a subprocess in which `lstm-onnx` and `python` are those of this interpreter."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


@pytest.fixture(scope="session")
def _programs(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    from .forks.started import common_folder, programs

    with programs(common_folder(pytestconfig, tmp_path_factory)) as folder:
        yield folder


@pytest.fixture
def forking_environment(script_environment: dict[str, str], _programs: Path | None) -> dict[str, str]:
    """`script_environment`, but that `lstm-onnx` and `python` are forks with most imports done, see `tests.forks`."""
    if _programs is None:
        return script_environment
    return {**script_environment, "PATH": os.pathsep.join([str(_programs), script_environment["PATH"]])}


@pytest.fixture(scope="session")
def _forked_children() -> Iterator[Callable[..., Any] | None]:
    if sys.platform != "linux":
        yield None
        return
    from .fuzz.forking import Forks

    forks = Forks()
    yield forks.started
    forks.close()


@pytest.fixture
def forked_children(_forked_children: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child processes of `lstm_onnx.isolation` are forks of one that has their imports done."""
    if _forked_children is not None:
        from lstm_onnx.isolation import process, supervision

        for module in (process, supervision):
            monkeypatch.setattr(module, "started", _forked_children)
