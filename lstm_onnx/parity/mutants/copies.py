"""Changed copies of a file that is open."""

from __future__ import annotations

import os

import onnx

from ...runtime import Model
from ...runtime.providers import open_session


def read_graph(model: Model) -> onnx.ModelProto:
    """The file of `model` again, without its external data."""
    return onnx.load(os.path.realpath(model.path), load_external_data=False)


def folder_of(model: Model) -> str:
    """Where the file's external data lies."""
    return os.path.dirname(os.path.realpath(model.path))  # noqa: PTH120


def opened(model: Model, copy: onnx.ModelProto) -> Model:
    """`copy`, opened where `model` is, with its pairs of states.

    It has one thread: a pool of more opens its model's file again, and of a copy there is none.

    Raises:
        LSTMOnnxError: it cannot be.
    """
    states = None if model.states == model.metadata.states else model.states
    session, provider = open_session(copy.SerializeToString(), model.provider, 1, folder=folder_of(model))
    return Model(model.path, session, provider, states, 1)
