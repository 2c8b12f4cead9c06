"""Runs command lines in its own process, and tells of each how it went; see `campaign`.

The command line is the ``main`` of the module that the first argument names; the children of lstm-onnx's are forks
(see `forking`).  A job is a line of JSON on
stdin, ``{"folder": ..., "commands": [[...], ...]}``, and so is its answer on stdout: ``{"codes": [...],
"said": [...], "problem": ..., "ended": [...], "seconds": [...]}``, where `ended` says
of which children of the command line came no good end, and `seconds` how long each command took.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CommandLine = Callable[[list[str]], None]
MEMORY = 2 * 2**30
"""Bytes of address space that jobs may take beside what the process has when it is ready."""


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


_ENDED = re.compile(r"(ended the process \([^)]*\)|took longer than|ran out of the) .{0,40}?\bin (\w+ \w+)")
_STAGE_SECONDS = 5.0
"""Of a child's stage: files are small, and many hang."""


def _run(main: CommandLine, command: list[str]) -> tuple[int | str | None, str, str]:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command)
        except SystemExit as left:
            code: int | str | None = left.code or 0
        except Exception as error:  # noqa: BLE001 - that it comes out at all is the finding
            code = type(error).__name__
        else:
            code = None
    out.flush()
    return code, err.getvalue(), out.buffer.getvalue().decode(errors="replace")


def _is_error(line: str) -> bool:
    """Whether a line of stderr is an error as it is printed, or as --json has it."""
    if line.startswith("lstm-onnx: "):
        return True
    try:
        return bool(json.loads(line)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return False


def _problem(code: int | str | None, said: str) -> str | None:
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "Traceback" in said:
        return "a traceback"
    first, *others = said.splitlines() or [""]
    if code == 2 and not (_is_error(first) and not others) and not any(map(_is_error, others)):
        return "no line that says what is wrong"
    return None


def _names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def _job(main: CommandLine, scratch: str, folder: str, commands: list[list[str]]) -> dict[str, Any]:
    os.chdir(folder)
    before = _names(folder)
    answer: dict[str, Any] = {"codes": [], "said": [], "problem": None, "ended": [], "seconds": []}
    for command in commands:
        began = time.monotonic()
        code, said, printed = _run(main, command)
        answer["codes"].append(code)
        answer["seconds"].append(round(time.monotonic() - began, 2))
        answer["ended"] += [" in ".join(found) for found in _ENDED.findall(f"{said} {printed}")[:1]]
        answer["said"].append(said[-2000:])
        problem = _problem(code, said)
        made = {command[command.index("-o") + 1]} if "-o" in command else set()
        left = (_names(folder) - before - (made if code == 0 else set())) | _names(scratch)
        if problem is None and left:
            problem = f"left behind: {sorted(left)}"
        for path in Path(scratch).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in made:
            Path(name).unlink(missing_ok=True)
        if problem is not None:
            answer["problem"] = f"{problem} after {' '.join(command)}"
            break
    return answer


def _children_by_forks() -> None:
    """Before the limit on memory, which is not theirs."""
    from lstm_onnx.isolation import limits, process, supervision

    from .forking import Forks

    process.started = supervision.started = Forks().started
    limits._STAGE_SECONDS = _STAGE_SECONDS


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is not an answer
    warnings.simplefilter("ignore")
    command_line = importlib.import_module(sys.argv[1]).main
    if command_line.__module__.startswith("lstm_onnx"):
        # Before the limit: what they reserve is theirs.
        import onnxruntime
        import torch

        torch.set_num_threads(1)
        onnxruntime.set_default_logger_severity(4)
        _children_by_forks()
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch
        _limit_memory()
        for line in sys.stdin:
            print(json.dumps(_job(command_line, scratch, **json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
