"""Thousands of mutated files through the command line, in processes with a memory limit.

Exit codes 0, 1 and 2 are right; a crash, a hang, a traceback or a file left behind is a finding.  By hand:

    python -m tests.fuzz.campaign --count 20000 --seed 0 --keep FOLDER
    python -m tests.fuzz.campaign --seed 0 --only 1234
    python -m tests.fuzz.campaign --structures --count 10000

With ``--structures`` the files are models of any operators, and models whose structure is changed (`structures`), and
each is checked, run and inspected.

File N of a seed is always the same, so a finding can be made again by its number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .mutate import mutated
from .restructure import restructured
from .seeds import ON_CPU, Seed, of_kind, seeds
from .structures import data_for, drawn_model, onnx_models

SHARES = {"onnx": 55, "npz": 20, "safetensors": 12, "toml": 13}
"""Of a hundred files."""
SECONDS = 120.0
"""For all commands on one file; more is a hang.  The first module that is exported in a process takes up to 14."""
_JOBS_A_WORKER = 400
"""A fresh process after that, so that what one job leaves in memory reaches few others."""


@dataclass(frozen=True)
class Job:
    """A mutated file, and what is run on it."""

    number: int
    seed: Seed
    data: bytes
    commands: list[list[str]]


@dataclass
class Outcome:
    """How many files ended with which codes, and what went wrong, by the file's number."""

    codes: Counter[str] = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)
    changed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, job: Job, answer: dict[str, Any]) -> None:
        self.codes[f"{job.seed.kind} {','.join(map(str, answer['codes']))}"] += 1
        self.changed += job.data != job.seed.data
        self.ended.update(answer.get("ended", []))
        for command, seconds in zip(job.commands, answer.get("seconds", []), strict=False):
            self.slowest = sorted([*self.slowest, (seconds, job.number, command[0])])[-5:]
        if answer["problem"] is not None:
            said = " | ".join(" ".join(text.split())[-400:] for text in answer["said"][-1:])
            self.findings[job.number] = f"{job.seed.kind} {job.seed.name}: {answer['problem']}: {said}"

    def __str__(self) -> str:
        """Of each kind how many."""
        lines = [f"{count:6} {codes}" for codes, count in sorted(self.codes.items())]
        lines += [f"{count:6} children {how}" for how, count in self.ended.most_common()]
        lines += [f"{seconds:6} s: {command} of file {number}" for seconds, number, command in reversed(self.slowest)]
        return "\n".join([*lines, f"{sum(self.codes.values())} files, {len(self.findings)} findings"])


