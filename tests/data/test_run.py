"""Records of data files through a model, and random input."""

from __future__ import annotations

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lstm_onnx import InputError, data, load
from lstm_onnx.data.random_input import default_sizes, random_record
from lstm_onnx.data.run import run_records
from tests.runtime.models import exported


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "m.onnx"
    exported(path)
    return load(path, "cpu", threads=1)


@pytest.fixture(scope="module")
def module_model(tmp_path_factory):
    """As of a module: without the metadata by which a file is known as a bare LSTM."""
    path = tmp_path_factory.mktemp("run") / "module.onnx"
    exported(path, batch_first=True)
    proto = onnx.load(path)
    kept = [entry for entry in proto.metadata_props if entry.key != "lstm_onnx.spec"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    onnx.save(proto, path)
    return load(path, "cpu", threads=1)


def jsonl(tmp_path, text):
    (tmp_path / "x.jsonl").write_text(text)
    return data.read(tmp_path / "x.jsonl")


def test_sequences_and_batches_are_as_if_run_alone(model, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5, 2, 4), (4, 4))]
    records = jsonl(tmp_path, "".join(f'{{"input": {array.tolist()}}}\n' for array in arrays))
    for array, outputs in zip(arrays, run_records(model, records), strict=True):
        output, (hn, cn) = model(array)
        for name, expected in (("output", output), ("hn", hn), ("cn", cn)):
            np.testing.assert_allclose(outputs[name], expected, atol=2e-6)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_chunks_equal_the_whole(model, tmp_path, chunk):
    text = '{"input": [[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]]}\n'
    (whole,) = run_records(model, jsonl(tmp_path, text))
    (chunked,) = run_records(model, jsonl(tmp_path, text), chunk=chunk)
    for name, expected in whole.items():
        np.testing.assert_allclose(chunked[name], expected, atol=1e-6)


@pytest.mark.parametrize("chunk", [None, 1])
def test_an_error_has_the_line_though_lines_are_empty(model, tmp_path, chunk):
    records = jsonl(tmp_path, "\n[[1, 2, 3, 4]]\n\n[[1, 2, 3, 4]]\n[[1, 2, 3]]\n")
    with records, pytest.raises(InputError, match=r"^line 5: input"):
        list(run_records(model, records, chunk=chunk))


def test_an_error_has_the_row_of_a_parquet_file(model, tmp_path):
    data.write(tmp_path / "x.parquet", [{"input": np.ones((2, 4))}, {"input": np.ones((2, 3))}], many=True)
    with data.read(tmp_path / "x.parquet") as records, pytest.raises(InputError, match=r"^row 2: input"):
        list(run_records(model, records))


def test_an_error_of_a_single_record_has_no_place(model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    with pytest.raises(InputError, match=r"^input"):
        list(run_records(model, data.read(tmp_path / "x.npy")))


@pytest.mark.filterwarnings("ignore:.* has a NaN:RuntimeWarning")
def test_notes_come_once(model, tmp_path):
    notes: list[str] = []
    records = jsonl(tmp_path, '{"input": [[1, 2, 3, NaN]]}\n' * 3)
    assert len(list(run_records(model, records, on_note=notes.append))) == 3
    assert len(notes) == 1
    assert notes[0].startswith("input contains NaN")


def test_random_input_follows_the_seed_and_the_sizes(model):
    sizes = default_sizes(model)
    assert sizes == {"time": 10, "batch": 1}
    (record,) = random_record(model, {**sizes, "batch": 3}, seed=1).rows
    (again,) = random_record(model, {**sizes, "batch": 3}, seed=1).rows
    (other,) = random_record(model, {**sizes, "batch": 3}, seed=2).rows
    assert list(record) == ["input"]
    assert record["input"].shape == (10, 3, 4)
    assert np.array_equal(record["input"], again["input"])
    assert not np.array_equal(record["input"], other["input"])


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("suffix", ["csv", "npy", "jsonl", "parquet"])
def test_one_sequence_of_a_module_needs_no_batch_axis(module_model, tmp_path, suffix, chunk):
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    path = tmp_path / f"x.{suffix}"
    data.write(path, [{"input": x}], many=suffix in ("jsonl", "parquet"))
    with data.read(path, name="input") as records:
        (outputs,) = run_records(module_model, records, chunk=chunk)
    expected = module_model.run({"input": x[np.newaxis]})
    assert set(outputs) == set(expected)
    for name, whole in expected.items():
        axis = module_model.outputs[name].shape.index("batch")
        np.testing.assert_allclose(outputs[name], whole.squeeze(axis), atol=1e-6)


def test_a_note_names_outputs_of_the_last_chunk_in_other_tools_files(tmp_path):
    """There each chunk may have its own, as a voice-activity model's probability."""
    path = tmp_path / "other.onnx"
    exported(path)
    proto = onnx.load(path)
    del proto.metadata_props[:]
    proto.graph.node.append(onnx.helper.make_node("Identity", ["hn"], ["last"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("last", onnx.TensorProto.FLOAT, (1, "batch", 5)))
    onnx.save(proto, path)
    model = load(path, "cpu", threads=1, states={"h0": "hn", "c0": "cn"})
    notes: list[str] = []
    x = np.ones((5, 1, 4), np.float32)
    np.savez(tmp_path / "x.npz", input=x)
    (outputs,) = run_records(model, data.read(tmp_path / "x.npz"), chunk=2, on_note=notes.append)
    assert notes == ["last has no time axis, so its value is that of the last chunk"]
    np.testing.assert_allclose(outputs["last"], model.run({"input": x})["last"], atol=1e-6)


@pytest.mark.parametrize("batch", ["batch", "batch_size"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_table_of_one_column_is_a_sequence_of_numbers_and_no_batch(tmp_path, suffix, batch):
    """y: the sum so far of x, (batch, time)."""
    helper, kind = onnx.helper, onnx.TensorProto
    x, y = (helper.make_tensor_value_info(name, kind.FLOAT, (batch, "time")) for name in "xy")
    axis = onnx.numpy_helper.from_array(np.array(1), "axis")
    graph = helper.make_graph([helper.make_node("CumSum", ["x", "axis"], ["y"])], "g", [x], [y], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    path = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        path.write_text("x\n1\n2\n3\n")
    elif suffix == "jsonl":
        path.write_text("[1, 2, 3]\n")
    else:
        pq.write_table(pa.table({"value": [1.0, 2.0, 3.0]}), path)
    with data.read(path, name="x") as records:
        (outputs,) = run_records(load(tmp_path / "m.onnx", "cpu", threads=1), records)
    assert outputs["y"].tolist() == [1, 3, 6]
