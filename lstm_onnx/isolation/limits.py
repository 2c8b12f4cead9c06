"""Sets limits on time and memory for work on a file, and has the operating system enforce them."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass

_STAGE_SECONDS, _STAGES = 20.0, 3
_BYTES_A_SECOND = 20 * 2**20
"""A large file gets one more second for this many bytes: reading, checking and opening run at 100 MB/s or more."""
_MEMORY, _COPIES = 4 * 2**30, 8
"""The memory for any file in bytes, and how many times its size is added: it is parsed, checked, opened and packed."""
_MOST_SIBLINGS = 1000
_LARGE, _MOST_SEARCHED = 2**20, 2**26
_CPU_SLACK = 10
_KILL = 9
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Limits:
    """The limits of one call.

    Attributes:
        stage: the most seconds of wall time for each stage of the work.
        total: the most seconds for all of the work.
        memory: the most bytes of writable memory in addition to what the process already has.
        start: the most seconds until the process has started the work.
    """

    stage: float = _STAGE_SECONDS
    total: float = _STAGES * _STAGE_SECONDS
    memory: int = _MEMORY
    start: float = 120.0

    @classmethod
    def of(cls, path: str | os.PathLike[str], seconds: float | None = None) -> Limits:
        """The limits for work on a file, from its size and that of its external data; `seconds` replaces the total."""
        size = _size(path)
        stage = _STAGE_SECONDS + size / _BYTES_A_SECOND
        if seconds is None:
            return cls(stage, _STAGES * stage, _MEMORY + _COPIES * size)
        return cls(seconds, seconds, _MEMORY + _COPIES * size)


def _size(path: str | os.PathLike[str]) -> int:
    """The bytes of a file, and of the files in its folder whose names occur in it, such as external data."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        total = os.stat(path).st_size  # noqa: PTH116 - without pathlib, which is slow to import
        if not os.path.isfile(path) or total > _MOST_SEARCHED:  # noqa: PTH113
            return total
        with os.scandir(os.path.dirname(os.path.realpath(path))) as entries:  # noqa: PTH120
            beside = {
                entry.name: entry.stat().st_size
                for _, entry in zip(range(_MOST_SIBLINGS), entries, strict=False)
                if entry.is_file() and entry.stat().st_size > _LARGE
            }
        if beside:
            with open(path, "rb") as stream:
                content = stream.read()
            total += sum(size for name, size in beside.items() if os.fsencode(name) in content)
    return total


def prepare(parent: int) -> None:
    """Prepare a child process, so that it ends with its parent, leaves no core file, and ignores Ctrl-C."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    without_core()


def without_core() -> None:
    """Disable core files."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with(parent: int) -> None:
    """Make the kernel end this process when its parent ends in any way; on Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent had already ended
            os._exit(1)


def limit(memory: int, seconds: float | None) -> None:
    """Limit a child's next call: its writable memory and, in case the parent no longer watches, its CPU time."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        if seconds is not None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            cores = os.cpu_count() or 1
            _set_soft(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds * cores + _CPU_SLACK))
        if sys.platform == "linux":
            # RLIMIT_DATA, since threads and CUDA reserve much more address space than they use.
            with open("/proc/self/statm", encoding="ascii") as stream:
                pages = int(stream.read().split()[5])
            _set_soft(resource.RLIMIT_DATA, pages * resource.getpagesize() + memory)


def lift_memory_limit() -> None:
    """Undo the memory limit of `limit`."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _set_soft(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def how_it_ended(code: int) -> str:
    """A process's return code, as text."""
    if code >= 0:
        return f"ended the process (exit code {code})"
    import signal

    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    explanations = {"SIGKILL": ", which the system sends where memory runs out", "SIGXCPU": ", after too much CPU time"}
    return f"ended the process ({name}{explanations.get(name, '')})"
