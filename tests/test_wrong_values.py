"""Wrong values for every public parameter: what is raised is an error of ours, on one line of a bearable length."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx import FileError, LSTMOnnxError
from lstm_onnx.testing import assert_parity


class Hostile:
    """An object whose every method raises."""

    __hash__ = None  # type: ignore[assignment]

    def __index__(self) -> int:
        raise KeyError("index")

    def __float__(self) -> float:
        raise KeyError("float")

    def __fspath__(self) -> str:
        raise KeyError("fspath")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise KeyError("array")

    def __repr__(self) -> str:
        raise KeyError("repr")

    def __eq__(self, other: object) -> bool:
        raise KeyError("eq")


def _endless_list() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def _endless_dict() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    return endless


WRONG: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "3": 3,
    "1.5": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "2**40": 2**40,
    "2**70": 2**70,
    "-2**70": -(2**70),
    "no text": "",
    "text": "a",
    "NUL": "a\0b",
    "half a character": "\ud800",
    "long text": "x" * 5000,
    "an escape code": "\x1b[31m",
    "bytes": b"ab",
    "no list": [],
    "list": ["a"],
    "list of None": [None],
    "tuple": (1, 2, 3),
    "no dict": {},
    "dict": {"a": "b"},
    "dict of numbers": {1: 2},
    "dict of None": {"a": None},
    "set": set(),
    "object": object(),
    "hostile": Hostile(),
    "endless list": _endless_list(),
    "endless dict": _endless_dict(),
    "class": int,
    "iterator": iter([]),
    "numpy number": np.float32(1),
    "integers": np.array([1, 2]),
    "0-d text": np.array("a"),
    "objects": np.array([None]),
    "no numbers": np.zeros(0),
    "date": np.datetime64("2020-01-01"),
    "masked": np.ma.masked,
    "masked array": np.ma.masked_array([1.0], mask=[1]),
    "tensor": torch.zeros(2),
    "0-d tensor": torch.tensor(float("nan")),
    "complex": 3j,
    "range": range(3),
    "slice": slice(1),
}
Call = Callable[[Any], object]
CALLS: dict[str, Callable[[Path], Call]] = {}


def calls(name: str) -> Callable[[Callable[[Path], Call]], Callable[[Path], Call]]:
    def kept(made: Callable[[Path], Call]) -> Callable[[Path], Call]:
        CALLS[name] = made
        return made

    return kept


def keyword(name: str, *options: str, call: Callable[[Path, dict[str, Any]], object]) -> None:
    """An entry for each keyword argument."""
    for option in options:
        CALLS[f"{name} {option}"] = lambda folder, option=option: lambda value: call(folder, {option: value})  # type: ignore[misc]


def _net() -> torch.nn.LSTM:
    return torch.nn.LSTM(4, 3)


X = np.zeros((5, 1, 4), np.float32)
keyword(
    "load",
    "path",
    "provider",
    "threads",
    "states",
    "spin",
    "cuda_graph",
    "trial",
    call=lambda folder, given: lstm_onnx.load(**{"path": folder / "m.onnx", "provider": "cpu", **given}),
)
keyword("warm_up", "batch", "time", "wrong", call=lambda folder, given: _model(folder).warm_up(**given))
keyword("stream", "batch", "check", call=lambda folder, given: _model(folder).stream(**given))
keyword("pool", "slots", "check", call=lambda folder, given: _model(folder).pool(**given))
keyword(
    "map",
    "workers",
    "look_ahead",
    "batch",
    call=lambda folder, given: list(_model(folder).map([X[:, 0]], **given)),
)
keyword(
    "Batcher",
    "max_batch",
    "window",
    "queue",
    "timeout",
    call=lambda folder, given: lstm_onnx.Batcher(_model(folder), **given).close(),
)
keyword(
    "LSTMSpec",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
    "dtype",
    call=lambda _, given: lstm_onnx.LSTMSpec(**{"input_size": 4, "hidden_size": 3, **given}),
)
keyword(
    "deploy_triton",
    "name",
    "max_batch",
    "idle_seconds",
    "delay_seconds",
    call=lambda folder, given: lstm_onnx.deploy_triton("m.onnx", folder / "models", **given),
)
keyword("ExportOptions", "lengths", "projection", "opset", call=lambda _, given: lstm_onnx.ExportOptions(**given))
keyword(
    "export",
    "example_inputs",
    "states",
    "output_names",
    "lengths",
    "projection",
    "opset",
    "max_delay",
    "check",
    call=lambda folder, given: lstm_onnx.export(_net(), folder / "e.onnx", **given),
)
keyword(
    "verify_golden",
    "provider",
    "threads",
    "mutants",
    call=lambda folder, given: lstm_onnx.verify_golden(folder / "m.onnx", folder / "g.npz", **given),
)
ENTRIES: dict[str, Callable[[Path, Any], object]] = {
    "call": lambda folder, value: _model(folder)(value),
    "call states": lambda folder, value: _model(folder)(X, value),
    "call state": lambda folder, value: _model(folder)(X, (value, value)),
    "call lengths": lambda folder, value: _model(folder)(X, lengths=value),
    "run": lambda folder, value: _model(folder).run(value),
    "run input": lambda folder, value: _model(folder).run({"input": value}),
    "run h0": lambda folder, value: _model(folder).run({"input": X, "h0": value}),
    "stream call": lambda folder, value: _model(folder).stream()(value),
    "stream run": lambda folder, value: _model(folder).stream().run(value),
    "stream run input": lambda folder, value: _model(folder).stream().run({"input": value}),
    "stream state": lambda folder, value: setattr(_model(folder).stream(), "state", value),
    "stream state h0": lambda folder, value: setattr(_model(folder).stream(), "state", {"h0": value, "c0": value}),
    "pool step slots": lambda folder, value: _model(folder).pool().step(value, X),
    "pool step slot": lambda folder, value: _model(folder).pool().step([value], X),
    "pool step": lambda folder, value: _with_slot(folder, lambda pool, slot: pool.step([slot], value)),
    "pool step input": lambda folder, value: _with_slot(folder, lambda pool, slot: pool.step([slot], {"input": value})),
    "pool close": lambda folder, value: _model(folder).pool().close(value),
    "pool reset": lambda folder, value: _model(folder).pool().reset(value),
    "pool state": lambda folder, value: _model(folder).pool().state(value),
    "pool set_state": lambda folder, value: _with_slot(folder, lambda pool, slot: pool.set_state(slot, value)),
    "map sequences": lambda folder, value: list(itertools.islice(_model(folder).map(value), 3)),
    "map sequence": lambda folder, value: list(_model(folder).map([value])),
    "map states": lambda folder, value: list(_model(folder).map([(X[:, 0], value)])),
    "map input": lambda folder, value: list(_model(folder).map([{"input": value}])),
    "Batcher": lambda _, value: lstm_onnx.Batcher(value),
    "batcher drain": lambda folder, value: lstm_onnx.Batcher(_model(folder)).close(drain=value),
    "batcher step": lambda folder, value: _batched(folder, lambda stream: stream.step(value)),
    "batcher astep": lambda folder, value: _batched(folder, lambda stream: asyncio.run(stream.astep(value))),
    "batcher submit": lambda folder, value: _batched(folder, lambda stream: stream.submit(value).result()),
    "batcher result": lambda folder, value: _batched(folder, lambda stream: stream.submit(X).result(value)),
    "batcher state": lambda folder, value: _batched(folder, lambda stream: setattr(stream, "state", value)),
    "beam_search prompt": lambda folder, value: _searched(folder, prompt=value),
    "beam_search input": lambda folder, value: _searched(folder, input=value),
    "beam_search context": lambda folder, value: _searched(folder, context=value),
    "scan cell": lambda _, value: lstm_onnx.scan(None if callable(value) else value, torch.zeros(3, 2), torch.zeros(2)),
    "scan result": lambda _, value: lstm_onnx.scan(lambda *_: value, torch.zeros(3, 2), torch.zeros(2)),
    "data name": lambda folder, value: lstm_onnx.data.write(folder / "o.npz", [_record(value)], many=False),
    "export module": lambda folder, value: lstm_onnx.export(value, folder / "e.onnx"),
    "export path": lambda _, value: lstm_onnx.export(_net(), value),
    "verify module": lambda folder, value: lstm_onnx.verify(value, folder / "m.onnx", mutants="none"),
    "verify path": lambda _, value: lstm_onnx.verify(_net(), value, mutants="none"),
    "verify_golden path": lambda folder, value: lstm_onnx.verify_golden(value, folder / "g.npz"),
    "verify_golden golden": lambda folder, value: lstm_onnx.verify_golden(folder / "m.onnx", value),
    "quantize file": lambda folder, value: lstm_onnx.quantize(value, folder / "o.onnx"),
    "repair file": lambda folder, value: lstm_onnx.repair(value, folder / "o.onnx"),
    "make_streaming file": lambda folder, value: lstm_onnx.make_streaming(value, folder / "o.onnx", time={"x": 1}),
    "make_generating file": lambda folder, value: lstm_onnx.make_generating(
        value, folder / "o.onnx", input="x", output="y"
    ),
    "deploy_web file": lambda folder, value: lstm_onnx.deploy_web(value, folder / "web"),
    "deploy_triton file": lambda folder, value: lstm_onnx.deploy_triton(value, folder / "models"),
    "quantize layers": lambda folder, value: lstm_onnx.quantize("m.onnx", folder / "o.onnx", layers=value),
    "quantize kernel": lambda folder, value: lstm_onnx.quantize("m.onnx", folder / "o.onnx", kernel=value),
    "quantize inputs": lambda folder, value: lstm_onnx.quantize("m.onnx", folder / "o.onnx", inputs=value),
    "deploy_web inputs": lambda folder, value: lstm_onnx.deploy_web("m.onnx", folder / "w", inputs=value),
    "verify runtime": lambda _, value: lstm_onnx.verify(_net(), "m.onnx", mutants="none", runtime=value),
    "quantize seed": lambda folder, value: lstm_onnx.quantize("m.onnx", folder / "o.onnx", seed=value),
    "make_streaming seed": lambda folder, value: lstm_onnx.make_streaming("m.onnx", folder / "o.onnx", seed=value),
    "Generation choose": lambda _, value: lstm_onnx.Generation("x", "y", choose=value),
    "check targets": lambda _, value: lstm_onnx.check("no.onnx", targets=value),
    "check ignore": lambda _, value: lstm_onnx.check("no.onnx", ignore=value),
    "check provider": lambda _, value: lstm_onnx.check("no.onnx", provider=value),
    "check seconds": lambda _, value: lstm_onnx.check("no.onnx", seconds=value),
    "deploy_web sample_rate": lambda folder, value: lstm_onnx.deploy_web("m.onnx", folder / "w", sample_rate=value),
    "to_torch": lambda _, value: lstm_onnx.to_torch(value),
    "check": lambda _, value: lstm_onnx.check(value),
    "check strict": lambda _, value: lstm_onnx.check("no.onnx", strict=value),
    "repair trial": lambda folder, value: lstm_onnx.repair("m.onnx", folder / "o.onnx", trial=value),
    "inspect": lambda _, value: lstm_onnx.inspect(value),
    "assert_parity source": lambda folder, value: assert_parity(value, folder / "m.onnx", mutants="none"),
    "assert_parity golden": lambda folder, value: assert_parity(
        folder / "m.onnx", golden="a" if value is None else value
    ),
    "progress": lambda folder, value: None if callable(value) else list(_model(folder).map([X[:, 0]], progress=value)),
}
CALLS.update(
    {name: lambda folder, call=call: lambda value: call(folder, value) for name, call in ENTRIES.items()}  # type: ignore[misc]
)


def _model(folder: Path) -> lstm_onnx.Model:
    return lstm_onnx.load(folder / "m.onnx", "cpu", threads=1)


def _with_slot(folder: Path, call: Callable[[lstm_onnx.Pool, Any], object]) -> object:
    pool = _model(folder).pool(2)
    return call(pool, pool.open())


def _searched(folder: Path, **given: Any) -> object:
    """In a file whose inputs are no tokens: wrong names and contexts are found first."""
    chosen = {"prompt": [1], "input": "input", "output": "output", "max_steps": 1, "beams": 1, **given}
    return lstm_onnx.beam_search(_model(folder).pool(2), chosen.pop("prompt"), **chosen)


def _record(name: Any) -> dict[Any, Any]:
    try:
        return {name: np.zeros(1)}
    except Exception:  # noqa: BLE001 - it cannot be in a dict
        raise FileError("cannot be a name") from None


def _batched(folder: Path, call: Callable[[Any], object]) -> object:
    with lstm_onnx.Batcher(_model(folder), max_batch=2, window=0) as batcher:
        return call(batcher.open())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made: Path = tmp_path_factory.mktemp("wrong")
    torch.manual_seed(0)
    net = _net()
    lstm_onnx.export(net, made / "m.onnx", lengths=True)
    lstm_onnx.verify(net, made / "m.onnx", mutants="none", golden=made / "g.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        yield made


@pytest.mark.sweep(4)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_value_meets_an_error_of_ours(name: str, folder: Path) -> None:
    call = CALLS[name](folder)
    told: dict[str, str] = {}
    raw: dict[str, str] = {}
    for label, value in WRONG.items():
        try:
            call(value)
        except LSTMOnnxError as error:
            told[label] = str(error)
        except Exception as error:  # noqa: BLE001 - which is what must not be
            raw[label] = f"{type(error).__name__}: {error}"
    # A future's own error where its result is not there in time.
    assert {label: text for label, text in raw.items() if "no output within" not in text} == {}
    assert len(told) > len(WRONG) // 3
    # Of paths and texts the caller's own words may be long.
    assert [label for label, text in told.items() if not text or len(text) > 6000 or "\n" in text] == []


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"seed": 2**70},
        {"seed": 1.5},
        {"seed": Hostile()},
        {"data": 3},
        {"data": "ab"},
        {"data": [1]},
        {"data": [{1: X}]},
        {"mutants": None},
        {"mutants": np.array([1, 2])},
        {"golden": 3},
        {"provider": Hostile()},
        {"threads": 2**70},
    ],
    ids=lambda options: next(iter(options)),
)
def test_wrong_options_of_verify(options: dict[str, Any], folder: Path) -> None:
    with pytest.raises(LSTMOnnxError):
        lstm_onnx.verify(_net(), folder / "m.onnx", **{"mutants": "none", **options})


def test_folders_that_are_no_paths(folder: Path) -> None:
    for deploy in (lstm_onnx.deploy_web, lstm_onnx.deploy_triton):
        for value in (_net(), b"ab", "a\0b", "", Hostile()):
            with pytest.raises(FileError):
                deploy(folder / "m.onnx", value)  # type: ignore[operator]
    with pytest.raises(FileError):
        lstm_onnx.deploy_web(folder / "m.onnx", folder / "web", ort=3)  # type: ignore[arg-type]


def test_progress_is_told_apart_from_its_errors(folder: Path) -> None:
    def broken(_: int) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(_model(folder).map([X[:, 0]], progress=broken))
