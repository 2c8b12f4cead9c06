"""Int8 files in use: streams, pools, batchers and maps as of any file; sizes; verify and check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lstm_onnx
from tests.runtime.models import exported


@pytest.fixture
def int8(tmp_path: Path) -> Path:
    exported(tmp_path / "m.onnx", input_size=8, hidden_size=24, num_layers=2)
    lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    return tmp_path / "q.onnx"


def test_a_stream_has_the_bits_of_the_whole_for_any_chunking(int8: Path):
    x = np.random.default_rng(0).standard_normal((12, 3, 8)).astype(np.float32)
    with lstm_onnx.load(int8, provider="cpu") as model:
        whole, _ = model(x)
        for chunks in ([12], [1] * 12, [5, 1, 6]):
            stream = model.stream(batch=3)
            parts = np.split(x, np.cumsum(chunks)[:-1])
            assert np.array_equal(np.concatenate([stream(part) for part in parts]), whole)


def test_a_pool_and_a_map_have_the_bits_of_each_sequence_alone(int8: Path):
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((steps, 8)).astype(np.float32) for steps in (3, 9, 5, 1)]
    with lstm_onnx.load(int8, provider="cpu") as model:
        alone = [model(sequence[:, None])[0][:, 0] for sequence in sequences]
        for expected, actual in zip(alone, model.map({"input": sequence} for sequence in sequences), strict=True):
            assert np.array_equal(actual["output"], expected)
        pool = model.pool(slots=4)
        streams = [pool.open() for _ in sequences]
        step = pool.step(streams, np.stack([sequence[0] for sequence in sequences])[None])
        assert np.array_equal(step[0], [expected[0] for expected in alone])


def test_a_weight_that_onnx_does_not_read_is_named(tmp_path: Path):
    """ONNX Runtime does, and ignores that it is a segment."""
    exported(tmp_path / "m.onnx", input_size=8, hidden_size=24)
    model = onnx.load(tmp_path / "m.onnx")
    weight = next(item for item in model.graph.initializer if len(item.dims) == 3)
    weight.segment.end = 1
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(lstm_onnx.ModelError, match=f"the weight {weight.name} cannot be read: "):
        lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", trial=False)
    assert not (tmp_path / "q.onnx").exists()


def test_the_size_of_a_large_layer(tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=256, hidden_size=256)
    done = lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert done.num_bytes == (tmp_path / "q.onnx").stat().st_size
    assert done.source_bytes == (tmp_path / "m.onnx").stat().st_size
    assert done.num_bytes < 0.3 * done.source_bytes
    assert done.to_dict()["proof"]["compared"] == 1
    assert "29%" in str(done) or "26%" in str(done) or "27%" in str(done)


def test_a_module_with_linear_and_embedding_layers(tmp_path: Path):
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(60, 24)
            self.lstm = nn.LSTM(24, 32, batch_first=True, bidirectional=True)
            self.out = nn.Linear(64, 40)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.out(self.lstm(self.embed(words))[0])

    torch.manual_seed(0)
    module = Tagger().eval()
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=torch.randint(0, 60, (2, 5)))
    done = lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert len(done.quantized) == done.proof.compared == 3
    words = np.random.default_rng(0).integers(0, 60, (3, 9))
    with torch.no_grad():
        expected = module(torch.from_numpy(words)).numpy()
    actual = lstm_onnx.load(tmp_path / "q.onnx", provider="cpu").run({"words": words})["output"]
    error = np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2))
    assert 1e-4 < error < 0.03
    assert done.proof.differences["output"] == pytest.approx(error, rel=0.5)


def test_an_int8_file_of_other_weights_is_not_in_parity(int8: Path):
    assert not lstm_onnx.verify(nn.LSTM(8, 24, 2), int8, mutants="none")


def test_check_and_inspect_know_int8_layers(int8: Path):
    assert lstm_onnx.check(int8, provider="cpu")
    layers = lstm_onnx.inspect(int8).lstms
    assert [(one.kind, one.input_size, one.hidden_size, one.states) for one in layers] == [
        ("int8 LSTM", 8, 24, ("h0", "c0")),
        ("int8 LSTM", 24, 24, ("h0", "c0")),
    ]
    assert {one.dtype for one in layers} == {"int8"}
