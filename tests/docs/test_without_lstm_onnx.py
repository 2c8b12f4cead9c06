"""The page for programs without lstm-onnx: its metadata keys."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from lstm_onnx import ExportOptions, LSTMSpec
from lstm_onnx.checksum import KEY
from lstm_onnx.generation_spec import GeneratingStep, Generation
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata, Origin, Quantization, Streaming

from .blocks import ROOT

PAGE = (ROOT / "lstm_onnx/docs/without-lstm-onnx.md").read_text(encoding="utf-8")


def test_every_metadata_key_is_described():
    full = Metadata(
        spec=LSTMSpec(4, 3),
        options=ExportOptions(),
        digest="",
        inputs=(InputSpec("x", ("batch",)),),
        initial={"h0": np.zeros(1)},
        origins={"h0": Origin("lstm", 0, 0, 0)},
        not_streamable="",
        time_axes=("time",),
        batch_mixes="",
        axis_limits={"time": (1, None)},
        size_boundaries={"time": (2,)},
        table_rows={"x": 3},
        call=[],
        quantization=Quantization("rows", "all"),
        states={"h0": "hn"},
        versions={"lstm_onnx": "0.1.0"},
        loop_states=("h0",),
        streaming=Streaming({"x": 0}, {}),
        generation=GeneratingStep(Generation("x", "y"), 0, 1, 1, ("y",)),
    )
    assert [field.name for field in dataclasses.fields(full) if getattr(full, field.name) in (None, (), {})] == []
    described = re.findall(r"^\| `(lstm_onnx\.\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(described) == sorted([*full.to_metadata(), KEY])
