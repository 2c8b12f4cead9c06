"""Drawn modules around recurrent layers, right and wrong: is any right file rejected, does any wrong copy of one pass?

    python -m tests.parity.drawn_modules --modules 2000

Draws modules as people write them: LSTMs, GRUs, RNNs and cells of 1 to 3 layers, of which some states and outputs are
used and others are not, with embeddings, projections, norms, masks, lengths and initial states, in three precisions.
Exports each, verifies the file, and tries its mutants.  One in ten is compared at as many sizes as any file, up to
513 steps, which takes most of the time; the others at fewer, up to 129.  Of every fourth all mutants are tried, of the
others one of each kind, in a layer that the number chooses.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx import ParityReport
from lstm_onnx.parity.modules import sizes as sweep_sizes

CELLS = ("LSTMCell", "GRUCell", "RNNCell")
KINDS = ("LSTM", "GRU", "RNN", "RNN relu", *CELLS)
READS = (
    "output",
    "last step",
    "mean",
    "max",
    "first direction",
    "second direction",
    "h",
    "h[-1]",
    "h[0]",
    "c",
    "c[-1]",
    "both ends",
    "first half of h",
    "output and states",
)
AFTER = ("nothing", "linear", "cut", "log_softmax", "tied", "norm", "closed gate", "unit length", "argmax")
BESIDE = ("nothing", "unused", "not read", "stacked", "decoder")
WORDS = 12
FEW_SIZES = {"DENSE": 20, "DENSE_BATCH": 14, "LONG": 60, "LARGEST_TIME": 129}
ALL_SIZES_EVERY, ALL_MUTANTS_EVERY = 10, 4


@dataclass(frozen=True)
class DrawnModule:
    """What a module is made of; `reads` is the part of the layers' results that it goes on with."""

    number: int
    kind: str
    dtype: str
    features: int
    hidden: int
    layers: int
    projection: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    tokens: bool
    padding: bool
    before: str
    lengths: bool
    initial: str
    reads: str
    after: str
    beside: str
    scale: float

    @property
    def cell(self) -> bool:
        """Whether it makes single steps."""
        return self.kind in CELLS

    @property
    def has_c(self) -> bool:
        """Whether it has a cell state."""
        return self.kind.startswith("LSTM")

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def width(self) -> int:
        """The features of h."""
        return self.projection or self.hidden

    @property
    def out(self) -> int:
        """The features of what it reads."""
        if self.cell or self.reads in ("h", "h[-1]", "h[0]", "c", "c[-1]", "first direction", "second direction"):
            return self.hidden if self.reads.startswith("c") else self.width
        if self.reads == "first half of h":
            return max(self.width // 2, 1)
        return self.width * self.directions


def drawn_module(number: int) -> DrawnModule:
    """The same for the same number, whichever others are drawn."""
    rng = np.random.default_rng([2027, number])

    def one(options: tuple[str, ...], weights: tuple[float, ...] = ()) -> str:
        p = np.array(weights) / sum(weights) if weights else None
        return str(rng.choice(options, p=p))

    kind = one(KINDS, (8, 3, 1, 1, 2, 1, 0.5))
    cell, lstm = kind in CELLS, kind.startswith("LSTM")
    hidden = int(rng.integers(2, 17))
    projected = kind == "LSTM" and rng.random() < 0.2
    projection = int(rng.integers(1, hidden)) if projected else 0
    bidirectional = not cell and rng.random() < 0.4
    reads = [name for name in READS if lstm or name not in ("c", "c[-1]")]
    if cell:
        reads = ["h", "c", "output and states"] if lstm else ["h"]
    elif not bidirectional:
        reads = [name for name in reads if name not in ("second direction", "both ends")]
    tokens = bool(rng.random() < 0.4)
    after = [name for name in AFTER if name != "tied" or tokens]
    read = one(tuple(reads))
    features = int(rng.integers(1, 9))
    draw = rng.random()
    dtype = "float16" if draw < 0.15 else "float64" if draw < 0.2 and projected else "float32"
    before = ["nothing", "dropout", "linear", *(["norm"] if features > 2 else [])]
    drawn = DrawnModule(
        number,
        kind,
        dtype,
        features,
        hidden,
        1 if cell else int(rng.integers(1, 4)),
        projection,
        bidirectional,
        bool(rng.random() < 0.85),
        cell or bool(rng.random() < 0.6),
        tokens,
        bool(rng.random() < 0.5),
        one(tuple(before)),
        not cell and bool(rng.random() < 0.35),
        one(("absent", "zeros", "learned", "given")),
        read,
        one(tuple(after)) if read != "output and states" else "nothing",
        "nothing" if cell else one(BESIDE),
        float(np.exp(rng.uniform(*np.log((0.3, 2.0))))),
    )
    # A norm of one or two features gives the same whatever they are.
    blind = drawn.out < 3 and drawn.after in ("norm", "unit length")
    return replace(drawn, after="linear") if blind else drawn


class Module(nn.Module):
    """The module that a `DrawnModule` describes."""

    def __init__(self, drawn: DrawnModule) -> None:
        super().__init__()
        self.drawn = drawn
        d = drawn
        if d.tokens:
            self.embedding = nn.Embedding(WORDS, d.features, padding_idx=0 if d.padding else None)
        if d.before == "norm":
            self.norm = nn.LayerNorm(d.features)
        elif d.before == "linear":
            self.linear = nn.Linear(d.features, d.features)
        self.dropout = nn.Dropout(0.3)
        options: dict[str, Any] = {"bias": d.bias}
        if d.kind == "RNN relu":
            options["nonlinearity"] = "relu"
        make = getattr(nn, d.kind.split()[0])
        if not d.cell:
            options |= {"num_layers": d.layers, "batch_first": d.batch_first, "bidirectional": d.bidirectional}
            options |= {"dropout": 0.2 if d.layers > 1 else 0.0}
            options |= {"proj_size": d.projection} if d.projection else {}
        self.rnn = make(d.features, d.hidden, **options)
        if d.beside == "decoder":
            self.beside = make(d.features, d.hidden, **options)
        elif d.beside != "nothing":
            self.beside = make(d.width * d.directions, d.hidden, **options)
        if d.initial == "learned":
            shape = (1,) if d.cell else (d.layers * d.directions, 1)
            self.h0 = nn.Parameter(torch.randn(*shape, d.width) / 2)
            self.c0 = nn.Parameter(torch.randn(*shape, d.hidden) / 2)
        self._make_last(d)

    def _make_last(self, d: DrawnModule) -> None:
        if d.after in ("linear", "cut", "log_softmax", "argmax"):
            self.head = nn.Linear(d.out, 5)
        elif d.after == "tied":
            self.head = nn.Linear(d.out, d.features)
        elif d.after == "norm":
            self.last = nn.LayerNorm(d.out)
        elif d.after == "closed gate":
            self.register_buffer("gate", (torch.arange(d.out) % 2 == 0).float())

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: Any = None) -> Any:
        """The part of the layers' results that it reads, after what follows."""
        d = self.drawn
        x = self.embedding(x) if d.tokens else x
        if d.before == "norm":
            x = self.norm(x)
        elif d.before == "linear":
            x = torch.relu(self.linear(x))
        x = self.dropout(x)
        batch = x.shape[0] if d.batch_first else x.shape[1]
        if d.initial == "zeros":
            shape = (batch,) if d.cell else (d.layers * d.directions, batch)
            state = self._state(x.new_zeros(*shape, d.width), x.new_zeros(*shape, d.hidden))
        elif d.initial == "learned":
            shape = (batch, -1) if d.cell else (-1, batch, -1)
            state = self._state(self.h0.expand(*shape).contiguous(), self.c0.expand(*shape).contiguous())
        if d.cell:
            return self._after(self._read_cell(self.rnn(x, state)))
        y, final = self._called(self.rnn, x, lengths, state)
        if d.beside == "not read":
            self._called(self.beside, y, lengths, None)
        elif d.beside == "stacked":
            y, final = self._called(self.beside, y, lengths, None)
        elif d.beside == "decoder":
            y, final = self._called(self.beside, x.flip(1 if d.batch_first else 0), lengths, final)
        return self._after(self._read(y, final))

    def _state(self, h: Tensor, c: Tensor) -> Any:
        return (h, c) if self.drawn.has_c else h

    def _called(self, rnn: nn.Module, x: Tensor, lengths: Tensor | None, state: Any) -> Any:
        if lengths is None:
            return rnn(x, state)
        first = self.drawn.batch_first
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=first, enforce_sorted=False)
        y, state = rnn(packed, state)
        return pad_packed_sequence(y, batch_first=first, total_length=x.shape[1 if first else 0])[0], state

    def _read_cell(self, result: Any) -> Any:
        if not self.drawn.has_c:
            return result
        return {"h": result[0], "c": result[1]}.get(self.drawn.reads, result)

    def _read(self, y: Tensor, final: Any) -> Any:
        d = self.drawn
        h, c = final if d.has_c else (final, final)
        along = 1 if d.batch_first else 0
        if d.reads == "output and states":
            return y, final
        if d.reads in ("mean", "max"):
            return y.mean(along) if d.reads == "mean" else y.max(along).values
        if d.reads == "both ends":
            return torch.cat([h[-2], h[-1]], 1)
        if d.reads == "first half of h":
            return h[-1][:, : d.out]
        if d.reads == "last step":
            return y[:, -1] if d.batch_first else y[-1]
        if "direction" in d.reads:
            return y[..., : d.width] if d.reads == "first direction" else y[..., d.width :]
        return {"h": h, "h[-1]": h[-1], "h[0]": h[0], "c": c, "c[-1]": c[-1]}.get(d.reads, y)

    def _after(self, y: Any) -> Any:
        d = self.drawn
        if d.after in ("linear", "cut"):
            return self.head(y)[..., : 5 if d.after == "linear" else 2]
        if d.after == "log_softmax":
            return self.head(y).log_softmax(-1)
        if d.after == "argmax":
            scores = self.head(y)
            return {"scores": scores, "best": scores.argmax(-1)}
        if d.after == "tied":
            return nn.functional.linear(self.head(y), self.embedding.weight)
        if d.after == "norm":
            return self.last(y)
        if d.after == "closed gate":
            return y * self.gate
        return nn.functional.normalize(y, dim=-1) if d.after == "unit length" else y


