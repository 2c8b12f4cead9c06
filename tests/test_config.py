from __future__ import annotations

from pathlib import Path

import pytest

from lstm_onnx import ConfigError, ExportOptions, FileError, LSTMSpec
from lstm_onnx.config import load_config

LSTM = "[lstm]\ninput_size = 4\nhidden_size = 3\n"
SEED = "[weights]\nseed = 2\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "net.toml"
    path.write_text(text)
    return path


def test_a_whole_config(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "[lstm]\ninput_size = 4\nhidden_size = 3\nnum_layers = 2\nbias = false\nbatch_first = true\ndropout = 0.25\n"
        'bidirectional = true\nproj_size = 2\ndtype = "float64"\n'
        '[weights]\nfile = "sub/net.safetensors"\nprefix = "encoder.lstm."\n'
        '[export]\nlengths = true\nprojection = "fold"\nopset = 20\n',
    )
    config = load_config(path)
    assert config.path == path
    assert config.spec == LSTMSpec(4, 3, 2, False, True, 0.25, True, 2, "float64")
    assert config.options == ExportOptions(True, "fold", 20)
    assert config.weights.seed is None
    assert config.weights.file == tmp_path / "sub" / "net.safetensors"
    assert config.weights.prefix == "encoder.lstm."


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path, LSTM + SEED))
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
        (LSTM + SEED + "[exports]\n", ["[exports] is not a table", "did you mean export?", "lstm, weights, export"]),
        (LSTM + SEED + "[zzz]\n", ["[zzz] is not a table", "allowed are lstm, weights, export"]),
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
        (LSTM + '[weights]\nfile = "a.onnx"\n', ["[weights] file = 'a.onnx'", ".safetensors, .pt or .pth"]),
        (LSTM + "[weights]\nfile = 3\n", ["[weights] file = 3", ".safetensors, .pt or .pth"]),
        (LSTM + '[weights]\nfile = "a\\u0000.pt"\n', ["[weights] file", "a path"]),
        (LSTM + '[weights]\nfile = "a.pt"\nprefix = 3\n', ["[weights] prefix = 3", "a string"]),
        # What is missing.
        (SEED, ["the table [lstm] is missing"]),
        (LSTM, ["the table [weights] is missing"]),
        ("[lstm]\nhidden_size = 3\n" + SEED, ["[lstm] lacks input_size", "an integer of 1 or more"]),
        ("[lstm]\n" + SEED, ["[lstm] lacks input_size"]),
        # Not this version's, or no TOML.
        (LSTM + SEED + '[module]\nfactory = "a:b"\n', ["[module]", "[lstm] and [weights]"]),
        ("[lstm\n", ["not valid TOML"]),
        (LSTM + LSTM, ["not valid TOML"]),
        ("a = " + "[" * 100_000, ["not valid TOML"]),
    ],
)
def test_a_wrong_config_names_the_file_the_key_and_what_is_allowed(text: str, words: list[str], tmp_path: Path) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert [word for word in words if word not in message] == []
    assert len(message) < 1000


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_bytes(b"\xff\xfe[lstm]")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    for path, words in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory"), (empty, "is empty")):
        with pytest.raises(FileError, match=words):
            load_config(path)
