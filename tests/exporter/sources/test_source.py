from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lstm_onnx import ConfigError, ExportError, ExportOptions, FileError, LSTMSpec, WeightsError
from lstm_onnx.exporter.sources.source import load_source, source_files

_COUNT = itertools.count()
LSTM = "[lstm]\ninput_size = 4\nhidden_size = 3\n"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module and gives its name, which no other test uses."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def write(text: str) -> str:
        name = f"user_module_{next(_COUNT)}"
        (tmp_path / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + text)
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


def _toml(folder: Path, text: str) -> str:
    path = folder / "net.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("arguments", ["", "num_layers = 2\nbidirectional = true\nproj_size = 2\ndropout = 0.5\n"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_seed_draws_what_nn_lstm_draws(arguments: str, dtype: str, tmp_path: Path) -> None:
    text = f'{LSTM}{arguments}dtype = "{dtype}"\n[weights]\nseed = 2\n'
    before = torch.get_rng_state()
    source = load_source(_toml(tmp_path, text))
    assert torch.equal(torch.get_rng_state(), before)
    more = {"num_layers": 2, "bidirectional": True, "proj_size": 2, "dropout": 0.5} if arguments else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        expected = nn.LSTM(4, 3, **more, dtype=getattr(torch, dtype))
    assert list(source.state) == list(expected.state_dict())
    for name, value in expected.state_dict().items():
        assert source.state[name].dtype == dtype
        assert source.state[name].tobytes() == value.numpy().tobytes()
    module = source.module()
    assert not module.training
    assert all(torch.equal(module.state_dict()[name], value) for name, value in expected.state_dict().items())


def test_another_seed_draws_others(tmp_path: Path) -> None:
    one, two = (load_source(_toml(tmp_path, f"{LSTM}[weights]\nseed = {seed}\n")) for seed in (0, 1))
    assert not np.array_equal(one.state["weight_ih_l0"], two.state["weight_ih_l0"])


def test_a_config_with_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 3)
    save_file({f"enc.{name}": value for name, value in lstm.state_dict().items()}, tmp_path / "net.safetensors")
    text = f'{LSTM}[weights]\nfile = "net.safetensors"\nprefix = "enc."\n[export]\nlengths = true\n'
    source = load_source(_toml(tmp_path, text))
    assert source.spec == LSTMSpec(4, 3)
    assert source.options == ExportOptions(lengths=True)
    assert source.name == str(tmp_path / "net.toml")
    for name, value in lstm.state_dict().items():
        np.testing.assert_array_equal(source.state[name], value.numpy())


def test_weights_that_do_not_fit_name_both_files(tmp_path: Path) -> None:
    save_file(dict(nn.LSTM(5, 3).state_dict()), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_source(_toml(tmp_path, f'{LSTM}[weights]\nfile = "net.safetensors"\n'))
    for words in ("net.safetensors", "net.toml", "weight_ih_l0 is (12, 5) where the model has (12, 4)"):
        assert words in str(caught.value)


def test_sizes_past_the_memory_are_refused(tmp_path: Path) -> None:
    text = "[lstm]\ninput_size = 1\nhidden_size = 2000000\n[weights]\nseed = 0\n"
    with pytest.raises(ConfigError, match=r"net\.toml: \[lstm\] the sizes need .* GiB"):
        load_source(_toml(tmp_path, text))


def test_options_change_one_by_one(tmp_path: Path) -> None:
    source = load_source(_toml(tmp_path, f"{LSTM}[weights]\nseed = 2\n[export]\nlengths = true\n"))
    changed = source.with_options(opset=20, lengths=None)
    assert changed.options == ExportOptions(lengths=True, opset=20)
    assert source.options == ExportOptions(lengths=True)
    with pytest.raises(ConfigError, match="opset = 2"):
        source.with_options(opset=2)


def test_a_callable(python: Callable[[str], str]) -> None:
    name = python("def make():\n    torch.manual_seed(5)\n    return nn.LSTM(4, 3, batch_first=True)\n")
    source = load_source(f"{name}:make")
    assert source.name == f"{name}:make"
    assert source.spec == LSTMSpec(4, 3, batch_first=True)
    torch.manual_seed(5)
    np.testing.assert_array_equal(source.state["weight_ih_l0"], nn.LSTM(4, 3).weight_ih_l0.detach().numpy())
    assert source.options == ExportOptions()


@pytest.mark.parametrize("attribute", ["lstm", "Holder.lstm"])
def test_a_module_is_taken_as_it_is(attribute: str, python: Callable[[str], str]) -> None:
    name = python("lstm = nn.LSTM(4, 3)\nclass Holder:\n    lstm = nn.LSTM(4, 3)\n")
    assert load_source(f"{name}:{attribute}").spec == LSTMSpec(4, 3)


@pytest.mark.parametrize(
    ("text", "attribute", "words"),
    [
        ("def make():\n    return nn.GRU(4, 3)\n", "make", "returns a GRU; for a module"),
        ("def make():\n    return nn.Sequential(nn.LSTM(4, 3))\n", "make", "returns a Sequential; for a module"),
        ("def make():\n    return 4\n", "make", "returns a int"),
        (
            "def make():\n    return None\n",
            "make",
            "None is not an nn.Module; a function that makes the module must return it",
        ),
        ("def make():\n    raise KeyError('weights')\n", "make", "the callable raised KeyError: 'weights' (at "),
        ("def make(size):\n    return nn.LSTM(4, size)\n", "make", "the callable raised TypeError"),
        ("make = 4\n", "make", "make is a int; it must be a callable"),
        ("", "make", "has no 'make'"),
        ("", "torch.nope", "has no 'torch.nope'"),
        ("", "", "is not package.module:callable"),
        ("1 / 0\n", "make", "cannot be imported: ZeroDivisionError"),
        ("def\n", "make", "cannot be imported: SyntaxError"),
        ("raise SystemExit(0)\n", "make", "cannot be imported: SystemExit"),
        ("def make():\n    raise SystemExit(0)\n", "make", "the callable raised SystemExit"),
        (
            "import no_such_package\n",
            "make",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
    ],
)
def test_a_callable_that_is_none(text: str, attribute: str, words: str, python: Callable[[str], str]) -> None:
    name = python(text)
    with pytest.raises(ExportError) as caught:
        load_source(f"{name}:{attribute}")
    assert words in str(caught.value)


@pytest.mark.parametrize("source", ["no_such_module_at_all:make", ":make", ".relative:make"])
def test_a_module_that_cannot_be_imported(source: str) -> None:
    with pytest.raises(ExportError, match=source):
        load_source(source)


@pytest.mark.parametrize("source", ["net.onnx", "somewhere", ""])
def test_what_is_no_source(source: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a model\'s \.toml, package\.module:callable or file\.py:callable"):
        load_source(source)


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        load_source(str(tmp_path / "none.toml"))


def test_a_python_file_and_a_class_in_it(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.LSTM):\n    pass\ndef make():\n    return nn.LSTM(4, 3)\n"
    )
    assert load_source(f"{path}:make").spec == LSTMSpec(4, 3)
    assert source_files(f"{path}:make") == [path]
    with pytest.raises(ExportError, match=r"model\.py has no 'Nett'; did you mean Net\?"):
        load_source(f"{path}:Nett")
    with pytest.raises(FileError, match=r"other\.py does not exist"):
        load_source(f"{tmp_path / 'other.py'}:make")
