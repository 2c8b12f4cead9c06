"""[module] configs and callables that give a module with its example: read, loaded, exported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save_file

import lstm_onnx
from lstm_onnx import ConfigError, ExportError, FileError, WeightsError
from lstm_onnx.exporter.functional.example_inputs import find_example_inputs
from lstm_onnx.exporter.sources.source import ModuleSource, load_source
from lstm_onnx.input_spec import InputSpec

pytestmark = pytest.mark.sweep(9)

NET = """
import torch
from torch import nn

import helper_beside


class Tagger(nn.Module):
    def __init__(self, tags=3):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, tags)

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0])


class WithVersion(Tagger):
    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        pass


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5)
        self.hidden = (torch.zeros(1, 6, 5), torch.zeros(1, 6, 5))

    def forward(self, x):
        y, self.hidden = self.lstm(x, self.hidden)
        return y


def example():
    return Tagger(), (torch.zeros(2, 3, dtype=torch.int64),), {"tokens": {0: "batch", 1: "time"}}


class Lengths(Tagger):
    def forward(self, tokens, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(self.lstm(packed)[1][0][-1])


def unnamed():
    return Lengths(), (torch.arange(15).reshape(3, 5), torch.tensor([5, 2, 3]))


def no_tuple():
    return Tagger()


number = 4


def gives_number():
    return 4


def fails():
    raise KeyError("weights")
"""
CONFIG = """
[module]
factory = "net.py:Tagger"
args = { tags = 4 }
states = "explicit"
outputs = ["scores"]

[inputs.tokens]
shape = ["batch", "time"]
dtype = "int64"
range = [0, 19]

[weights]
seed = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "helper_beside.py").write_text("")
    (tmp_path / "net.toml").write_text(CONFIG)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("_lstm_onnx_source_") or name in ("helper_beside", "net"):
            del sys.modules[name]


def test_a_config_is_exported_as_it_says(folder: Path) -> None:
    source = load_source(str(folder / "net.toml"))
    assert isinstance(source, ModuleSource)
    result = source.export(folder / "net.onnx")
    assert result.inputs == ("tokens", "lstm.h0", "lstm.c0")
    assert result.outputs == ("scores", "lstm.hn", "lstm.cn")
    assert not any("training mode" in note for note in result.notes)
    scores = onnx.load(folder / "net.onnx").graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in scores] == ["batch", "time", 4]
    assert source.with_options(states="zero").export(folder / "zero.onnx").states == {}
    assert lstm_onnx.verify(source.module(), folder / "net.onnx", provider="cpu", threads=1)
    other = load_source(str(folder / "net.toml").replace("net.toml", "net.toml")).module()
    assert all(torch.equal(a, b) for a, b in zip(source.module().parameters(), other.parameters(), strict=True))


