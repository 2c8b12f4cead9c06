"""Good files of every kind that the command line reads, and what is run on their wrong copies."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import lstm_onnx
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.sources.torch_lstm import module_of
from lstm_onnx.parity.golden_file import Golden, write
from lstm_onnx.parity.verification import make_report, verification_of
from lstm_onnx.spec import ExportOptions, LSTMSpec

from ..module_files import module_file
from ..runtime.models import accumulator, drawn_state

MODELS = Path(__file__).parents[2] / "models"
ON_CPU = ("--provider", "cpu", "--threads", "1")


@dataclass(frozen=True)
class Seed:
    """A good file.

    Attributes:
        kind: "onnx", "toml", "npz" or "safetensors".
        name: for people.
        target: what the file is called in its folder.
        data: its bytes.
        commands: what is run on it; the first always, one of the others by chance.
        beside: the other files of the folder.
    """

    kind: str
    name: str
    target: str
    data: bytes
    commands: tuple[tuple[str, ...], ...]
    beside: dict[str, bytes] = field(default_factory=dict)

    def chosen(self, rng: random.Random) -> list[list[str]]:
        """The commands of one job."""
        return [list(self.commands[0]), *([list(rng.choice(self.commands[1:]))] if len(self.commands) > 1 else [])]


SIZES = {"input_size": 3, "hidden_size": 2}
_LSTMS: dict[str, tuple[dict[str, Any], ExportOptions]] = {
    "plain": ({}, ExportOptions()),
    "lengths": ({"num_layers": 2, "bidirectional": True, "batch_first": True}, ExportOptions(lengths=True)),
    "projected": ({"proj_size": 2, "hidden_size": 3}, ExportOptions(lengths=True)),
    "folded": ({"proj_size": 2, "hidden_size": 3}, ExportOptions(projection="fold")),
    "half": ({"dtype": "float16"}, ExportOptions()),
}
_MODULES = (("exogenous_forecaster", "explicit"), ("learned_start", "explicit"), ("sentiment_last_hidden", "zero"))


@cache
def seeds(*, modules: bool = True) -> tuple[Seed, ...]:
    """All of them; made anew in each process, and the same in each.  Modules take seconds to export."""
    with tempfile.TemporaryDirectory() as folder:
        found = [*_lstm_seeds(Path(folder)), *_third_party(Path(folder)), *_toml_seeds(Path(folder))]
        if modules:
            found += _module_seeds()
    return tuple(found)


def _npz(folder: Path, arrays: dict[str, np.ndarray]) -> bytes:
    lstm_onnx.data.write(folder / "x.npz", [arrays], many=False)
    return (folder / "x.npz").read_bytes()


def _safetensors(folder: Path, arrays: dict[str, np.ndarray]) -> bytes:
    lstm_onnx.data.write(folder / "x.safetensors", [arrays], many=False)
    return (folder / "x.safetensors").read_bytes()


def _onnx_commands(*, source: bool) -> tuple[tuple[str, ...], ...]:
    """What is run on a model; with `source`, it lies beside its golden file and what it was exported from."""
    return (
        ("run", "m.onnx", *ON_CPU),
        ("check", "m.onnx", "--provider", "cpu"),
        ("check", "m.onnx", "--provider", "cpu", "--json"),
        ("check", "m.onnx", "--provider", "cpu"),
        ("inspect", "m.onnx", "--json"),
        ("run", "m.onnx", "x.npz", "-o", "y.npz", *ON_CPU),
        ("run", "m.onnx", "x.npz", "--stream", *ON_CPU),
        ("run", "m.onnx", "--chunk", "3", "--json", *ON_CPU),
        *((("verify", "m.onnx", "--golden", "g.npz", *ON_CPU),) if source else ()),
        *((("verify", "net.toml", "m.onnx", "--mutants", "none", *ON_CPU),) if source else ()),
    )


def _lstm_seeds(folder: Path) -> list[Seed]:
    found = []
    for name, (sizes, options) in _LSTMS.items():
        spec = LSTMSpec(**{**SIZES, **sizes})
        state = drawn_state(spec)
        path = folder / "m.onnx"
        export_lstm(spec, options, state, path)
        model = lstm_onnx.load(path, provider="cpu", threads=1)
        verification = verification_of(model, module_of(spec, state))
        if found:  # one whole golden file is enough, and takes a second
            verification.cases, verification.sweeps = verification.cases[:12], verification.sweeps[:1]
        report = make_report(verification, verification.results(), mutants="none", source=name)
        write(folder / "g.npz", Golden.of(report, verification))
        golden = (folder / "g.npz").read_bytes()
        rng = np.random.default_rng(0)
        arrays = {
            "input": rng.standard_normal(spec.sequence_shape(2, 5, 3)).astype(spec.dtype),
            "h0": rng.standard_normal(spec.h_shape(2)).astype(spec.dtype),
            "c0": rng.standard_normal(spec.c_shape(2)).astype(spec.dtype),
            **({"lengths": np.array([5, 2], np.int32)} if options.lengths else {}),
        }
        data, onnx = _npz(folder, arrays), path.read_bytes()
        beside = {
            "x.npz": data,
            "g.npz": golden,
            "net.toml": _toml_of(sizes, options),
            "net.safetensors": _safetensors(folder, state),
        }
        on_data = ("run", "m.onnx", "{}", "-o", "y.npz", *ON_CPU)
        others = (("run", "m.onnx", "{}", "--chunk", "2", "--json", *ON_CPU), ("run", "m.onnx", "{}", *ON_CPU))
        found += [
            Seed("onnx", name, "m.onnx", onnx, _onnx_commands(source=True), beside),
            Seed(
                "npz",
                f"{name} golden",
                "g.npz",
                golden,
                (("verify", "m.onnx", "--golden", "g.npz", *ON_CPU),),
                {"m.onnx": onnx},
            ),
            Seed("npz", f"{name} data", "x.npz", data, _of("x.npz", on_data, *others), {"m.onnx": onnx}),
            Seed(
                "safetensors",
                f"{name} data",
                "x.safetensors",
                _safetensors(folder, arrays),
                _of("x.safetensors", on_data, *others),
                {"m.onnx": onnx},
            ),
        ]
    return found


def _toml_of(sizes: dict[str, Any], options: ExportOptions) -> bytes:
    """A configured model whose weights are in net.safetensors."""
    lines = ["[lstm]", *(f"{key} = {json.dumps(value)}" for key, value in {**SIZES, **sizes}.items())]
    lines += ["[weights]", 'file = "net.safetensors"']
    lines += ["[export]", f"lengths = {json.dumps(options.lengths)}", f'projection = "{options.projection}"']
    return "\n".join(lines).encode()


def _of(name: str, *commands: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(part.replace("{}", name) for part in command) for command in commands)


def _third_party(folder: Path) -> list[Seed]:
    path = accumulator(folder / "m.onnx", metadata={"lstm_onnx.states": json.dumps({"state": "stateN"})})
    arrays = {"x": np.ones((2, 3), np.float32), "scale": np.array(2)}
    return [
        Seed(
            "onnx",
            "accumulator",
            "m.onnx",
            path.read_bytes(),
            _onnx_commands(source=False),
            {"x.npz": _npz(folder, arrays)},
        )
    ]


def _module_seeds() -> list[Seed]:
    found = []
    for name, states in _MODULES:
        path = module_file(name, states)
        model = lstm_onnx.load(path, provider="cpu", threads=1)
        sizes = {dim: 4 for info in model.inputs.values() for dim in info.shape if isinstance(dim, str)}
        specs = {spec.name: spec for spec in model.metadata.inputs}
        arrays = lstm_onnx.input_spec.draw(list(specs.values()), sizes, np.random.default_rng(0))
        with tempfile.TemporaryDirectory() as folder:
            data = _npz(Path(folder), arrays)
        found.append(Seed("onnx", name, "m.onnx", path.read_bytes(), _onnx_commands(source=False), {"x.npz": data}))
    return found


_EXPORT = (("export", "net.toml", "-o", "m.onnx"),)


def _toml_seeds(folder: Path) -> list[Seed]:
    """Configured models, of weights from a seed and from a file; and those weights, to be mutated themselves."""
    found = [
        Seed("toml", name, "net.toml", (MODELS / f"{name}.toml").read_bytes(), _EXPORT)
        for name in ("everything", "half", "projected_fold", "tutorial")
    ]
    spec = LSTMSpec(input_size=3, hidden_size=2, num_layers=2)
    state = drawn_state(spec)
    weights = _safetensors(folder, {f"encoder.{name}": array for name, array in state.items()})
    sizes = b"[lstm]\ninput_size = 3\nhidden_size = 2\nnum_layers = 2\n"
    text = sizes + b'[weights]\nfile = "net.safetensors"\nprefix = "encoder."\n'
    found += [
        Seed("toml", "weights", "net.toml", text, _EXPORT, {"net.safetensors": weights}),
        Seed("safetensors", "weights", "net.safetensors", weights, _EXPORT, {"net.toml": text}),
    ]
    module = {file: (MODELS / file).read_bytes() for file in ("charlm.py", "charlm_text.py")}
    charlm = (MODELS / "charlm.toml").read_bytes().partition(b"[weights]")[0]
    # The factory runs a file; what else it may name is the user's own code, which no one can vouch for.
    found.append(Seed("toml", "module", "net.toml", charlm, _EXPORT, module))
    return found


def of_kind(kind: str, among: Sequence[Seed]) -> list[Seed]:
    """Those whose files are of `kind`."""
    return [seed for seed in among if seed.kind == kind]
