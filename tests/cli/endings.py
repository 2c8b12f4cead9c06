"""Command lines that are piped, closed or interrupted: the files that they take, and what must come of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
from onnx import numpy_helper

_VERIFY = ("--provider", "cpu", "--threads", "1", "--mutants", "none", "--junit", "a.xml", "--html", "a.html")
_LONGEST = 10.0
"""Seconds from a command's start to the latest signal."""
_BENCH = ("--case", "step", "--rounds", "3", "--seconds", "0.1", "--threads", "1", "--plot", "p.svg")


@dataclass(frozen=True)
class Command:
    """A command line, the exit code of its result, and the files that it writes."""

    arguments: tuple[str, ...]
    code: int = 0
    files: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


COMMANDS = (
    Command(("--version",)),
    Command(("--help",)),
    Command(("verify", "--help")),
    Command((), environment=(("_LSTM_ONNX_COMPLETE", "bash_source"),)),
    Command(("nonsense",), 2),
    Command(("export", "net.toml", "-o", "out.onnx"), files=("out.onnx",)),
    Command(("export", "net.toml", "-o", "out.onnx", "--json"), files=("out.onnx",)),
    Command(("export", "none.toml", "-o", "out.onnx"), 2),
    Command(("check", "m.onnx")),
    Command(("check", "fixed.onnx"), 1),
    Command(("check", "fixed.onnx", "m.onnx", "--json"), 1),
    Command(("check", "m.onnx", "none.onnx", "fixed.onnx"), 2),
    Command(("check", "--rules")),
    Command(("check", "--explain", "LO101")),
    Command(("run", "m.onnx", "x.npz")),
    Command(("run", "m.onnx", "x.npz", "-o", "out.npz"), files=("out.npz",)),
    Command(("run", "m.onnx", "many.jsonl", "-o", "-")),
    Command(("run", "m.onnx", "bad.jsonl", "-o", "-"), 2),
    Command(("run", "m.onnx", "bad.jsonl"), 2),
    Command(("run", "m.onnx", "--size", "time=3000", "--json")),
    Command(("run", "m.onnx", "x.npz", "--isolate", "--json")),
    Command(("quantize", "m.onnx", "-o", "q.onnx", "--json"), files=("q.onnx",)),
    Command(("run", "m.onnx", "--size", "time=3000", "--stream", "-o", "out.csv"), files=("out.csv",)),
    Command(("verify", "net.toml", "m.onnx", *_VERIFY, "--golden", "g.npz"), files=("a.xml", "a.html", "g.npz")),
    Command(("verify", "net.toml", "wrong.onnx", *_VERIFY), 1, ("a.xml", "a.html")),
    Command(("verify", "wrong.onnx", *_VERIFY, "--golden", "golden.npz", "--json"), 1, ("a.xml", "a.html")),
    Command(("verify", "m.onnx", *_VERIFY, "--golden", "golden.npz"), 0, ("a.xml", "a.html")),
    Command(("inspect", "m.onnx")),
    Command(("inspect", "m.onnx", "--json")),
    Command(("doctor",)),
    Command(("bench", "net.toml", *_BENCH), files=("p.svg",)),
)
READERS = (
    "| head -n 1",
    "| true",
    "2>&1 | true",
    ">&-",
    "2>&-",
    ">&- 2>&-",
    "<&-",
    "<&- >&- 2>&-",
    ">/dev/full",
    "2>/dev/full",
    ">/dev/full 2>/dev/full",
)
"""What a shell does to a command's streams."""


def code_for(command: Command, reader: str) -> int:
    """The exit code of a command whose streams are as `reader` has them: 2 where a success has not arrived."""
    prints = command.arguments[:1] != ("run",) or not command.files
    is_data = "--json" in command.arguments or command.arguments[-2:] == ("-o", "-")
    out = reader.replace("2>/dev/full", "").replace("2>&-", "")
    lost = prints and (">/dev/full" in out or (">&-" in out and is_data))
    return 2 if lost and command.code == 0 else command.code


