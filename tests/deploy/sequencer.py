"""What Triton's sequence batcher does with implicit state, driven by a parsed config.pbtxt alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format

DTYPES = {
    "TYPE_FP32": (np.float32, "tensor(float)"),
    "TYPE_INT64": (np.int64, "tensor(int64)"),
    "TYPE_INT32": (np.int32, "tensor(int32)"),
    "TYPE_BOOL": (np.bool_, "tensor(bool)"),
}


class Sequencer:
    """One model of a repository.

    Attributes:
        config: the parsed configuration.
        sequences: the states of the open sequences.
    """

    def __init__(self, folder: Path, model_config: Any) -> None:
        self.config = text_format.Parse(
            (folder / "config.pbtxt").read_text(encoding="utf-8"), model_config.ModelConfig()
        )
        self.kinds = {value.number: name for name, value in model_config.DataType.DESCRIPTOR.values_by_name.items()}
        self.folder = folder
        self.session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        self.sequences: dict[Any, dict[str, np.ndarray]] = {}
        self._require_fitting()

    def _require_fitting(self) -> None:
        """Names, types and sizes are those of the file, which Triton checks when it loads a model."""
        config = self.config
        assert config.name == self.folder.name
        assert config.max_batch_size > 0
        inputs = {value.name: value for value in self.session.get_inputs()}
        outputs = {value.name: value for value in self.session.get_outputs()}
        states = config.sequence_batching.state
        assert {tensor.name for tensor in config.input} | {state.input_name for state in states} == set(inputs)
        assert {tensor.name for tensor in config.output} | {state.output_name for state in states} == set(outputs)
        for tensor in config.input:
            self._require_one(inputs[tensor.name], tensor.data_type, tensor)
        for tensor in config.output:
            self._require_one(outputs[tensor.name], tensor.data_type, tensor)
        for state in states:
            self._require_one(inputs[state.input_name], state.data_type, state)
            self._require_one(outputs[state.output_name], state.data_type, state)
            assert all(size > 0 for size in state.dims)
            (initial,) = state.initial_state
            assert (initial.data_type, list(initial.dims)) == (state.data_type, list(state.dims))

    def _require_one(self, value: Any, data_type: int, tensor: Any) -> None:
        assert DTYPES[self.kinds[data_type]][1] == value.type
        assert isinstance(value.shape[0], str), "the batch is first, and open"
        dims = list(tensor.dims)
        if hasattr(tensor, "reshape") and tensor.HasField("reshape"):
            dims = list(tensor.reshape.shape)
        assert len(value.shape) == len(dims) + 1
        for size, dim in zip(value.shape[1:], dims, strict=True):
            assert (dim == -1) if not isinstance(size, int) else dim == size

    def initial(self) -> dict[str, np.ndarray]:
        """The states of a new sequence."""
        found = {}
        for state in self.config.sequence_batching.state:
            (start,) = state.initial_state
            dtype = DTYPES[self.kinds[start.data_type]][0]
            array = np.zeros([1, *start.dims], dtype)
            if start.WhichOneof("state_data") == "data_file":
                data = (self.folder / "initial_state" / start.data_file).read_bytes()
                assert len(data) == math.prod(start.dims) * array.itemsize
                array = np.frombuffer(data, dtype).reshape(array.shape)
            found[state.input_name] = array
        return found

    def step(self, requests: list[tuple[Any, bool, bool, dict[str, np.ndarray]]]) -> list[dict[str, np.ndarray]]:
        """One batch: of each request the id, whether it starts, whether it ends, and its inputs."""
        states = self.config.sequence_batching.state
        assert len({key for key, *_ in requests}) == len(requests) <= self.config.max_batch_size
        for key, start, _, _ in requests:
            if start:
                self.sequences[key] = self.initial()
        feeds = {
            tensor.name: np.concatenate([inputs[tensor.name] for *_, inputs in requests])
            for tensor in self.config.input
        }
        for state in states:
            name = state.input_name
            feeds[name] = np.concatenate([self.sequences[key][name] for key, *_ in requests])
        names = [value.name for value in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(names, feeds), strict=True))
        answers = []
        for row, (key, _, end, _) in enumerate(requests):
            for state in states:
                self.sequences[key][state.input_name] = results[state.output_name][row : row + 1]
            if end:
                del self.sequences[key]
            answers.append({tensor.name: results[tensor.name][row : row + 1] for tensor in self.config.output})
        return answers
