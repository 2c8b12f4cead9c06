"""Drawn models of every cell and form, in int8, and their proof as `verify` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.parity.converted.results import Converted, converted_results
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.int8_file import quantized_model
from lstm_onnx.quantization.proof import proof_inputs
from tests.quantization.operators import Case, saved


@dataclass(frozen=True)
class Drawn:
    """A model: its float32 file is written by `write`."""

    name: str
    write: Any = field(repr=False)


class Net(nn.Module):
    """Embedding or features, a recurrent layer with or without lengths and states, and a head."""

    def __init__(self, cell: str, tokens: bool, packed: bool, gain: float, **sizes: Any) -> None:
        super().__init__()
        self.packed, self.cell = packed, cell
        self.embedding = nn.Embedding(70, sizes["input_size"]) if tokens else None
        self.recurrent = getattr(nn, cell)(batch_first=True, **sizes)
        width = (sizes.get("proj_size") or sizes["hidden_size"]) * (2 if sizes["bidirectional"] else 1)
        self.head = nn.Linear(width, 36)
        with torch.no_grad():
            for parameter in self.recurrent.parameters():
                parameter.mul_(gain)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        if self.embedding is not None:
            x = self.embedding(x)
        if self.packed:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, state = self.recurrent(packed)
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        else:
            y, state = self.recurrent(x)
        return self.head(y), state


def draw(seed: int) -> Drawn:
    """The model of a seed: an operator, a bare nn.LSTM, or every fifth a module."""
    rng = np.random.default_rng(seed)
    if seed % 5 == 0:
        return _module(rng, seed)
    return _operator(rng, seed) if seed % 5 in (1, 2) else _bare(rng, seed)


def _sizes(rng: np.random.Generator, projected: bool) -> dict[str, Any]:
    hidden = int(rng.integers(8, 49))
    sizes = {
        "input_size": int(rng.integers(4, 41)),
        "hidden_size": hidden,
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": bool(rng.random() < 0.4),
        "bias": bool(rng.random() < 0.8),
    }
    if projected:
        sizes |= {"input_size": 40, "hidden_size": 48, "proj_size": int(rng.integers(24, 40))}
    return sizes


def _gain(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(0.3), np.log(3))))


def _bare(rng: np.random.Generator, seed: int) -> Drawn:
    sizes = {**_sizes(rng, rng.random() < 0.3), "batch_first": bool(rng.random() < 0.5)}
    lengths, gain = bool(rng.random() < 0.4), _gain(rng)

    def write(path: Path) -> None:
        torch.manual_seed(seed)
        module = nn.LSTM(**sizes)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(gain)
        lstm_onnx.export(module, path, lengths=lengths)

    return Drawn(f"{seed}: LSTM {sizes} lengths {lengths} x{gain:.2g}", write)


def _operator(rng: np.random.Generator, seed: int) -> Drawn:
    op_type = str(rng.choice(["LSTM", "GRU", "RNN"]))
    directions = int(rng.integers(1, 3))
    chosen = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Relu",)}[op_type]
    case = Case(
        op_type,
        directions,
        inputs=int(rng.integers(2, 41)),
        hidden=int(rng.integers(4, 41)),
        lengths=bool(rng.random() < 0.5),
        states=bool(rng.random() < 0.7),
        bias=bool(rng.random() < 0.8),
        reverse=directions == 1 and bool(rng.random() < 0.3),
        reset_after=bool(rng.random() < 0.5),
        activations=chosen if rng.random() < 0.2 else (),
        gain=min(_gain(rng), 1.0) if op_type == "RNN" else _gain(rng),
    )
    return Drawn(f"{seed}: {case}", lambda path: saved(path, case.model(seed)))


def _module(rng: np.random.Generator, seed: int) -> Drawn:
    cell = str(rng.choice(["LSTM", "GRU", "RNN"]))
    sizes = _sizes(rng, cell == "LSTM" and rng.random() < 0.3)
    tokens, packed = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    explicit, gain = bool(rng.random() < 0.5), _gain(rng) if cell != "RNN" else 0.7

    def write(path: Path) -> None:
        torch.manual_seed(seed)
        net = Net(cell, tokens, packed, gain, **sizes).eval()
        x = torch.randint(0, 70, (2, 5)) if tokens else torch.randn(2, 5, sizes["input_size"])
        inputs, shapes = {"x": x}, {"x": {0: "batch", 1: "time"}}
        if packed:
            inputs["lengths"], shapes["lengths"] = torch.tensor([5, 3]), {0: "batch"}
        states = "explicit" if explicit else "zero"
        lstm_onnx.export(net, path, example_inputs=inputs, dynamic_shapes=shapes, states=states, check=False)

    name = f"{seed}: module {cell} {sizes} tokens {tokens} packed {packed} explicit {explicit} x{gain:.2g}"
    return Drawn(name, write)


def proven(drawn: Drawn, folder: Path, mutants: str = "all") -> Converted:
    """What `verify` finds of the int8 file of a drawn model, but for the comparison with PyTorch."""
    float32, int8 = folder / "float32.onnx", folder / "int8.onnx"
    drawn.write(float32)
    quantize(float32, int8)
    model = lstm_onnx.load(float32, provider="cpu", threads=1, trial=None)
    done = quantized_model(float32)
    cases = []
    for seed in (1, 2):
        feeds = proof_inputs(model, done, seed)
        outputs = {name: np.asarray(array, np.float64) for name, array in model.run(feeds).items()}
        axes = [
            {name: info.shape.index(dim) for name, info in model.inputs.items() if dim in info.shape}
            for dim in ("batch", "time")
        ]
        call = Call(feeds, outputs, outputs)
        cases.append(Expected(f"seed {seed}", (call,), "float32", 1.0, batch_axes=axes[0], time_axes=axes[1]))
    with lstm_onnx.load(int8, provider="cpu", threads=1, trial=None) as file:
        return converted_results(float32, file, cases, mutants=mutants)