def prepared(folder: Path, environment: Mapping[str, str]) -> None:
    """Make the files that `COMMANDS` take; net.toml and its weights are there."""

    def run(*arguments: str) -> None:
        subprocess.run(["lstm-onnx", *arguments], cwd=folder, env=environment, check=True, capture_output=True)

    run("export", "net.toml", "-o", "m.onnx")
    run("verify", "net.toml", "m.onnx", "--mutants", "none", "--golden", "golden.npz")
    model = onnx.load(folder / "m.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "l0/R")
    weight.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weight), 1, axis=1), "l0/R"))
    onnx.save(model, folder / "wrong.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, folder / "fixed.onnx")
    np.savez(folder / "x.npz", input=np.ones((5, 1, 4), np.float32))
    records = [json.dumps({"input": [[1.0, 2.0, 3.0, 4.0]] * (index % 7 + 1)}) for index in range(3000)]
    (folder / "many.jsonl").write_text("\n".join(records))
    (folder / "bad.jsonl").write_text("\n".join([*records, '{"input": [[1, 2, 3]]}']))


def _problems(folder: Path, command: Command, before: set[str], told: str, *, whole: bool) -> list[str]:
    """What is wrong with what a command has left; with `whole`, no file may be absent."""
    found = [f"said {word}" for word in ("Traceback", "Exception ignored", "Fatal Python") if word in told]
    made = {path.name for path in folder.iterdir()} - before
    found += [f"left {name}" for name in sorted(made - set(command.files))]
    for name in command.files:
        path = folder / name
        if path.exists():
            found += [] if _is_complete(path) else [f"{name} is truncated"]
            path.unlink()
        elif whole:
            found.append(f"{name} is missing")
    return found


def _is_complete(path: Path) -> bool:
    if path.suffix == ".onnx":
        onnx.checker.check_model(onnx.load(path))
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            return all(arrays[name] is not None for name in arrays.files)
    elif path.suffix in (".xml", ".svg"):
        ET.parse(path)  # noqa: S314 - our own
    elif path.suffix == ".html":
        return path.read_text(encoding="utf-8").endswith("</html>\n")
    return path.stat().st_size > 0


def read_by(
    folder: Path, environment: Mapping[str, str], command: Command, reader: str, *, unbuffered: bool
) -> list[str]:
    """What is wrong after `command` with its streams as `reader` has them; nothing if all is well."""
    scratch = _scratch(folder)
    before = {path.name for path in folder.iterdir()}
    words = " ".join(f"'{word}'" for word in command.arguments)
    done = subprocess.run(
        ["bash", "-c", f"lstm-onnx {words} {reader}; exit ${{PIPESTATUS[0]}}"],
        cwd=folder,
        env={**environment, **dict(command.environment), "PYTHONUNBUFFERED": "1" * unbuffered, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    wanted = code_for(command, reader)
    found = [] if done.returncode == wanted else [f"exit code {done.returncode} in the place of {wanted}"]
    found += _problems(folder, command, before, done.stderr, whole=True)
    return found + [f"left {path.name} in TMPDIR" for path in scratch.glob("lstm-onnx*")]


def interrupted(
    folder: Path, environment: Mapping[str, str], command: Command, number: signal.Signals, after: float
) -> tuple[int, list[str], bool]:
    """Its exit code, what is wrong after a signal came `after` seconds, and whether lstm-onnx had begun by then.

    Before it has, and nothing of ours is imported, a signal is Python's own affair.
    """
    scratch = _scratch(folder)
    before = {path.name for path in folder.iterdir()}
    with subprocess.Popen(
        ["lstm-onnx", *command.arguments],
        cwd=folder,
        env={**environment, **dict(command.environment), "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has it ignored for what it runs beside.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        time.sleep(after)
        begun = _has_begun(process.pid)
        process.send_signal(number)
        try:
            _, told = process.communicate(timeout=120)
        finally:
            process.kill()
    code = process.returncode
    if not begun and code in (-number, 1):
        return code, [], False
    allowed = (command.code, 128 + number)
    found = [] if code in allowed else [f"exit code {code}, not one of {allowed}: {told[-300:]}"]
    whole = code == command.code
    found += _problems(folder, command, before, told, whole=whole)
    return code, found + [f"left {path.name} in TMPDIR" for path in scratch.glob("lstm-onnx*")], True


def _has_begun(pid: int) -> bool:
    """Whether `main` has been called: it handles SIGTERM, which Python leaves to the system."""
    status = Path(f"/proc/{pid}/status")
    try:
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    except OSError:  # it has ended
        return True
    masks = [int(fields[name], 16) for name in ("SigCgt", "SigIgn") if name in fields]
    return not masks or any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def _scratch(folder: Path) -> Path:
    scratch = folder.parent / f"{folder.name}-scratch"
    scratch.mkdir(exist_ok=True)
    return scratch


def durations(folder: Path, environment: Mapping[str, str], commands: Sequence[Command]) -> dict[Command, float]:
    """How long each takes by itself, in seconds."""
    found = {}
    for command in commands:
        since = time.monotonic()
        before = {path.name for path in folder.iterdir()}
        done = subprocess.run(
            ["lstm-onnx", *command.arguments],
            cwd=folder,
            env={**environment, **dict(command.environment)},
            capture_output=True,
            text=True,
            check=False,
        )
        found[command] = time.monotonic() - since
        assert done.returncode == command.code, (command, done.stderr)
        assert _problems(folder, command, before, done.stderr, whole=True) == []
    return found


def drawn_moments(seed: int, count: int, spans: Mapping[Command, float]) -> list[tuple[Command, signal.Signals, float]]:
    """Commands with the signal that each gets, and when: a third of them in the first tenth of a second."""
    rng = random.Random(seed)  # noqa: S311 - any moments
    commands = list(spans)
    return [
        (
            command := commands[index % len(commands)],
            rng.choice([signal.SIGINT, signal.SIGTERM]),
            rng.uniform(0, 0.1 if index % 3 == 0 else 1.1 * min(spans[command], _LONGEST)),
        )
        for index in range(count)
    ]


def environment_in(folder: Path) -> dict[str, str]:
    """`lstm-onnx` is that of this interpreter, and nothing is told to GitHub or kept in a home."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {"PATH": path, "GITHUB_ACTIONS": "", "HOME": str(folder.parent), "MPLCONFIGDIR": str(folder.parent)}
    return {**os.environ, **own}
