from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from lstm_onnx import ConfigError, ExportOptions, FileError, LSTMSpec
from lstm_onnx.exporter.sources.config import (
    WEIGHT_SUFFIXES,
    LSTMConfig,
    ModuleConfig,
    WeightsSource,
    flat_inputs,
    load_config,
)
from lstm_onnx.input_spec import InputSpec

LSTM = "[lstm]\ninput_size = 4\nhidden_size = 3\n"
SEED = "[weights]\nseed = 2\n"
FACTORY = '[module]\nfactory = "net.py:Net"\n'
TOKENS = '[inputs.tokens]\nshape = ["batch", "time"]\ndtype = "int64"\n'


def _write(folder: Path, text: str) -> Path:
    path = folder / "net.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _lstm(folder: Path, text: str) -> LSTMConfig:
    config = load_config(_write(folder, text))
    assert isinstance(config, LSTMConfig)
    return config


def _module(folder: Path, text: str) -> ModuleConfig:
    config = load_config(_write(folder, text))
    assert isinstance(config, ModuleConfig)
    return config


def test_a_whole_config(tmp_path: Path) -> None:
    config = _lstm(
        tmp_path,
        "[lstm]\ninput_size = 4\nhidden_size = 3\nnum_layers = 2\nbias = false\nbatch_first = true\ndropout = 0.25\n"
        'bidirectional = true\nproj_size = 2\ndtype = "float64"\n'
        '[weights]\nfile = "sub/net.safetensors"\nprefix = "encoder.lstm."\n'
        '[export]\nlengths = true\nprojection = "fold"\nopset = 20\n',
    )
    assert config.path == tmp_path / "net.toml"
    assert config.spec == LSTMSpec(4, 3, 2, False, True, 0.25, True, 2, "float64")
    assert config.options == ExportOptions(True, "fold", 20)
    assert config.weights.file == tmp_path / "sub" / "net.safetensors"
    assert (config.weights.seed, config.weights.prefix) == (None, "encoder.lstm.")


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    config = _lstm(tmp_path, LSTM + SEED)
    assert config.spec == LSTMSpec(4, 3)
    assert config.options == ExportOptions()
    assert config.weights.seed == 2
    assert config.weights.file is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Unknown keys and tables, with the close one.
        (LSTM + "hiden_size = 3\n" + SEED, ["[lstm] hiden_size", "did you mean hidden_size?", "num_layers"]),
        (LSTM + SEED + "[export]\nlength = true\n", ["[export] length", "did you mean lengths?", "opset"]),
        (LSTM + "[weights]\nsede = 2\n", ["[weights] sede", "did you mean seed?", "file, prefix"]),
        (LSTM + SEED + "[exports]\n", ["[exports] is not a table", "did you mean export?", "inputs, weights, export"]),
        (LSTM + SEED + "[zzz]\n", ["[zzz] is not a table", "allowed are lstm, module, inputs, weights, export"]),
        (LSTM + SEED + "[input.x]\n", ["[input] is not a table", "did you mean inputs?"]),
        # Wrong types.
        (LSTM.replace("4", '"4"') + SEED, ["[lstm] input_size = '4'", "an integer of 1 or more"]),
        (LSTM.replace("4", "4.0") + SEED, ["[lstm] input_size = 4.0", "an integer of 1 or more"]),
        (LSTM.replace("4", "true") + SEED, ["[lstm] input_size = True", "an integer of 1 or more"]),
        (LSTM.replace("4", "[4]") + SEED, ["[lstm] input_size = [4]", "an integer of 1 or more"]),
        (LSTM + "bias = 1\n" + SEED, ["[lstm] bias = 1", "true or false"]),
        (LSTM + "dtype = 32\n" + SEED, ["[lstm] dtype = 32", '"float32"']),
        ("lstm = 4\n" + SEED, ["lstm = 4", "a table"]),
        ("weights = [1]\n" + LSTM, ["weights = [1]", "a table"]),
        ("export = 18\n" + LSTM + SEED, ["export = 18", "a table"]),
        # Impossible values.
        (LSTM.replace("4", "nan") + SEED, ["[lstm] input_size = nan", "an integer of 1 or more"]),
        (LSTM.replace("4", "inf") + SEED, ["[lstm] input_size = inf", "an integer of 1 or more"]),
        (LSTM.replace("4", "2147483648") + SEED, ["[lstm] input_size = 2147483648", "1 or more, below 2**31"]),
        (LSTM.replace("4", "0") + SEED, ["[lstm] input_size = 0", "an integer of 1 or more"]),
        (LSTM.replace("4", "2147483648") + SEED, ["[lstm] input_size = 2147483648"]),
        (LSTM + "dropout = nan\n" + SEED, ["[lstm] dropout = nan", "a number from 0 to 1"]),
        (LSTM + "dropout = 2\n" + SEED, ["[lstm] dropout = 2", "a number from 0 to 1"]),
        (LSTM + "proj_size = 3\n" + SEED, ["[lstm] proj_size = 3", "smaller than hidden_size = 3"]),
        (LSTM + 'dtype = "bfloat16"\n' + SEED, ["[lstm] dtype", '"float16"']),
        (LSTM + SEED + "[export]\nopset = 13\n", ["[export] opset = 13", "from 14 to 23"]),
        (LSTM + SEED + '[export]\nprojection = "x"\n', ["[export] projection = 'x'", '"scan", "fold"']),
        # Weights.
        (LSTM + '[weights]\nseed = 2\nfile = "a.pt"\n', ["[weights]", "exactly one of seed and file"]),
        (LSTM + "[weights]\n", ["[weights]", "exactly one of seed and file"]),
        (LSTM + '[weights]\nprefix = "a."\n', ["[weights]", "exactly one of seed and file"]),
        (LSTM + '[weights]\nseed = 1\nprefix = "a."\n', ["[weights] prefix", "with file"]),
        (LSTM + "[weights]\nseed = -1\n", ["[weights] seed = -1", "an integer of 0 or more"]),
        (LSTM + "[weights]\nseed = 1.5\n", ["[weights] seed = 1.5", "an integer of 0 or more"]),
        (LSTM + "[weights]\nseed = true\n", ["[weights] seed = True", "an integer of 0 or more"]),
        (LSTM + "[weights]\nseed = 9223372036854775808\n", ["[weights] seed = 9223372036854775808"]),
        (
            LSTM + '[weights]\nfile = "a.onnx"\n',
            ["[weights] file = 'a.onnx'", ".safetensors, .pt, .pth, .ckpt, .bin, "],
        ),
        (
            LSTM + "[weights]\nfile = 3\n",
            ["[weights] file = 3", ".safetensors, .pt, .pth, .ckpt, .bin, "],
        ),
        (LSTM + '[weights]\nfile = "a\\u0000.pt"\n', ["[weights] file", "a path"]),
        # Paths of Windows in double quotes: a tab, a line's end, and what is no escape.
        (LSTM + '[weights]\nfile = "data\\train.pt"\n', ["[weights] file = 'data\\train.pt'", "'single quotes'"]),
        (LSTM + '[weights]\nfile = "C:\\Users\\net.pt"\n', ["not valid TOML", "line 5", "'single quotes'"]),
        (LSTM + '[weights]\nfile = "C:\\data\\net.pt"\n', ["not valid TOML", "line 5", "'single quotes'"]),
        (
            '[module]\nfactory = "src\\net.py:Net"\n' + TOKENS,
            ["[module] factory = 'src\\net.py:Net'", "'single quotes'"],
        ),
        (LSTM + '[weights]\nfile = "a.pt"\nprefix = 3\n', ["[weights] prefix = 3", "a string"]),
        # What is missing.
        (SEED, ["the table [lstm] is missing", "or [module]"]),
        (LSTM, ["the table [weights] is missing", "seed = 0"]),
        ("[lstm]\nhidden_size = 3\n" + SEED, ["[lstm] lacks input_size", "an integer of 1 or more"]),
        ("[lstm]\n" + SEED, ["[lstm] lacks input_size"]),
        # No TOML, or more of it than can be shown.
        ("[lstm\n", ["not valid TOML"]),
        (LSTM + LSTM, ["not valid TOML"]),
        ("a = " + "[" * 100_000, ["not valid TOML"]),
        ("a = " + "9" * 5000, ["not valid TOML"]),
        (LSTM.replace("4", "0x" + "f" * 5000) + SEED, ["not valid TOML", "more than 64 bits"]),
        (LSTM + SEED + "[export" + ".a" * 5000 + "]\n", ["nested more than 50 deep"]),
        (LSTM + SEED + "[[inputs]]\n" * 1000, ["[inputs] goes with [module]"]),
    ],
)
def test_a_wrong_config_names_the_file_the_key_and_what_is_allowed(text: str, words: list[str], tmp_path: Path) -> None:
    _assert_refused(_write(tmp_path, text), words)


