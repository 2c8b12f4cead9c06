"""The line at which two runs of the user's code part."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from lstm_onnx.exporter.trials.code_paths import diverging_line, numbers_in_code


def branching(size: int) -> int:
    total = 0
    if size > 200:  # here
        total += 1
    return total


def in_one_line(size: int) -> int:
    return 2 if size == 33 else 3  # there


def below(size: int) -> int:
    return branching(size) + 1


def looping(size: int) -> int:
    total = 0
    for number in range(size):  # around
        total += number
    return total


def test_an_if_is_found_in_a_line_of_its_own_and_within_one() -> None:
    assert str(diverging_line(partial(below, 3), partial(below, 201))).endswith(": if size > 200:  # here")
    assert str(diverging_line(partial(in_one_line, 3), partial(in_one_line, 33))).startswith("test_code_paths.py:")
    assert str(diverging_line(partial(in_one_line, 3), partial(in_one_line, 33))).endswith("else 3  # there")
    assert str(diverging_line(partial(looping, 3), partial(looping, 5))).endswith("in range(size):  # around")


def test_runs_that_do_the_same_do_not_part() -> None:
    assert diverging_line(partial(below, 3), partial(below, 4)) is None


def test_a_run_that_fails_ends_there() -> None:
    def fails(size: int) -> float:
        return 1 / below(size - 200) if size > 200 else 1 / (below(size) - 1)

    assert diverging_line(partial(fails, 3), partial(fails, 300)) is not None


def test_a_tracer_that_was_there_is_there_again() -> None:
    before = sys.gettrace()
    diverging_line(partial(below, 3), partial(below, 201))
    assert sys.gettrace() is before


def test_numbers_in_the_code_are_those_of_what_ran() -> None:
    def told(size: int) -> bool:
        """Not 44, and none of numpy's, such as 999999 in the text of concatenate."""
        np.concatenate([np.zeros(size)])
        return f"{size}" in ("41", "x42") or size == 43

    assert {41, 42, 43} == set(numbers_in_code(partial(told, 3)))
    assert 200 in numbers_in_code(partial(below, 3))
    assert 200 not in numbers_in_code(partial(in_one_line, 3))


def test_the_first_run_of_a_process_is_seen(tmp_path: Path, forking_environment: dict[str, str]) -> None:
    (tmp_path / "first.py").write_text(
        "from lstm_onnx.exporter.trials.code_paths import numbers_in_code\n"
        "def below(size):\n    return size > 200\n"
        "print(numbers_in_code(lambda: below(3)))\n"
    )
    printed = subprocess.check_output(
        ["python", "first.py"], cwd=tmp_path, env=forking_environment, text=True, timeout=60
    )
    assert "200" in printed


class Cycle:
    """What only the garbage collector finds, and a finalizer that is nobody's code here."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum((1, 2))


def test_finalizers_that_run_in_between_are_no_code_of_the_module() -> None:
    unused = [Cycle()]
    many = json.dumps([[1]] * 5000)

    def run(size: int) -> int:
        unused.clear()
        json.loads(many)  # so many lists that the collector comes, in the first run to a cycle
        return branching(size)

    line = diverging_line(partial(run, 3), partial(run, 201))
    assert gc.isenabled()
    assert str(line).endswith(": if size > 200:  # here")
