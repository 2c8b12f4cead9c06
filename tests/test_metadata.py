"""`Metadata`, written to an ONNX file's entries and read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from lstm_onnx import ConfigError, ExportOptions, Generation, LSTMSpec
from lstm_onnx.generation_spec import GeneratingStep
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata

from .strategies import export_options, specs


@given(specs(), export_options())
def test_metadata_comes_back_from_its_entries(spec: LSTMSpec, options: ExportOptions) -> None:
    metadata = Metadata(spec, options, {"h0": "hn"}, {"onnx": "1"}, "ab")
    entries = metadata.to_metadata()
    assert sorted(entries) == [f"lstm_onnx.{key}" for key in ("export", "spec", "states", "versions", "weights")]
    assert all(json.loads(value) is not None for value in entries.values())
    assert Metadata.from_metadata({**entries, "other": "not json"}) == metadata


def test_limits_and_boundaries_come_back_from_the_metadata() -> None:
    metadata = Metadata(axis_limits={"time": (7, None), "batch": (1, 64)}, size_boundaries={"time": (200,)})
    assert Metadata.from_metadata(metadata.to_metadata()) == metadata


def test_a_file_without_entries_has_empty_metadata() -> None:
    assert Metadata.from_metadata({"author": "somebody"}) == Metadata()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec", "{"),
        ("spec", "[]"),
        ("spec", '{"input_size": 4}'),
        ("spec", '{"input_size": 4, "hidden_size": 0}'),
        ("spec", '{"input_size": 4, "hidden_size": 3, "colour": 1}'),
        ("export", '{"opset": 99}'),
        ("states", "[1]"),
        ("states", '{"h0": 1}'),
        ("spec", "[" * 100_000),
        ("axis_limits", '{"time": [0, null]}'),
        ("axis_limits", '{"time": [3, 2]}'),
        ("axis_limits", '{"time": 3}'),
        ("axis_limits", "[1]"),
        ("size_boundaries", '{"time": 3}'),
        ("size_boundaries", '{"time": [true]}'),
        ("streaming", '{"time": {"x": 1}, "steps": "none"}'),
        ("streaming", '{"time": {"x": 1}, "outputs": {}, "caches": ["none"]}'),
        ("streaming", '{"time": {"x": 1}, "outputs": {}, "multiple": 8, "chunk": 3}'),
    ],
)
def test_damaged_metadata_is_an_error(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        Metadata.from_metadata({f"lstm_onnx.{key}": value})


STEP = GeneratingStep(
    Generation("tokens", "y", "sample", top_k=3, stop_token=(1, 4), stop_above=0.25, pad=2),
    0,
    1,
    1,
    ("y", "hn"),
    (InputSpec("tokens", ("batch", "time"), "int64", 0, 8),),
)


def test_generation_comes_back_from_the_metadata() -> None:
    metadata = Metadata(inputs=STEP.inputs, generation=STEP)
    assert Metadata.from_metadata(metadata.to_metadata()) == metadata


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_axis": "a"},
        {"batch_axis": 1},
        {"time_axis": 2},
        {"time_axis": -1},
        {"outputs": "y"},
        {"inputs": [1]},
        {"generation": {"input": "other", "output": "y"}},
        {"generation": {"input": "tokens", "output": "y", "top_k": 0}},
        {"generation": 1},
    ],
)
def test_damaged_generation_is_an_error(changes: dict[str, object]) -> None:
    entries = Metadata(inputs=STEP.inputs, generation=STEP).to_metadata()
    entries["lstm_onnx.generation"] = json.dumps({**STEP.to_dict(), **changes})
    with pytest.raises(ConfigError):
        Metadata.from_metadata(entries)
