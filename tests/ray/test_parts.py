"""The parts of a data set: their rows and order, what is kept of an earlier run, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lstm_onnx.errors import FileError, InputError, RunError
from lstm_onnx.ray import parts, worker
from lstm_onnx.ray.dataset import run_parts
from lstm_onnx.ray.parts import Job, Part, complete, finished_parts, plan, prepare
from lstm_onnx.ray.worker import Task, Worker

from ..runtime.models import exported
from .conftest import DataSet, assert_rows_are, write_rows


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PART_ROWS", 10)


class Here:
    """Parts in this process, the last submitted first; `lose` says whether a part's worker is lost, before or after
    it wrote the part."""

    most = 3

    def __init__(self, job: Job, lose: Callable[[Part], str] = lambda _: "") -> None:
        self.worker = Worker(Task.of(job, "cpu", 1))
        self.waiting: deque[Part] = deque()
        self.lose = lose
        self.ran: list[int] = []

    def submit(self, part: Part) -> None:
        assert len(self.waiting) < self.most
        self.waiting.append(part)

    def next(self) -> tuple[Part, worker.Outcome | worker.LostWorkerError]:
        part = self.waiting.pop()
        lost = self.lose(part)
        if lost != "before":
            self.ran.append(part.number)
            outcome = self.worker.run(part)
        return part, worker.LostWorkerError("the worker died") if lost else outcome


def run(job: Job, left: list[Part], lose: Callable[[Part], str] = lambda _: "") -> Here:
    here = Here(job, lose)
    done: list[Part] = []
    run_parts(left, here, done.append, lambda _: None)
    assert sorted(done, key=lambda part: part.number) == left
    return here


def test_rows_in_order_whatever_the_order_of_the_parts(data_set: DataSet, tmp_path: Path) -> None:
    job, finished = prepare(plan(data_set.model, data_set.folder, tmp_path / "out"))
    assert not finished
    assert [(part.file, part.start, part.rows) for part in job.parts[3:7]] == [
        ("a.parquet", 30, 10), ("a.parquet", 40, 1), ("b.parquet", 0, 10), ("b.parquet", 10, 9)
    ]  # fmt: skip
    run(job, list(job.parts))
    complete(job)
    assert_rows_are(tmp_path / "out", data_set.outputs)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["_SUCCESS", "_manifest.json", *[f"part-{number:06d}.parquet" for number in range(12)]]


def test_a_single_file(data_set: DataSet, tmp_path: Path) -> None:
    job, _ = prepare(plan(data_set.model, data_set.folder / "b.parquet", tmp_path / "out"))
    run(job, list(job.parts))
    complete(job)
    assert_rows_are(tmp_path / "out", data_set.outputs[41:60])


def test_lost_workers_lose_and_duplicate_nothing(data_set: DataSet, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lost = dict.fromkeys(range(12), 0)

    def lose(part: Part) -> str:
        kind = str(rng.choice(["", "before", "after"]))
        if lost[part.number] == 3:
            return ""  # the fourth time it lives
        lost[part.number] += bool(kind)
        return kind

    job, _ = prepare(plan(data_set.model, data_set.folder, tmp_path / "out"))
    run(job, list(job.parts), lose)
    complete(job)
    assert sum(lost.values()) > 5
    assert_rows_are(tmp_path / "out", data_set.outputs)


def test_a_part_that_always_ends_its_worker_is_an_error(data_set: DataSet, tmp_path: Path) -> None:
    job, _ = prepare(plan(data_set.model, data_set.folder, tmp_path / "out"))
    with pytest.raises(RunError, match=r"rows 11 to 19 of b\.parquet: .* lost 4 times, .* the worker died"):
        run(job, list(job.parts), lambda part: "before" if part.number == 6 else "")


def test_what_is_finished_is_kept(data_set: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job, _ = prepare(plan(data_set.model, data_set.folder, out))
    run(job, list(job.parts[:8]))
    (out / "part-000002.parquet").write_bytes((out / "part-000002.parquet").read_bytes()[:-10])  # damaged
    shutil.copy(out / "part-000000.parquet", out / "part-000003.parquet")  # as many rows, of another part
    (out / ".unfinished-part-000009.parquet-0000.tmp").write_bytes(b"PAR1")
    with pytest.raises(FileError, match=r"6 parts were written but are missing, such as part-000002"):
        complete(job)
    assert not (out / "_SUCCESS").exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}

    again, finished = prepare(plan(data_set.model, data_set.folder, out))
    assert finished == {0, 1, 4, 5, 6, 7}
    here = run(again, [part for part in again.parts if part.number not in finished])
    assert sorted(here.ran) == [2, 3, 8, 9, 10, 11]
    complete(again)
    assert_rows_are(out, data_set.outputs)
    assert all((out / f"part-{n:06d}.parquet").stat().st_mtime_ns == before[f"part-{n:06d}.parquet"] for n in finished)
    assert not list(out.glob(".unfinished*"))


def test_an_earlier_run_decides_how_rows_are_divided(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = prepare(plan(data_set.model, data_set.folder, tmp_path / "out"))
    run(job, list(job.parts[:5]))
    monkeypatch.setattr(parts, "_PART_ROWS", 33)
    again, finished = prepare(plan(data_set.model, data_set.folder, tmp_path / "out"))
    assert (again.parts, finished) == (job.parts, {0, 1, 2, 3, 4})


def test_a_run_with_anything_else_is_refused(data_set: DataSet, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data_set.folder, data)
    prepare(plan(data_set.model, data, out))

    exported(tmp_path / "other.onnx", seed=1, batch_first=True)
    cases = [
        (lambda: plan(tmp_path / "other.onnx", data, out), "another model"),
        (lambda: plan(data_set.model, data, out, columns=["input"]), "other columns"),
        (lambda: plan(data_set.model, data, out, chunk=2), "another number of steps"),
        (lambda: plan(data_set.model, data, out, states=(("h0", "hn"),)), "other states"),
        (lambda: plan(data_set.model, data_set.folder, out), "other data"),  # copies, of another time
    ]
    for make, message in cases[:4]:
        with pytest.raises(InputError, match=f"an earlier run with {message}"):
            prepare(make())
    os.utime(data / "b.parquet", (1, 1))
    with pytest.raises(InputError, match="with other data, or data whose files were changed"):
        prepare(plan(data_set.model, data, out))


def test_a_changed_number_keeps_size_and_time_and_is_seen(tmp_path: Path, data_set: DataSet) -> None:
    data = tmp_path / "d.parquet"
    digests = []
    for value in (1.0, 2.0):
        write_rows(data, [np.full((3, 4), value, np.float32)] * 5, compression="none", use_dictionary=False)
        os.utime(data, (7, 7))
        digests.append((data.stat().st_size, plan(data_set.model, data, tmp_path / "out").data_digest))
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]


def test_external_weights_are_part_of_the_digest(tmp_path: Path, data_set: DataSet) -> None:
    import onnx

    from lstm_onnx.runtime.file_digest import file_digest

    model = onnx.load(data_set.model)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    before = file_digest(tmp_path / "m.onnx")
    content = bytearray((tmp_path / "w.bin").read_bytes())
    content[3] ^= 1
    (tmp_path / "w.bin").write_bytes(content)
    assert file_digest(tmp_path / "m.onnx") != before


def test_folders_that_are_refused(data_set: DataSet, tmp_path: Path) -> None:
    def attempt(data: Path, out: Path) -> None:
        prepare(plan(data_set.model, data, out))

    data = tmp_path / "data"
    data.mkdir()
    for make, message in (
        (lambda: attempt(tmp_path / "none", tmp_path / "out"), "there is no such file or folder"),
        (lambda: attempt(data, tmp_path / "out"), "has no Parquet files"),
        (lambda: attempt(data_set.folder, data_set.folder / "out"), "is the folder of the data, or is in it"),
        (lambda: attempt(data_set.folder, data_set.model.parent), "is not empty, but not of an earlier run"),
        (lambda: attempt(data_set.folder, data_set.model), "is a file"),
        (lambda: attempt(Path("nothing://x"), tmp_path / "out"), "no such file"),
    ):
        with pytest.raises(FileError, match=message):
            make()
    with pytest.raises(FileError, match="cannot be opened"):
        plan(data_set.model, "nothing://x", tmp_path / "out")
    (data / "notes.txt").write_text("x")
    with pytest.raises(FileError, match=r"notes\.txt: is in a folder of \.parquet files"):
        attempt(data, tmp_path / "out")
    (data / "notes.txt").unlink()
    pq.write_table(pa.table({"input": [1.0, 2.0]}), data / "table.parquet")
    with pytest.raises(FileError, match="has no column of lists, so it is a table"):
        attempt(data, tmp_path / "out")
    write_rows(data / "table.parquet", [])
    with pytest.raises(FileError, match="has no rows"):
        attempt(data, tmp_path / "out")
    write_rows(data / "table.parquet", [np.zeros((2, 4), np.float32)])
    pq.write_table(pa.table({"x": [[1.0]]}), data / "z.parquet")
    with pytest.raises(FileError, match=r"z\.parquet: has the columns .* must be alike"):
        attempt(data, tmp_path / "out")
    (data / "z.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileError, match=r"z\.parquet: is truncated, damaged"):
        attempt(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bad_row_is_named_with_its_file(data_set: DataSet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [np.zeros((2, 4), np.float32)] * 25
    rows[17] = np.zeros((2, 3), np.float32)
    write_rows(data / "x.parquet", rows)
    job, _ = prepare(plan(data_set.model, data, tmp_path / "out"))
    with pytest.raises(InputError, match=r"x\.parquet: row 18: .*4"):
        run(job, list(job.parts))
    assert finished_parts(job) <= {0, 2}
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_damaged_manifest(data_set: DataSet, tmp_path: Path) -> None:
    job, _ = prepare(plan(data_set.model, data_set.folder, tmp_path / "out"))
    manifest = tmp_path / "out" / "_manifest.json"
    found = json.loads(manifest.read_text())
    for content in (b"{", b"[]", json.dumps({**found, "parts": found["parts"][1:]}).encode()):
        manifest.write_bytes(content)
        with pytest.raises(FileError, match="is damaged"):
            prepare(job)
    manifest.write_text(json.dumps({**found, "format": 2}))
    with pytest.raises(FileError, match="has the format 2"):
        prepare(job)


def test_a_worker_that_sees_other_files(data_set: DataSet, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    shutil.copy(data_set.model, model)
    job, _ = prepare(plan(model, data_set.folder, tmp_path / "out"))
    found = Worker(Task.of(job, "cpu", 1))
    with pytest.raises(FileError, match="is a different folder on the worker"):
        found.check("0" * 64)
    data = tmp_path / "x.parquet"
    write_rows(data, [np.zeros((2, 4), np.float32)] * 5)
    job, _ = prepare(plan(model, data, tmp_path / "out2"))
    write_rows(data, [np.ones((2, 4), np.float32)] * 5)
    with pytest.raises(FileError, match=r"x\.parquet: was changed, or is a different file on "):
        run(job, list(job.parts))
    exported(model, seed=1)
    with pytest.raises(FileError, match="differs on the worker"):
        Worker(Task.of(job, "cpu", 1)).check("")


def test_ranges_of_rows_in_any_order(data_set: DataSet) -> None:
    """Of a file with row groups of 7 rows: on from the last range, with gaps, and back."""
    from lstm_onnx.data.parquet_rows import RowReader

    file = data_set.folder / "a.parquet"
    expected = [np.array(row, np.float32) for row in pq.read_table(file)["input"].to_pylist()]
    rng = np.random.default_rng(0)
    with file.open("rb") as stream:
        reader = RowReader(stream, "a", None)
        assert reader.rows == 41
        for _ in range(60):
            start = int(rng.integers(0, 41))
            stop = int(rng.integers(start + 1, 42))
            found = list(reader.read(start, stop))
            assert [record.place for record in found] == [f"row {row + 1}" for row in range(start, stop)]
            for record, array in zip(found, expected[start:stop], strict=True):
                np.testing.assert_array_equal(record["input"], array)