def _assert_refused(path: Path, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert [word for word in words if word not in message] == []
    assert len(message) < 1000
    assert "\n" not in message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    for content, line in ((b"\xff\xfe[lstm]", 1), (f"{LSTM}# gr\xf6\xdfe".encode("cp1252"), LSTM.count("\n") + 1)):
        path.write_bytes(content)
        with pytest.raises(
            ConfigError, match=f"is not valid TOML: line {line} is not UTF-8 text; save the file as UTF-8"
        ):
            load_config(path)


def test_what_editors_on_windows_add_is_no_difference(tmp_path: Path) -> None:
    """A byte order mark, and two characters at each line's end."""
    path = tmp_path / "net.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (LSTM + SEED).replace("\n", "\r\n").encode())
    assert load_config(path) == load_config(_write(tmp_path, LSTM + SEED))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    for path, words in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory"), (empty, "is empty")):
        with pytest.raises(FileError, match=words):
            load_config(path)


def test_a_whole_module(tmp_path: Path) -> None:
    config = _module(
        tmp_path,
        '[module]\nfactory = "charlm.py:CharLM"\nargs = { hidden_size = 80, sizes = [1, 2], opt = { a = "b" } }\n'
        'states = "explicit"\noutputs = ["logits", "enc.h"]\n'
        '[inputs.tokens]\nshape = ["batch", "time"]\ndtype = "int64"\nrange = [0, 64]\n'
        '[inputs.lengths]\nshape = ["batch"]\ndtype = "int64"\nrange = [1, "time"]\n'
        "[inputs.gain]\nshape = []\nrange = [0, 1.5]\n"
        '[inputs.flags]\nshape = ["batch", 3]\ndtype = "bool"\n'
        '[weights]\nfile = "charlm.pt"\nprefix = "model."\n'
        '[export]\nopset = 20\nprojection = "fold"\n',
    )
    assert config.path == tmp_path / "net.toml"
    assert (config.factory, config.callable) == ("charlm.py:CharLM", "CharLM")
    assert (config.file, config.package) == (tmp_path / "charlm.py", None)
    assert config.args == {"hidden_size": 80, "sizes": [1, 2], "opt": {"a": "b"}}
    assert config.options.states == "explicit"
    assert config.options.output_names == ("logits", "enc.h")
    assert list(config.inputs.items()) == [
        ("tokens", InputSpec("tokens", ("batch", "time"), "int64", 0, 64)),
        ("lengths", InputSpec("lengths", ("batch",), "int64", 1, "time")),
        ("gain", InputSpec("gain", (), "float32", 0, 1.5)),
        ("flags", InputSpec("flags", ("batch", 3), "bool")),
    ]
    assert flat_inputs(config.inputs) == tuple(config.inputs.values())
    assert config.weights == WeightsSource(file=tmp_path / "charlm.pt", prefix="model.")
    assert config.options.export == ExportOptions(False, "fold", 20)


def test_what_a_module_leaves_out_has_defaults(tmp_path: Path) -> None:
    config = _module(tmp_path, FACTORY + TOKENS)
    assert config.args == {}
    assert (config.options.states, config.options.output_names) == ("zero", None)
    assert config.weights is None
    assert config.options.export == ExportOptions()
    assert flat_inputs(config.inputs) == (InputSpec("tokens", ("batch", "time"), "int64"),)
    assert _module(tmp_path, FACTORY + TOKENS + SEED).weights == WeightsSource(seed=2)


def test_the_sizes_of_axes_may_be_limited(tmp_path: Path) -> None:
    text = FACTORY + TOKENS + "limits = { time = [7, 512], batch = [2] }\n"
    text += '[inputs.b.y]\nshape = ["time", "n"]\nlimits = { time = [7, 512], n = [1, 1] }\n'
    assert _module(tmp_path, text).limits == {"time": (7, 512), "batch": (2, None), "n": (1, 1)}
    assert _module(tmp_path, FACTORY + TOKENS).limits == {}


@pytest.mark.parametrize("suffix", WEIGHT_SUFFIXES)
def test_a_module_takes_any_weights_file(suffix: str, tmp_path: Path) -> None:
    config = _module(tmp_path, f'{FACTORY}{TOKENS}[weights]\nfile = "net{suffix}"\n')
    assert config.weights == WeightsSource(file=tmp_path / f"net{suffix}")


@pytest.mark.parametrize(
    ("factory", "file", "package", "attribute"),
    [
        ("net.py:Net", "net.py", None, "Net"),
        ("./sub dir/../net.py:Net.build", "sub dir/../net.py", None, "Net.build"),
        ("größe.PY:make", "größe.PY", None, "make"),
        ("a:b.py:make", "a:b.py", None, "make"),
        ("package.py:make", "package.py", None, "make"),
        ("package:make", None, "package", "make"),
        ("package.models.net:Net.small", None, "package.models.net", "Net.small"),
    ],
)
def test_factories(factory: str, file: str | None, package: str | None, attribute: str, tmp_path: Path) -> None:
    config = _module(tmp_path, f'[module]\nfactory = "{factory}"\n' + TOKENS)
    assert config.file == (None if file is None else tmp_path / file)
    assert (config.package, config.callable, config.factory) == (package, attribute, factory)


def test_a_factory_by_its_whole_path_stays_there(tmp_path: Path) -> None:
    elsewhere = tmp_path / "other" / "net.py"
    config = _module(tmp_path, f"[module]\nfactory = '{elsewhere}:Net'\n" + TOKENS)
    assert config.file == elsewhere


def test_arguments_are_any_toml_values(tmp_path: Path) -> None:
    config = _module(tmp_path, FACTORY + "args = { day = 2024-02-29, scale = inf, on = true }\n" + TOKENS)
    assert config.args == {"day": dt.date(2024, 2, 29), "scale": float("inf"), "on": True}


def test_dict_and_tuple_arguments_are_tables_of_inputs(tmp_path: Path) -> None:
    config = _module(
        tmp_path,
        FACTORY + '[inputs.first]\nshape = ["batch"]\n'
        '[inputs.batch.tokens]\nshape = ["batch", "time"]\ndtype = "int64"\n'
        "[inputs.last]\nshape = [1]\n"
        '[inputs.batch."n-tokens"]\nshape = ["batch"]\ndtype = "int32"\nrange = [1, "time"]\n'
        "[inputs.batch.extra.dtype]\nshape = [2]\n"
        "[[inputs.state]]\nshape = [3]\n[[inputs.state]]\nshape = [4]\n",
    )
    tokens = InputSpec("batch.tokens", ("batch", "time"), "int64")
    lengths = InputSpec("batch.n-tokens", ("batch",), "int32", 1, "time")
    extra = InputSpec("batch.extra.dtype", (2,))
    first, last = InputSpec("first", ("batch",)), InputSpec("last", (1,))
    h, c = (InputSpec(f"state.{index}", (3 + index,)) for index in range(2))
    assert config.inputs == {
        "first": first,
        "batch": {"tokens": tokens, "n-tokens": lengths, "extra": {"dtype": extra}},
        "last": last,
        "state": {"0": h, "1": c},
    }
    assert list(config.inputs) == ["first", "batch", "last", "state"]
    assert flat_inputs(config.inputs) == (first, tokens, lengths, extra, last, h, c)


def test_no_inputs_flatten_to_none() -> None:
    assert flat_inputs({}) == flat_inputs({"a": {}}) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Which tables go together.
        (LSTM + FACTORY + TOKENS + SEED, ["[lstm] and [module] exclude each other"]),
        (LSTM + FACTORY + SEED, ["[lstm] and [module] exclude each other"]),
        (LSTM + TOKENS + SEED, ["[inputs] goes with [module]", "[lstm] follow from its sizes"]),
        (TOKENS, ["[inputs] goes with [module]", "[module] is missing"]),
        (FACTORY, ["the table [inputs] is missing", "[inputs.NAME]"]),
        (FACTORY + "[inputs]\n", ["[inputs] is empty", "[inputs.NAME]"]),
        (FACTORY + TOKENS + "[wieghts]\n", ["[wieghts] is not a table", "did you mean weights?"]),
        ("module = 3\n" + TOKENS, ["module = 3", "a table, [module]"]),
        ("inputs = 3\n" + FACTORY, ["inputs = 3", "a table, [inputs]"]),
        (FACTORY + "[[inputs]]\nx = 3\n" * 1000, ["inputs = [{", "a table, [inputs]"]),
        # [module]
        ("[module]\n" + TOKENS, ["[module] lacks factory", '"file.py:callable"', '"package.module:callable"']),
        (FACTORY + 'state = "zero"\n' + TOKENS, ["[module] state", "did you mean states?", "factory, args"]),
        ("[module]\nfactory = 3\n" + TOKENS, ["[module] factory = 3", '"file.py:callable"']),
        ('[module]\nfactory = ""\n' + TOKENS, ["[module] factory = ''"]),
        ('[module]\nfactory = "net.py"\n' + TOKENS, ["[module] factory = 'net.py'"]),
        ('[module]\nfactory = "net.py:"\n' + TOKENS, ["[module] factory = 'net.py:'"]),
        ('[module]\nfactory = ":Net"\n' + TOKENS, ["[module] factory = ':Net'"]),
        ('[module]\nfactory = ".py:Net"\n' + TOKENS, ["[module] factory = '.py:Net'"]),
        ('[module]\nfactory = "net.pt:3"\n' + TOKENS, ["[module] factory = 'net.pt:3'"]),
        ('[module]\nfactory = "sub/net:Net"\n' + TOKENS, ["[module] factory = 'sub/net:Net'"]),
        ('[module]\nfactory = "net.py:Net()"\n' + TOKENS, ["[module] factory = 'net.py:Net()'"]),
        ('[module]\nfactory = "net.py:class"\n' + TOKENS, ["[module] factory = 'net.py:class'"]),
        ('[module]\nfactory = "a..b:Net"\n' + TOKENS, ["[module] factory = 'a..b:Net'"]),
        ('[module]\nfactory = "a\\u0000.py:Net"\n' + TOKENS, ["[module] factory = 'a\\x00.py:Net'"]),
        (FACTORY + "args = [3]\n" + TOKENS, ["module.args = [3]", "a table, [module.args]"]),
        (FACTORY + 'args = { "hidden-size" = 3 }\n' + TOKENS, ["[module.args] 'hidden-size'", "name of an argument"]),
        (FACTORY + 'states = "none"\n' + TOKENS, ["[module] states = 'none'", '"zero", "explicit"']),
        (FACTORY + "states = true\n" + TOKENS, ["[module] states = True", '"zero", "explicit"']),
        (FACTORY + "states = []\n" + TOKENS, ["[module] states = []", '"zero", "explicit"']),
        (FACTORY + 'outputs = "y"\n' + TOKENS, ["[module] outputs = 'y'", "a list of names"]),
        (FACTORY + "outputs = []\n" + TOKENS, ["[module] outputs = []", "a list of names"]),
        (FACTORY + 'outputs = ["y", 3]\n' + TOKENS, ["[module] outputs = ['y', 3]", "a list of names"]),
        (FACTORY + 'outputs = [["y"]]\n' + TOKENS, ["[module] outputs = [['y']]", "a list of names"]),
        (FACTORY + 'outputs = ["y y"]\n' + TOKENS, ["[module] outputs = ['y y']", "without spaces"]),
        (FACTORY + 'outputs = ["y", "y"]\n' + TOKENS, ["[module] outputs = ['y', 'y']", "each its own"]),
        (FACTORY + 'outputs = ["tokens"]\n' + TOKENS, ["[module] outputs = ['tokens']", "none an input's"]),
        # [inputs]
        (FACTORY + "[inputs]\ntokens = 3\n", ["inputs.tokens = 3", "a table, [inputs.tokens]"]),
        (FACTORY + "[inputs.tokens]\n", ["[inputs.tokens] lacks shape", '["batch", 4]']),
        (FACTORY + '[inputs.tokens]\ndtype = "int64"\n', ["[inputs.tokens] lacks shape"]),
        (FACTORY + "[inputs.tokens]\nshap = [3]\n", ["[inputs.tokens] shap", "mean shape?", "shape, dtype, range"]),
        (FACTORY + TOKENS + 'type = "int64"\n', ["[inputs.tokens] type", "did you mean dtype?"]),
        (FACTORY + TOKENS + "[inputs.tokens.a]\nshape = [3]\n", ["[inputs.tokens] a is not a key"]),
        (FACTORY + '["inputs"."to-kens"]\nshape = [3]\n', ["[inputs] 'to-kens'", "an argument of forward"]),
        (FACTORY + "[inputs.class]\nshape = [3]\n", ["[inputs] 'class'", "an argument of forward"]),
        (FACTORY + '[inputs.""]\nshape = [3]\n', ["[inputs] ''", "an argument of forward"]),
        (FACTORY + '[inputs.b."x.y"]\nshape = [3]\n', ["[inputs.b] 'x.y'", "without spaces and dots"]),
        (FACTORY + '[inputs.b."x y"]\nshape = [3]\n', ["[inputs.b] 'x y'", "without spaces and dots"]),
        (FACTORY + '[inputs.b.""]\nshape = [3]\n', ["[inputs.b] ''", "without spaces and dots"]),
        (FACTORY + "[inputs.b.x]\n", ["[inputs.b.x] lacks shape"]),
        (FACTORY + "[inputs]\nb = [{shape = [2]}, 3]\n", ["inputs.b = [", "a table, [inputs.b]"]),
        (FACTORY + "[inputs.b.x]\nshape = [0]\n", ["[inputs.b.x] shape = [0]"]),
        (FACTORY + "[inputs.b.x]\nshape = [1]\nrnge = [0, 1]\n", ["[inputs.b.x] rnge", "did you mean range?"]),
        (FACTORY + "[inputs.x]\nshape = 3\n", ["[inputs.x] shape = 3", "sizes of 1 or more and axis names"]),
        (FACTORY + '[inputs.x]\nshape = "batch"\n', ["[inputs.x] shape = 'batch'"]),
        (FACTORY + '[inputs.x]\nshape = ["a b"]\n', ["[inputs.x] shape = ['a b']"]),
        (FACTORY + "[inputs.x]\nshape = [2.0]\n", ["[inputs.x] shape = [2.0]"]),
        (FACTORY + "[inputs.x.shape]\nshape = [2]\n", ["[inputs.x] shape = {'shape': [2]}"]),
        (FACTORY + '[inputs.x]\nshape = [2]\ndtype = "long"\n', ["[inputs.x] dtype = 'long'", '"int64"']),
        (FACTORY + "[inputs.x]\nshape = [2]\ndtype = [64]\n", ["[inputs.x] dtype = [64]", '"int64"']),
        (FACTORY + "[inputs.x]\nshape = [2]\nrange = 64\n", ["[inputs.x] range = 64", "[low, high]"]),
        (FACTORY + "[inputs.x]\nshape = [2]\nrange = [64]\n", ["[inputs.x] range = [64]", "[low, high]"]),
        (FACTORY + "[inputs.x]\nshape = [2]\nrange = [0, 1, 2]\n", ["[inputs.x] range = [0, 1, 2]"]),
        (FACTORY + "[inputs.x]\nshape = [2]\nrange = [2, 1]\n", ["[inputs.x] range = [2, 1]", "low <= high"]),
        (FACTORY + "[inputs.x]\nshape = [2]\nrange = [0, nan]\n", ["[inputs.x] range = [0, nan]"]),
        (FACTORY + '[inputs.x]\nshape = ["n"]\nrange = [1, "n"]\n', ["[inputs.x] range = [1, 'n']", "two numbers"]),
        (FACTORY + TOKENS + "range = [0, 1.5]\n", ["[inputs.tokens] range = [0, 1.5]", "two integers"]),
        (FACTORY + TOKENS + "range = [[0], 1]\n", ["[inputs.tokens] range = [[0], 1]", "two integers"]),
        (
            FACTORY + TOKENS + 'range = [1, "tiem"]\n',
            ["[inputs.tokens] range = [1, 'tiem']", "not an axis", "did you mean time?", "batch, time"],
        ),
        (
            FACTORY + '[inputs.b.n]\nshape = [2]\ndtype = "int8"\nrange = [1, "time"]\n',
            ["[inputs.b.n] range = [1, 'time']", "there are none"],
        ),
        (FACTORY + TOKENS + "limits = 3\n", ["[inputs.tokens] limits = 3", "{ time = [7, 512] }"]),
        (FACTORY + TOKENS + "limits = { tiem = [1] }\n", ["[inputs.tokens] limits", "axis names in shape"]),
        (FACTORY + TOKENS + "limits = { time = 7 }\n", ["[inputs.tokens] limits = {'time': 7}", "[least, largest]"]),
        (FACTORY + TOKENS + "limits = { time = [0, 7] }\n", ["[inputs.tokens] limits", "sizes of 1 or more"]),
        (FACTORY + TOKENS + "limits = { time = [7, 5] }\n", ["[inputs.tokens] limits = {'time': [7, 5]}"]),
        (FACTORY + TOKENS + "limits = { time = [1, 2, 3] }\n", ["[inputs.tokens] limits = {'time': [1, 2, 3]}"]),
        (FACTORY + TOKENS + "limits = { time = [true, 3] }\n", ["[inputs.tokens] limits = {'time': [True, 3]}"]),
        (FACTORY + TOKENS + "limits = { time = [] }\n", ["[inputs.tokens] limits = {'time': []}"]),
        (
            FACTORY + TOKENS + 'limits = { time = [7] }\n[inputs.y]\nshape = ["time"]\nlimits = { time = [8] }\n',
            ["[inputs.y] limits of time differ from those of another input"],
        ),
        # [weights] and [export]
        (FACTORY + TOKENS + "[weights]\n", ["[weights]", "exactly one of seed and file"]),
        (FACTORY + TOKENS + "[weights]\nseed = -1\n", ["[weights] seed = -1"]),
        (
            FACTORY + TOKENS + '[weights]\nfile = "a.onnx"\n',
            ["[weights] file = 'a.onnx'", ".safetensors, .pt, .pth, .ckpt, .bin, "],
        ),
        (FACTORY + TOKENS + "[export]\nlengths = true\n", ["[export] lengths goes with [lstm]", "[inputs.lengths]"]),
        (FACTORY + TOKENS + "[export]\nlengths = false\n", ["[export] lengths goes with [lstm]"]),
        (FACTORY + TOKENS + '[export]\nstates = "explicit"\n', ["[export] states belongs in [module]"]),
        (FACTORY + TOKENS + "[export]\nopst = 18\n", ["[export] opst", "mean opset?", "allowed are projection, opset"]),
        (FACTORY + TOKENS + "[export]\nopset = 13\n", ["[export] opset = 13", "from 14 to 23"]),
        ("export = 18\n" + FACTORY + TOKENS, ["export = 18", "a table"]),
        (FACTORY + "[inputs" + ".a" * 5000 + "]\n", ["nested more than 50 deep"]),
        (FACTORY + TOKENS + "range = [0, 0x" + "f" * 5000 + "]\n", ["more than 64 bits"]),
    ],
)
def test_a_wrong_module_names_the_file_the_key_and_what_is_allowed(text: str, words: list[str], tmp_path: Path) -> None:
    _assert_refused(_write(tmp_path, text), words)