def made(drawn: DrawnModule) -> nn.Module:
    """The module, seeded and in eval mode; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn.number)
        module = Module(drawn).eval()
    with torch.no_grad():
        for parameter in module.rnn.parameters():
            parameter.mul_(drawn.scale)
    return module.to(getattr(torch, drawn.dtype))


def example_of(drawn: DrawnModule, batch: int = 2, steps: int = 4) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs by name, and their dynamic axes."""
    generator = torch.Generator().manual_seed(drawn.number)
    sizes = (batch,) if drawn.cell else (batch, steps) if drawn.batch_first else (steps, batch)
    names = ("batch",) if drawn.cell else ("batch", "time") if drawn.batch_first else ("time", "batch")
    axes = dict(enumerate(names))
    kind = getattr(torch, drawn.dtype)

    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(kind)

    inputs: dict[str, Any] = {"x": floats(*sizes, drawn.features)}
    shapes: dict[str, Any] = {"x": axes}
    if drawn.tokens:
        inputs["x"] = torch.randint(0, WORDS, sizes, generator=generator)
    if drawn.lengths:
        inputs["lengths"], shapes["lengths"] = torch.tensor([steps, max(steps - 2, 1)][:batch]), {0: "batch"}
    if drawn.initial == "given":
        shape = (batch,) if drawn.cell else (drawn.layers * drawn.directions, batch)
        one: Any = {len(shape) - 1: "batch"}
        h, c = floats(*shape, drawn.width), floats(*shape, drawn.hidden)
        inputs["state"], shapes["state"] = ((h, c), (one, one)) if drawn.has_c else (h, one)
    return inputs, shapes


