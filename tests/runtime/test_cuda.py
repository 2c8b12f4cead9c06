"""On a GPU: parity with the CPU, where every node runs, and what TF32 costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.errors import ProviderError
from lstm_onnx.runtime import load
from lstm_onnx.runtime.providers import (
    CUDA,
    off_cuda,
    open_session,
    placements,
)
from lstm_onnx.spec import ExportOptions

from .models import exported, randoms

ON_CUDA = {
    "plain": ({}, ExportOptions()),
    "plain_lengths": ({}, ExportOptions(lengths=True)),
    "bidirectional_stack_lengths": (
        {"bidirectional": True, "num_layers": 2, "batch_first": True},
        ExportOptions(lengths=True),
    ),
    "fold": ({"proj_size": 16}, ExportOptions(projection="fold")),
    "fold_lengths": ({"proj_size": 16, "bidirectional": True}, ExportOptions(projection="fold", lengths=True)),
    "scan": ({"proj_size": 16}, ExportOptions()),
    "scan_lengths": ({"proj_size": 16, "bidirectional": True}, ExportOptions(lengths=True)),
}


WIDE = {"input_size": 24, "hidden_size": 64}


EXACT, TF32 = 2e-5, 2e-2
"""Largest errors in outputs of at most 1: float32 throughout, and with matrix products of 10-bit mantissas."""


def run_both(path: Path, batch: int = 5, time: int = 17) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same file, inputs and states on CUDA and on the CPU."""
    cuda, cpu = load(path, "cuda"), load(path, "cpu")
    spec = cpu.spec
    assert spec is not None
    feeds = {
        "input": randoms(*spec.sequence_shape(batch, time, spec.input_size)),
        "h0": 0.5 * randoms(*spec.h_shape(batch), seed=2),
        "c0": 0.5 * randoms(*spec.c_shape(batch), seed=3),
    }
    if "lengths" in cpu.inputs:
        feeds["lengths"] = np.array([3, time, 1, 9, time - 1][:batch], np.int32)
    return cuda.run(feeds), cpu.run(feeds)


@pytest.mark.cuda
@pytest.mark.parametrize("case", ON_CUDA)
def test_cuda_is_in_parity_with_the_cpu(tmp_path: Path, case: str):
    sizes, options = ON_CUDA[case]
    exported(tmp_path / "m.onnx", options=options, **{**WIDE, **sizes})
    found, expected = run_both(tmp_path / "m.onnx")
    for name, array in expected.items():
        assert np.abs(array).max() > 0.05, name
        np.testing.assert_allclose(found[name], array, rtol=0, atol=TF32, err_msg=name)
    if options.lengths:
        # Tails are zeros, exactly, for each sequence by its own length (onnxruntime 1400).
        batch_first = bool(sizes.get("batch_first"))
        output = found["output"] if batch_first else found["output"].swapaxes(0, 1)
        for sequence, length in zip(output, (3, 17, 1, 9, 16), strict=True):
            assert not sequence[length:].any()
            assert np.abs(sequence[:length]).max(axis=-1).min() > 0


@pytest.mark.cuda
@pytest.mark.parametrize("case", ON_CUDA)
def test_every_node_that_computes_is_on_cuda(tmp_path: Path, case: str):
    sizes, options = ON_CUDA[case]
    exported(tmp_path / "m.onnx", options=options, **{**WIDE, **sizes})
    placed = placements(load(tmp_path / "m.onnx", "cuda").session)
    assert off_cuda(placed) == []
    assert {item.provider for item in placed if item.op_type in {"LSTM", "Scan"}} == {CUDA}


TF32_SCRIPT = """
import json, sys
import numpy as np
from pathlib import Path
from tests.runtime.test_cuda import run_both
found, expected = run_both(Path(sys.argv[1]))
print(json.dumps({name: float(np.abs(found[name] - array).max()) for name, array in expected.items()}))
"""


@pytest.mark.cuda
@pytest.mark.parametrize(("override", "tolerance"), [("0", EXACT), (None, TF32)], ids=["off", "default"])
def test_tf32_is_what_costs_precision(tmp_path: Path, override: str | None, tolerance: float):
    exported(tmp_path / "m.onnx", num_layers=2, **WIDE)
    environment = {name: value for name, value in os.environ.items() if name != "NVIDIA_TF32_OVERRIDE"}
    if override is not None:
        environment["NVIDIA_TF32_OVERRIDE"] = override
    done = subprocess.run(
        [sys.executable, "-c", TF32_SCRIPT, str(tmp_path / "m.onnx")],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    worst = json.loads(done.stdout.splitlines()[-1])
    assert set(worst) == {"output", "hn", "cn"}
    assert max(worst.values()) <= tolerance, worst


@pytest.mark.cuda
def test_opset_22_is_on_cuda_whole_or_refused(tmp_path: Path):
    # Whether CUDA has LSTM-22 depends on ONNX Runtime's version; a quiet CPU it is in none.
    path = tmp_path / "m.onnx"
    exported(path, options=ExportOptions(opset=22), **WIDE)
    session, used = open_session(path, "auto")
    assert used == "cuda"
    if off_cuda(placements(session)):
        with pytest.raises(ProviderError, match=r"no kernel for \d+ of the model's nodes \(.*LSTM.*opset 21"):
            load(path, "cuda")
    else:
        found, expected = run_both(path)
        np.testing.assert_allclose(found["output"], expected["output"], rtol=0, atol=TF32)


@pytest.mark.cuda
def test_a_stream_on_cuda(tmp_path: Path):
    exported(tmp_path / "m.onnx", num_layers=2, **WIDE)
    model = load(tmp_path / "m.onnx")
    assert model.provider == "cuda"
    x = randoms(12, 2, 24)
    stream = model.stream(2)
    parts = np.concatenate([stream(chunk) for chunk in np.split(x, [1, 5])])
    np.testing.assert_allclose(parts, model(x)[0], rtol=0, atol=TF32)


@pytest.mark.cuda
def test_float64_runs_on_cuda(tmp_path: Path):
    exported(tmp_path / "m.onnx", dtype="float64", **WIDE)
    exported(tmp_path / "narrow.onnx", **WIDE)
    x = randoms(9, 2, 24)
    wide = load(tmp_path / "m.onnx", "cuda")(x.astype(np.float64))[0]
    assert wide.dtype == np.float64
    np.testing.assert_allclose(load(tmp_path / "narrow.onnx", "cpu")(x)[0], wide, rtol=0, atol=EXACT)
