"""Data sets through ``lstm-onnx run``: many sequences at a time, in their order, with errors that name the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx

from .conftest import Done

Run = Callable[..., Done]


@pytest.fixture
def sequences() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((int(rng.integers(1, 30)), 4)).astype(np.float32) for _ in range(150)]


@pytest.fixture
def model(run_cli: Run, toml: Callable[..., Path], tmp_path: Path) -> lstm_onnx.Model:
    done = run_cli("export", toml(bidirectional=True, num_layers=2, export="lengths = true"), "-o", "m.onnx")
    assert done.code == 0
    return lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1)


def _write(path: Path, sequences: list[np.ndarray]) -> None:
    path.write_text("".join(json.dumps({"input": x.tolist()}) + "\n" for x in sequences))


def test_every_record_is_as_if_alone(
    run_cli: Run, model: lstm_onnx.Model, sequences: list[np.ndarray], tmp_path: Path
) -> None:
    _write(tmp_path / "d.jsonl", sequences)
    assert run_cli("run", "m.onnx", "d.jsonl", "-o", "y.jsonl", "--provider", "cpu").code == 0
    records = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert len(records) == len(sequences)
    for x, record in zip(sequences, records, strict=True):
        output, (hn, cn) = model(x)
        for name, expected in (("output", output), ("hn", hn), ("cn", cn)):
            np.testing.assert_allclose(np.array(record[name]), expected, atol=2e-6)


def test_a_parquet_file_of_sequences(
    run_cli: Run, model: lstm_onnx.Model, sequences: list[np.ndarray], tmp_path: Path
) -> None:
    _write(tmp_path / "d.jsonl", sequences)
    done = run_cli("run", "m.onnx", "d.jsonl", "-o", "y.parquet")
    assert done.code == 0
    assert f"wrote y.parquet: {len(sequences)} records, the last output ({len(sequences[-1])}, " in done.err
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "y.parquet")
    assert table.num_rows == len(sequences)
    first = np.array(table.column("output")[0].as_py())
    np.testing.assert_allclose(first, model(sequences[0])[0], atol=2e-6)


def test_batches_and_sequences_may_alternate(run_cli: Run, model: lstm_onnx.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5, 2, 4), (4, 4), (2, 4))]
    _write(tmp_path / "d.jsonl", arrays)
    assert run_cli("run", "m.onnx", "d.jsonl", "-o", "y.jsonl").code == 0
    outputs = [np.array(json.loads(line)["output"]) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    for x, output in zip(arrays, outputs, strict=True):
        np.testing.assert_allclose(output, model(x)[0], atol=2e-6)


@pytest.mark.parametrize("before", [[], [np.zeros((5, 2, 4), np.float32)]])
def test_a_record_that_does_not_fit_is_named(
    run_cli: Run, model: lstm_onnx.Model, sequences: list[np.ndarray], before: list[np.ndarray], tmp_path: Path
) -> None:
    wrong = [*before, *sequences[:70], np.zeros((3, 5), np.float32), *sequences[70:]]
    _write(tmp_path / "d.jsonl", wrong)
    done = run_cli("run", "m.onnx", "d.jsonl", "-o", "y.jsonl")
    assert done.code == 2
    assert f"line {71 + len(before)}: input" in done.err
    assert "sequence" not in done.err
    assert not (tmp_path / "y.jsonl").exists()


def test_a_large_batch_is_run_in_parts(run_cli: Run, model: lstm_onnx.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 100, 4)).astype(np.float32)
    lengths = rng.integers(1, 13, 100)
    np.savez(tmp_path / "d.npz", input=x, lengths=lengths)
    assert run_cli("run", "m.onnx", "d.npz", "-o", "y.npz").code == 0
    output, (hn, cn) = model(x, lengths=lengths)
    with np.load(tmp_path / "y.npz") as found:
        for name, expected in (("output", output), ("hn", hn), ("cn", cn)):
            assert found[name].shape == expected.shape
            np.testing.assert_allclose(found[name], expected, atol=2e-6)
    np.savez(tmp_path / "wrong.npz", input=x, lengths=np.full(100, 13))
    done = run_cli("run", "m.onnx", "wrong.npz", "-o", "z.npz")
    assert done.code == 2
    assert "lengths[0] is 13" in done.err