def sizes_of_comparisons(drawn: DrawnModule) -> contextlib.AbstractContextManager[Any]:
    """Fewer sizes for most modules; without them, all that a verification tries."""
    if drawn.number % ALL_SIZES_EVERY == 0:
        return contextlib.nullcontext()
    return mock.patch.multiple(sweep_sizes, **FEW_SIZES)


def verified(drawn: DrawnModule, folder: Path, mutants: str) -> ParityReport:
    """The report on a fresh export."""
    module, path = made(drawn), folder / "m.onnx"
    inputs, shapes = example_of(drawn)
    lstm_onnx.export(module, path, example_inputs=inputs, dynamic_shapes=shapes)
    some = mutants == "all" and drawn.number % ALL_MUTANTS_EVERY != 0
    with sizes_of_comparisons(drawn):
        return lstm_onnx.verify(
            module, path, provider="cpu", threads=1, mutants="quick" if some else mutants, seed=drawn.number
        )


def reports(numbers: range, mutants: str) -> Iterator[tuple[DrawnModule, ParityReport]]:
    """Module by module."""
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            drawn = drawn_module(number)
            yield drawn, verified(drawn, Path(folder), mutants)


def main(numbers: range, mutants: str) -> int:
    """Print what came of it; 1 where a right module was refused or rejected, or a wrong copy of one was not."""
    counts: Counter[str] = Counter()
    largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            drawn, start = drawn_module(number), time.perf_counter()
            counts["modules"] += 1
            try:
                report = verified(drawn, Path(folder), mutants)
            except Exception as error:  # noqa: BLE001 - a crash is a finding, and others follow it
                counts["refused"] += 1
                print(f"REFUSED {drawn}\n  {type(error).__name__}: {error}", flush=True)
                continue
            counts["cases"] += len(report.cases)
            ratio = max((tensor.ratio for _, tensor in report.worst.values()), default=0.0)
            largest = max(largest, ratio)
            counts.update(f"mutants {mutant.outcome}" for mutant in report.mutants)
            counts["rejected"] += not report.in_parity
            counts["not proven"] += bool(report.survivors)
            if not report.in_parity:
                print(f"REJECTED {drawn}\n{report}", flush=True)
            for mutant in report.survivors:
                print(f"SURVIVED {drawn}: {mutant.name}, ratio {mutant.ratio:.3g} at {mutant.case}", flush=True)
            seconds = time.perf_counter() - start
            print(f"{number} {seconds:.1f} s, largest ratio {ratio:.3g}", file=sys.stderr, flush=True)
    print("; ".join(f"{count} {name}" for name, count in counts.items()) + f"; largest ratio {largest:.3g}", flush=True)
    return int(bool(counts["refused"] or counts["rejected"] or counts["not proven"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--mutants", choices=("none", "quick", "all"), default="all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.exit(main(range(arguments.first, arguments.first + arguments.modules), arguments.mutants))
