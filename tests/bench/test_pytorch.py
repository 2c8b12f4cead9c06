"""The PyTorch side: it computes what PyTorch code computes, and its settings are restored."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import torch
from torch import nn

from lstm_onnx.bench.pytorch import TorchSide
from lstm_onnx.exporter.sources.source import LSTMSource, ModuleSource
from lstm_onnx.exporter.sources.torch_lstm import seeded_state
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.spec import ExportOptions, LSTMSpec

SPEC = LSTMSpec(input_size=4, hidden_size=3)


def side_of(spec: LSTMSpec = SPEC, threads: int = 1) -> TorchSide:
    return TorchSide(LSTMSource("net", spec, seeded_state(spec, 1), ExportOptions()), "cpu", threads)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_importing_bench_imports_no_torch():
    script = """
import sys, lstm_onnx.bench, lstm_onnx.bench.plot
print([name for name in ("torch", "matplotlib", "click") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_apply_inside_and_are_restored():
    side = side_of(threads=2)
    settings = side.settings()
    assert list(settings) == ["PyTorch", "PyTorch, mkldnn off", "PyTorch, mkldnn off, 1 thread"]
    assert list(side_of().settings()) == ["PyTorch", "PyTorch, mkldnn off"]
    before = (torch.get_num_threads(), torch.backends.mkldnn.enabled)
    seen = []
    for around in settings.values():
        with contextlib.suppress(ZeroDivisionError), around():
            seen.append((torch.get_num_threads(), torch.backends.mkldnn.enabled, torch.is_inference_mode_enabled()))
            raise ZeroDivisionError
    assert seen == [(2, True, True), (2, False, True), (1, False, True)]
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before


def test_states_are_carried_over():
    side, x = side_of(), drawn(2, 1, 4)
    run = side.carried(x)
    with torch.inference_mode():
        parts = [np.asarray(run()) for _ in range(3)]
        whole = np.asarray(side.whole(np.concatenate([x] * 3))())
    assert np.allclose(np.concatenate(parts), whole, atol=1e-6)
    rows = drawn(5, 1, 1, 4)
    each = side.carried_each(rows)
    with torch.inference_mode():
        each()
        second = each()
        for row, output in zip(rows, second, strict=True):
            alone = side.whole(np.concatenate([row, row]))()
            assert np.allclose(np.asarray(output)[0], np.asarray(alone)[1], atol=1e-6)


def test_packed_sequences_come_back_in_order():
    side = side_of(LSTMSpec(input_size=4, hidden_size=3, bidirectional=True))
    sequences = [drawn(length, 4) for length in (3, 7, 1, 5, 2)]
    candidate = side.packed_candidate(sequences, 2)
    assert candidate.name == "PyTorch, packed, batches of 2"
    with candidate.around():
        outputs = candidate.run()
        for sequence, output in zip(sequences, outputs, strict=True):
            alone = np.asarray(side.whole(sequence[:, None])())[:, 0]
            assert np.allclose(np.asarray(output), alone, atol=1e-6)
    assert candidate.output is not None
    assert candidate.output(outputs).shape == (18 * 6,)


def test_a_module_is_called_with_its_arguments_and_not_changed():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 3, batch_first=True)
            self.calls = 0

        def forward(self, x, lengths):
            self.calls += 1
            assert not self.training
            return self.lstm(x)[0], lengths

    module = Counting()
    specs = (InputSpec("x", ("batch", "time", 4)), InputSpec("lengths", ("batch",), "int64", 1, "time"))
    side = TorchSide(ModuleSource("net", module, specs), "cpu", 1)
    feeds = {"x": drawn(2, 6, 4), "lengths": np.array([6, 6])}
    output, lengths = side.called(specs, feeds)()
    assert output.shape == (2, 6, 3)
    assert lengths.tolist() == [6, 6]
    assert len(side.called_each(specs, [feeds, feeds])()) == 2
    assert (module.calls, module.training) == (0, True)
