"""Exported modules that several tests look at: each is made once in a process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

import lstm_onnx
from lstm_onnx.metadata import Metadata


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # goes with the process


@cache
def module_file(name: str, states: str = "zero") -> Path:
    """The architecture of that name from tests.architectures, as a file that nobody may change."""
    import torch

    from tests.architectures import ALL

    architecture = next(item for item in ALL if item.name == name)
    module, inputs = architecture.example()
    path = Path(_folder().name) / f"{name}-{states}.onnx"
    with torch.random.fork_rng(devices=[]):
        lstm_onnx.export(
            module,
            path,
            example_inputs=inputs,
            dynamic_shapes=architecture.dynamic_shapes,
            states=states,
        )
    return path


def edited_module(path: Path, source: Path, edit: Callable[[ModelProto], object]) -> Path:
    """A copy of `source` at `path`, after `edit`."""
    model = onnx.load_model(source)
    edit(model)
    onnx.save_model(model, path)
    return path


def with_metadata(path: Path, source: Path, **changes: Any) -> Path:
    """A copy of `source` at `path` whose metadata has these fields."""

    def edit(model: ModelProto) -> None:
        metadata = Metadata.from_metadata({entry.key: entry.value for entry in model.metadata_props})
        del model.metadata_props[:]
        helper.set_model_props(model, replace(metadata, **changes).to_metadata())

    return edited_module(path, source, edit)


def with_initial(path: Path, source: Path, initial: Mapping[str, np.ndarray]) -> Path:
    """A copy of `source` at `path` whose states start from `initial`."""
    return with_metadata(path, source, initial=initial)
