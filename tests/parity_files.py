"""A model, its file, its golden file and a wrong file, made once in a process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

import lstm_onnx
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.self_test import mutated

if TYPE_CHECKING:
    from torch import nn


def net() -> nn.LSTM:
    """The model of `parity_files`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.LSTM(4, 3)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    from lstm_onnx.parity.golden_file import Golden, write
    from lstm_onnx.parity.verification import make_report, verification_of

    made = tempfile.TemporaryDirectory()  # goes with the process
    folder = Path(made.name)
    (folder / "net.toml").write_text("[lstm]\ninput_size = 4\nhidden_size = 3\n[weights]\nseed = 0\n")
    lstm_onnx.export(net(), folder / "net.onnx")
    with lstm_onnx.load(folder / "net.onnx", provider="cpu", threads=1) as model:
        verification = verification_of(model, net())
        report = make_report(verification, verification.results(), mutants="none")
        write(folder / "net.npz", Golden.of(report, verification))
    _, wrong = mutated(onnx.load(folder / "net.onnx"), MUTATORS[0])
    onnx.save(wrong, folder / "wrong.onnx")
    return made


def parity_files() -> Path:
    """A folder that nobody may change: net.toml is `net`, net.onnx its file, net.npz the golden file of both, and
    wrong.onnx is net.onnx with the first mistake of the catalogue of mutants.
    """
    return Path(_folder().name)
