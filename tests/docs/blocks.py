"""The fenced code blocks of a Markdown page, and how each kind is run.

=========== ==================================================================================
``python``  run by the first `python` on PATH, with warnings as errors
``sh``      run by bash, as it stands
``console`` each line after ``$ `` is run by bash; the lines below it are output that must occur,
            in their order, where ``...`` stands for anything
``toml``    a configured model: it must be readable as one
=========== ==================================================================================

Blocks of other languages are not run.  The blocks of a page run in their order, in one folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lstm_onnx.exporter.sources.config import load_config

ROOT = Path(__file__).parent.parent.parent
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language, its text, and the number of its first line on the page, from 1."""

    language: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    """The code blocks of a page, in their order."""
    return [Block(match[1], match[2], page.count("\n", 0, match.start()) + 2) for match in _FENCE.finditer(page)]


def prepare(folder: Path) -> None:
    """Lay out a checkout's models/ in `folder`, which is what the examples start from."""
    shutil.copytree(ROOT / "models", folder / "models", dirs_exist_ok=True)


def run(block: Block, folder: Path, environment: Mapping[str, str]) -> str | None:
    """Run one block in `folder`.

    Returns:
        Its standard output; None for a language that is not run.

    Raises:
        AssertionError: a command failed, or printed something else than the page shows.
    """
    if block.language == "python":
        return _succeed(["python", "-W", "error", "-c", block.text], block, folder, environment).stdout
    if block.language == "sh":
        return _succeed(_bash(block.text), block, folder, environment).stdout
    if block.language == "console":
        return "".join(_run_console(block, folder, environment))
    if block.language == "toml":
        path = folder / f"block_{block.line}.toml"
        path.write_text(block.text, encoding="utf-8")
        load_config(path)
        return ""
    return None


def _run_console(block: Block, folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    for command, expected in commands_of(block.text):
        done = _succeed(_bash(command), block, folder, environment)
        missing = first_missing(expected, (done.stdout + done.stderr).splitlines())
        assert missing is None, f"{command}\nprints no line {missing!r} (or not there):\n{done.stdout}{done.stderr}"
        yield done.stdout


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines of output that are shown below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif commands:
            commands[-1][1].append(line)
        else:
            raise ValueError(f"a console block starts with output: {line!r}")
    return commands


def first_missing(expected: list[str], printed: list[str]) -> str | None:
    """The first of the `expected` lines that is not among the `printed` ones, after those before it."""
    rest = iter(printed)
    for line in expected:
        pattern = re.compile(".*".join(map(re.escape, line.rstrip().split("..."))))
        if line.strip() and not any(pattern.fullmatch(row.rstrip()) for row in rest):
            return line
    return None


def _bash(command: str) -> list[str]:
    return ["bash", "-e", "-o", "pipefail", "-c", command]


def _succeed(
    command: list[str], block: Block, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"line {block.line}: exit code {done.returncode}\n{block.text}\n{printed}"
    return done