def job(number: int, seed: int, among: Sequence[Seed]) -> Job:
    """File `number` of the campaign with that seed."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311
    kind = rng.choices(list(SHARES), SHARES.values())[0]
    alike = of_kind(kind, among)
    chosen, other = rng.choice(alike), rng.choice(alike)
    return Job(number, chosen, mutated(kind, chosen.data, other.data, rng), chosen.chosen(rng))


_STRUCTURE_COMMANDS = (
    (("check", "m.onnx", "--provider", "cpu"), ("check", "m.onnx", "--provider", "cpu", "--json", "--strict")),
    (("run", "m.onnx", *ON_CPU), ("run", "m.onnx", "x.npz", "-o", "y.npz", *ON_CPU)),
    (("inspect", "m.onnx"), ("inspect", "m.onnx", "--json")),
)


def structure_job(number: int, seed: int, among: Sequence[Seed]) -> Job:
    """File `number` of the campaign of structures with that seed."""
    rng = random.Random(f"structures {seed}/{number}")  # noqa: S311
    what = rng.random()
    own = rng.choice(of_kind("onnx", among))
    if what < 0.45:
        data = drawn_model(rng)
    elif what < 0.65:
        data = restructured(drawn_model(rng), own.data, rng)
    else:
        data = restructured(own.data if what < 0.88 else rng.choice(onnx_models()), drawn_model(rng), rng)
    commands = [list(rng.choice(kinds)) for kinds in _STRUCTURE_COMMANDS]
    beside = {"x.npz": data_for(data, rng)} if rng.random() < 0.8 else own.beside
    return Job(number, Seed("structure", own.name, "m.onnx", own.data, (), beside), data, commands)


class Worker:
    """A `worker` process, started again when it dies."""

    def __init__(self, command_line: str = "lstm_onnx.cli") -> None:
        self.command_line = command_line
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.process: subprocess.Popen[str] | None = None
        self.done = 0

    def close(self) -> None:
        self.restart()
        shutil.rmtree(self.folder)

    def restart(self) -> None:
        """End the process; the next job has a new one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def run(self, job: Job) -> dict[str, Any]:
        """The worker's answer, or what became of it."""
        if self.process is None or self.done >= _JOBS_A_WORKER:
            self.restart()
            self.done = 0
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", self.command_line],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=Path(__file__).parents[2],
                # torch keeps a folder for its compiler among the temporary ones, whoever uses it.
                # What a factory's module is compiled to is Python's own, and no file that was left behind.
                env={
                    **os.environ,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "OMP_NUM_THREADS": "1",
                    "TORCHINDUCTOR_CACHE_DIR": str(self.folder),
                },
            )
            self._ask({"folder": str(self.folder), "commands": []}, SECONDS)
        self.done += 1
        here = self.folder / "job"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        for name, data in {**job.seed.beside, job.seed.target: job.data}.items():
            (here / name).write_bytes(data)
        return self._ask({"folder": str(here), "commands": job.commands}, SECONDS)

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline() if selector.select(seconds) else None
        if line:
            return dict(json.loads(line))
        if line is None:
            self.restart()
            return {"codes": ["hang"], "said": [], "problem": f"no answer in {seconds:g} s"}
        code = process.wait()
        self.restart()
        return {"codes": ["crash"], "said": [], "problem": f"the process ended with {code}"}


def campaign(
    numbers: Sequence[int],
    seed: int,
    among: Sequence[Seed],
    *,
    workers: int = 2,
    keep: Path | None = None,
    structures: bool = False,
) -> Outcome:
    """Run the files of `numbers`; with `keep`, those that are findings stay in that folder."""
    outcome = Outcome()
    waiting = iter(numbers)
    lock = threading.Lock()

    def work() -> None:
        worker = Worker()
        try:
            for number in _locked(waiting, lock):
                made = (structure_job if structures else job)(number, seed, among)
                answer = worker.run(made)
                with lock:
                    outcome.add(made, answer)
                    if structures and sum(outcome.codes.values()) % 500 == 0:
                        print(outcome, flush=True)
                    if keep is not None and answer["problem"] is not None:
                        _keep(keep, made, outcome.findings[number])
        finally:
            worker.close()

    with ThreadPoolExecutor(workers) as threads:
        for done in [threads.submit(work) for _ in range(workers)]:
            done.result()
    return outcome


def _locked(numbers: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        yield number


def _keep(folder: Path, made: Job, finding: str) -> None:
    here = folder / str(made.number)
    here.mkdir(parents=True, exist_ok=True)
    for name, data in {**made.seed.beside, made.seed.target: made.data}.items():
        (here / name).write_bytes(data)
    (here / "finding.txt").write_text(f"{finding}\n{made.commands}\n", encoding="utf-8", errors="backslashreplace")
    print(f"{made.number}: {finding}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--structures", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    numbers = options.only or range(options.start, options.start + options.count)
    outcome = campaign(
        numbers,
        options.seed,
        seeds(),
        workers=options.workers,
        keep=options.keep,
        structures=options.structures,
    )
    print(outcome)
    print(f"{outcome.changed} changed, {time.perf_counter() - began:.0f} s")
    for number, finding in sorted(outcome.findings.items()):
        print(f"finding {number}: {finding}")


if __name__ == "__main__":
    main()
