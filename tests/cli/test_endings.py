"""Whoever reads the output, and whenever a signal comes: the exit code is that of the result, reports are complete.

The whole of it (pytest -m slow) takes a quarter of an hour; CI runs a seeded part.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lstm_onnx.spec import LSTMSpec

from . import endings
from .endings import COMMANDS, READERS, Command

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of signals, bash and /proc")

QUICK = [command for command in COMMANDS if command.arguments[:1] not in (("verify",), ("bench",), ("doctor",))]
"""Those that need no torch."""
SEED = 11


@dataclass(frozen=True)
class Place:
    folder: Path
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, _programs: Path | None) -> Place:
    """A folder with all that `COMMANDS` take."""
    folder = tmp_path_factory.mktemp("endings") / "work"
    folder.mkdir()
    rng = np.random.default_rng(0)
    shapes = LSTMSpec(input_size=4, hidden_size=3).parameter_shapes()
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "net.safetensors")
    (folder / "net.toml").write_text(
        '[lstm]\ninput_size = 4\nhidden_size = 3\n[weights]\nfile = "net.safetensors"\n', encoding="utf-8"
    )
    environment = endings.environment_in(folder)
    forking = {} if _programs is None else {"PATH": os.pathsep.join([str(_programs), environment["PATH"]])}
    endings.prepared(folder, {**environment, **forking})
    return Place(folder, environment)


def _read(place: Place, pairs: list[tuple[Command, str]]) -> None:
    for index, (command, reader) in enumerate(pairs):
        found = endings.read_by(place.folder, place.environment, command, reader, unbuffered=bool(index % 2))
        assert found == [], (command, reader, index % 2)


def _stop(place: Place, commands: list[Command], seed: int, count: int) -> int:
    """How many of them had begun when the signal came."""
    spans = endings.durations(place.folder, place.environment, commands)
    begun = 0
    for command, number, after in endings.drawn_moments(seed, count, spans):
        code, found, ours = endings.interrupted(place.folder, place.environment, command, number, after)
        assert found == [], (command, number, after, code)
        begun += ours
    return begun


def test_a_part_of_what_readers_do(place: Place) -> None:
    pairs = [(command, reader) for command in QUICK for reader in READERS]
    failing = [pair for pair in pairs if pair[0].code == 1]
    rng = random.Random(SEED)  # noqa: S311 - any of them
    _read(place, [*rng.sample(pairs, 4), *rng.sample(failing, 2)])


def test_a_verdict_that_nobody_reads(place: Place) -> None:
    (command,) = (each for each in COMMANDS if each.arguments[:2] == ("verify", "wrong.onnx"))
    _read(place, [(command, reader) for reader in ("| true", ">&- 2>&-", ">/dev/full")])


def test_a_part_of_what_signals_do(place: Place) -> None:
    assert _stop(place, QUICK[5:9], SEED, 5) > 0


@pytest.mark.slow
def test_whatever_readers_do(place: Place) -> None:
    _read(place, [(command, reader) for command in COMMANDS for reader in READERS])


@pytest.mark.slow
def test_whenever_a_signal_comes(place: Place) -> None:
    assert _stop(place, list(COMMANDS), SEED, 200) > 100


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("arguments", "code", "files", "found"),
    [
        (("check", "fixed.onnx"), 0, (), ["exit code 1 in the place of 0"]),
        (("run", "m.onnx", "x.npz", "-o", "out.npz"), 0, (), ["left out.npz"]),
        (("run", "m.onnx", "x.npz"), 0, ("out.npz",), ["out.npz is missing"]),
        (("run", "m.onnx", "x.npz", "-o", "cut.npz", "--debug"), 0, ("cut.npz",), ["cut.npz is truncated"]),
        (("check", "none.onnx", "--debug"), 2, (), ["said Traceback"]),
    ],
)
def test_this_can_fail(
    place: Place,
    arguments: tuple[str, ...],
    code: int,
    files: tuple[str, ...],
    found: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "cut.npz" in files:
        monkeypatch.setattr(endings, "_is_complete", lambda path: path.stat().st_size < 10)
    command = Command(arguments, code, files)
    assert endings.read_by(place.folder, place.environment, command, "| true", unbuffered=False) == found
    (place.folder / "out.npz").unlink(missing_ok=True)


def test_signals_are_sent_at_any_moment() -> None:
    moments = endings.drawn_moments(SEED, 200, dict.fromkeys(COMMANDS, 2.0))
    assert {command for command, *_ in moments} == set(COMMANDS)
    assert {number for _, number, _ in moments} == {signal.SIGINT, signal.SIGTERM}
    after = [each for *_, each in moments]
    assert min(after) < 0.01
    assert max(after) > 2.0
