"""A data set in three files, and the rows that one machine gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lstm_onnx.runtime import load
from lstm_onnx.spec import ExportOptions

from ..runtime.models import exported


@dataclass(frozen=True)
class DataSet:
    """Attributes: the model's file, the folder of the data, and the outputs of `Model.map`, row for row."""

    model: Path
    folder: Path
    outputs: list[dict[str, np.ndarray]]


def write_rows(path: Path, rows: list[np.ndarray], **options: object) -> None:
    column = pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"input": column}), path, **options)


def rows_in(folder: Path) -> list[dict[str, np.ndarray]]:
    """What a reader of a folder of outputs gets, in order."""
    table = pq.read_table(folder)
    return [{name: np.array(value, np.float32) for name, value in row.items()} for row in table.to_pylist()]


def assert_rows_are(folder: Path, expected: list[dict[str, np.ndarray]]) -> None:
    found = rows_in(folder)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_allclose(array, other[name], rtol=0, atol=1e-6)


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = tmp_path_factory.mktemp("data_set")
    exported(root / "m.onnx", options=ExportOptions(lengths=True), batch_first=True)
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((length, 4)).astype(np.float32) for length in rng.integers(1, 12, 103)]
    folder = root / "data"
    (folder / "day=2").mkdir(parents=True)
    write_rows(folder / "a.parquet", rows[:41], row_group_size=7)
    write_rows(folder / "b.parquet", rows[41:60])
    write_rows(folder / "day=2" / "a.parquet", rows[60:], row_group_size=20)
    (folder / "_SUCCESS").touch()
    with load(root / "m.onnx", "cpu", 1) as model:
        outputs = [dict(zip(("output", "hn", "cn"), (y, *states), strict=True)) for y, states in model.map(rows)]
    return DataSet(root / "m.onnx", folder, outputs)
