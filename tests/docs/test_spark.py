"""The page's function for Spark, on pyspark's local mode.  pyspark is large, and needs Java."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lstm_onnx.runtime import load
from lstm_onnx.spec import ExportOptions

from ..runtime.models import exported
from .blocks import ROOT, blocks_of


def embed_of_the_page() -> object:
    page = (ROOT / "lstm_onnx" / "docs" / "many-machines.md").read_text(encoding="utf-8")
    (block,) = [block for block in blocks_of(page) if block.language == "python"]
    namespace: dict[str, object] = {}
    exec(block.text, namespace)  # noqa: S102 - our own page
    return namespace["embed"]


def expected_and_rows(folder: Path) -> tuple[dict[int, np.ndarray], pa.Table]:
    exported(folder / "encoder.onnx", options=ExportOptions(lengths=True))
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((length, 4)).astype(np.float32) for length in rng.integers(1, 9, 50)]
    with load(folder / "encoder.onnx", "cpu", 1) as model:
        expected = {number: hn[-1] for number, (_, (hn, _)) in enumerate(model.map(rows))}
    column = pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32())))
    return expected, pa.table({"id": pa.array(range(50)), "input": column})


def test_the_function_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected, table = expected_and_rows(tmp_path)
    found = pa.Table.from_batches(embed_of_the_page()(table.to_batches(20)))  # type: ignore[operator]
    assert found["id"].to_pylist() == list(expected)
    np.testing.assert_allclose(found["embedding"].to_pylist(), list(expected.values()), atol=1e-6)


@pytest.mark.filterwarnings("default")
def test_with_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    monkeypatch.chdir(tmp_path)
    expected, table = expected_and_rows(tmp_path)
    (tmp_path / "calls").mkdir()
    for part in range(3):
        pq.write_table(table.slice(17 * part, 17), tmp_path / "calls" / f"{part}.parquet")
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.memory", "512m").getOrCreate()
    try:
        rows = session.read.parquet("calls")
        embedded = rows.mapInArrow(embed_of_the_page(), "id long, embedding array<float>")
        embedded.write.parquet("embeddings")
    finally:
        session.stop()
    found = {row["id"]: row["embedding"] for row in pq.read_table(tmp_path / "embeddings").to_pylist()}
    assert found.keys() == expected.keys()
    for number, embedding in found.items():
        np.testing.assert_allclose(embedding, expected[number], atol=1e-6)
