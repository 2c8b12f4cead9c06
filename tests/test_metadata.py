"""An exported file's own story, to metadata and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from lstm_onnx import ConfigError, ExportOptions, LSTMSpec
from lstm_onnx.metadata import Story

from .strategies import export_options, specs


@given(specs(), export_options())
def test_the_story_comes_back_from_its_metadata(spec: LSTMSpec, options: ExportOptions) -> None:
    story = Story(spec, options, {"h0": "hn"}, {"onnx": "1"}, "ab")
    metadata = story.to_metadata()
    assert sorted(metadata) == [f"lstm_onnx.{key}" for key in ("export", "spec", "states", "versions", "weights")]
    assert all(json.loads(value) is not None for value in metadata.values())
    assert Story.from_metadata({**metadata, "other": "not json"}) == story


def test_limits_and_boundaries_come_back_from_the_metadata() -> None:
    story = Story(axis_limits={"time": (7, None), "batch": (1, 64)}, size_boundaries={"time": (200,)})
    assert Story.from_metadata(story.to_metadata()) == story


def test_a_file_without_a_story_has_an_empty_one() -> None:
    assert Story.from_metadata({"author": "somebody"}) == Story()


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
    ],
)
def test_damaged_metadata_is_an_error(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        Story.from_metadata({f"lstm_onnx.{key}": value})