def test_the_seed_is_that_of_the_weights_and_the_callers_draws_go_on(folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first = load_source(str(folder / "net.toml")).module()
    assert torch.equal(torch.rand(2), expected)
    (folder / "net.toml").write_text(CONFIG.replace("seed = 3", "seed = 4"))
    second = load_source(str(folder / "net.toml")).module()
    assert not torch.equal(first.head.weight, second.head.weight)  # type: ignore[union-attr, arg-type]


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    state = load_source(str(folder / "net.toml")).module().state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def test_weights_come_from_a_file(folder: Path) -> None:
    wanted = {
        name: array.numpy() + 1 for name, array in load_source(str(folder / "net.toml")).module().state_dict().items()
    }
    save_file({f"net.{name}": array for name, array in wanted.items()}, folder / "w.safetensors")
    weights = '[weights]\nfile = "w.safetensors"\nprefix = "net."\n'
    (folder / "net.toml").write_text(CONFIG.replace("[weights]\nseed = 3\n", weights))
    held = load_source(str(folder / "net.toml")).module().state_dict()
    assert all(np.array_equal(held[name].numpy(), wanted[name]) for name in wanted)


def test_a_state_dict_that_holds_more_than_tensors_is_not_read_from_a_file(folder: Path) -> None:
    config = CONFIG.replace("net.py:Tagger", "net.py:WithVersion").replace("seed = 3", 'file = "w.safetensors"')
    (folder / "net.toml").write_text(config)
    save_file({"head.bias": np.zeros(4, np.float32)}, folder / "w.safetensors")
    with pytest.raises(WeightsError, match=r"_extra_state of the module's state dict is not a tensor.*in the factory"):
        load_source(str(folder / "net.toml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop("head.bias"), "missing head.bias (4,)"),
        (lambda arrays: arrays.update(extra=np.zeros(2, np.float32)), "unexpected extra (2,)"),
        (
            lambda arrays: arrays.update({"head.bias": np.zeros(9, np.float32)}),
            "head.bias is (9,) where the model has (4,)",
        ),
        (
            lambda arrays: arrays.update({"head.bias": np.zeros(4, np.int8)}),
            "head.bias is of dtype int8 where the model has float32",
        ),
        (
            lambda arrays: arrays.update({"head.bias": np.full(4, 1e39)}),
            "head.bias holds numbers too large for float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, change: object, words: str) -> None:
    arrays = {
        name: array.numpy() for name, array in load_source(str(folder / "net.toml")).module().state_dict().items()
    }
    change(arrays)  # type: ignore[operator]
    save_file(arrays, folder / "w.safetensors")
    (folder / "net.toml").write_text(CONFIG.replace("seed = 3", 'file = "w.safetensors"'))
    with pytest.raises(WeightsError) as caught:
        load_source(str(folder / "net.toml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        ("nowhere.py:Tagger", FileError, "nowhere.py does not exist"),
        ("net.py:Nothing", ExportError, "net.py has no 'Nothing'"),
        ("net.py:number", ExportError, "is a int; it must be a callable"),
        ("net.py:gives_number", ExportError, "returns a int; it must return an nn.Module"),
        ("net.py:fails", ExportError, "raised KeyError: 'weights'"),
        ("no_such_package_here:make", ExportError, "'no_such_package_here'; it is looked for in the current folder"),
    ],
)
def test_a_factory_that_is_none(folder: Path, factory: str, error: type[Exception], words: str) -> None:
    (folder / "net.toml").write_text(CONFIG.replace("net.py:Tagger", factory).replace("args = { tags = 4 }\n", ""))
    with pytest.raises(error) as caught:
        load_source(str(folder / "net.toml"))
    assert words in str(caught.value)
    assert str(folder / "net.toml") in str(caught.value)


def test_a_file_that_does_not_import_is_said_and_forgotten(folder: Path) -> None:
    (folder / "net.py").write_text("1 / 0\n")
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises(ExportError, match="cannot be imported: ZeroDivisionError"):
        load_source(str(folder / "net.toml"))
    assert sys.path == path
    assert not [name for name in set(sys.modules) - modules if name.startswith("_lstm_onnx_source_")]


def test_a_callable_gives_a_module_with_its_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    source = load_source("net:example")
    assert isinstance(source, ModuleSource)
    assert source.export("tagger.onnx").inputs == ("tokens",)
    said = lstm_onnx.load("tagger.onnx", provider="cpu").metadata.inputs
    assert said == (InputSpec("tokens", ("batch", "time"), "int64", 0, 0),)
    with pytest.raises(ExportError, match=r"net:no_tuple: returns a Tagger.*\(module, example_inputs\)"):
        load_source("net:no_tuple")
    with pytest.raises(ConfigError, match="lengths are for a bare"):
        source.with_options(lengths=True)


def test_a_module_that_holds_a_batch_of_six_is_run_at_six(folder: Path) -> None:
    (folder / "net.toml").write_text('[module]\nfactory = "net.py:Kept"\n[inputs.x]\nshape = ["time", "batch", 4]\n')
    source = load_source(str(folder / "net.toml"))
    assert isinstance(source, ModuleSource)
    assert find_example_inputs(source.module(), source.inputs).sizes["batch"] == 6
    result = source.export(folder / "kept.onnx")
    assert result.states == {"hidden.h0": "hidden.hn", "hidden.c0": "hidden.cn"}
    assert lstm_onnx.verify(source.module(), folder / "kept.onnx", provider="cpu", threads=1)


def test_limits_of_a_config_are_in_its_example_and_in_its_file(folder: Path) -> None:
    text = '[module]\nfactory = "net.py:Tagger"\n[inputs.tokens]\nshape = ["batch", "time"]\ndtype = "int64"\n'
    (folder / "net.toml").write_text(text + "range = [0, 19]\nlimits = { time = [20, 30], batch = [2] }\n")
    source = load_source(str(folder / "net.toml"))
    assert isinstance(source, ModuleSource)
    sizes = find_example_inputs(source.module(), source.inputs, limits=source.limits).sizes
    assert 20 <= sizes["time"] <= 30
    source.export(folder / "made.onnx")
    metadata = lstm_onnx.load(folder / "made.onnx", provider="cpu").metadata
    assert metadata.axis_limits == {"batch": (2, None), "time": (20, 30)}


def test_a_callable_without_axes_is_exported_from_its_own_example(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    source = load_source("net:unnamed")
    source.export("u.onnx")
    said = lstm_onnx.load("u.onnx", provider="cpu").metadata.inputs
    assert [spec.shape for spec in said] == [("batch", "time"), ("batch",)]
    assert said[1].high == "time"
    assert lstm_onnx.verify(source.module(), "u.onnx", provider="cpu", threads=1)


def test_lengths_of_a_config_without_a_range_are_from_1_to_the_number_of_steps(folder: Path) -> None:
    tokens = '[inputs.tokens]\nshape = ["batch", "time"]\ndtype = "int64"\nrange = [0, 19]\n'
    lengths = '[inputs.lengths]\nshape = ["batch"]\ndtype = "int64"\n'
    (folder / "net.toml").write_text(f'[module]\nfactory = "net.py:Lengths"\n{tokens}{lengths}')
    result = load_source(str(folder / "net.toml")).export(folder / "net.onnx")
    assert result.notes == ()
    metadata = lstm_onnx.load(folder / "net.onnx", provider="cpu").metadata
    assert (metadata.inputs[1].low, metadata.inputs[1].high, metadata.batch_mixes) == (1, "time", "")
    report = lstm_onnx.verify(folder / "net.toml", folder / "net.onnx", provider="cpu", threads=1, mutants="none")
    assert report
    assert not report.notes, "the module runs at every case"
    assert {one.name: (one.least, one.largest > 100) for one in report.ranges}["lengths"] == (1, True)


def test_inputs_of_a_config_that_forward_does_not_take_are_named(folder: Path) -> None:
    config = (folder / "net.toml").read_text().replace("[inputs.tokens]", "[inputs.Tokens]")
    (folder / "net.toml").write_text(config)
    with pytest.raises(ExportError, match=r"^the input Tokens is not an argument of Tagger\.forward\(tokens\); name"):
        load_source(str(folder / "net.toml")).export(folder / "net.onnx")


def test_a_state_in_a_tuple_is_described_item_by_item(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.lstm = nn.LSTM(4, 3, 2)\n\n"
        "    def forward(self, x, hidden):\n"
        "        assert isinstance(hidden, tuple)\n"
        "        return self.lstm(x, hidden)\n"
    )
    state = '[[inputs.hidden]]\nshape = [2, "batch", 3]\n'
    text = '[module]\nfactory = "net.py:Net"\n[inputs.x]\nshape = ["time", "batch", 4]\n' + state + state
    (tmp_path / "net.toml").write_text(text + "[weights]\nseed = 1\n")
    result = load_source(str(tmp_path / "net.toml")).export(tmp_path / "m.onnx")
    assert result.states == {"hidden.0": "output.1.0", "hidden.1": "output.1.1"}
    assert lstm_onnx.verify(str(tmp_path / "net.toml"), tmp_path / "m.onnx", mutants="none")
