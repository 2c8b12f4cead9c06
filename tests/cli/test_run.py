import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lstm_onnx

from .conftest import MODELS

TUTORIAL = """
-0.4372 0.2583 0.2947
-0.2836 0.1314 0.4133
-0.3404 0.4880 0.1949
-0.3544 0.2405 0.3150
-0.3328 0.0437 0.3817
"""


def tutorial_arrays():
    """The tutorial's own draws: the model, five inputs, then h0 and c0, from one seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        torch.nn.LSTM(4, 3)
        inputs = [torch.randn(1, 4) for _ in range(5)]
        states = torch.randn(1, 1, 3), torch.randn(1, 1, 3)
    return [x.numpy() for x in inputs], [state.numpy() for state in states]


def test_tutorial_numbers_through_the_command_line(run_cli, tmp_path):
    inputs, (h0, c0) = tutorial_arrays()
    with (tmp_path / "steps.jsonl").open("w") as file:
        for x in inputs:
            file.write(json.dumps({"input": x[np.newaxis].tolist(), "h0": h0.tolist(), "c0": c0.tolist()}) + "\n")
    assert run_cli("export", MODELS / "tutorial.toml", "-o", "t.onnx").code == 0
    done = run_cli("run", "t.onnx", "steps.jsonl", "-o", "-")
    assert done.code == 0
    outputs = np.array([json.loads(line)["output"] for line in done.out.splitlines()]).reshape(5, 3)
    expected = np.array(TUTORIAL.split(), float).reshape(5, 3)
    np.testing.assert_array_equal(outputs.round(4), expected)


def test_tutorial_numbers_through_the_exported_file(run_cli, tmp_path):
    inputs, states = tutorial_arrays()
    run_cli("export", MODELS / "tutorial.toml", "-o", "t.onnx")
    model = lstm_onnx.load(tmp_path / "t.onnx", provider="cpu")
    outputs = np.concatenate([model(x[np.newaxis], tuple(states))[0].reshape(1, 3) for x in inputs])
    expected = np.array(TUTORIAL.split(), float).reshape(5, 3)
    np.testing.assert_array_equal(outputs.astype(float).round(4), expected)


@pytest.fixture
def model(run_cli, toml):
    assert run_cli("export", toml(), "-o", "m.onnx").code == 0
    return "m.onnx"


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "jsonl", "parquet"])
def test_formats_round_trip_and_agree_with_the_runtime(run_cli, model, tmp_path, suffix):
    from lstm_onnx import data

    rng = np.random.default_rng(1)
    x, h0, c0 = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 1, 4), (1, 1, 3), (1, 1, 3)))
    record = {"input": x, "h0": h0, "c0": c0}
    if suffix == "parquet":
        record = {"input": x[:, 0], "h0": h0[:, 0], "c0": c0[:, 0]}
    many = suffix in ("jsonl", "parquet")
    data.write(tmp_path / f"in.{suffix}", [record], many=many)
    done = run_cli("run", model, f"in.{suffix}", "-o", f"out.{suffix}")
    assert done.code == 0, done.err
    written = next(data.read(tmp_path / f"out.{suffix}").rows)
    output, (hn, cn) = lstm_onnx.load(tmp_path / model)(x, (h0, c0))
    for name, expected in (("output", output), ("hn", hn), ("cn", cn)):
        np.testing.assert_array_equal(written[name].astype(np.float32).reshape(expected.shape), expected)


def test_csv_and_npy_are_the_first_input(run_cli, model, tmp_path):
    x = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="a,b,c,d", comments="", fmt="%.9g")
    np.save(tmp_path / "x.npy", x)
    assert run_cli("run", model, "x.csv", "-o", "a.csv").code == 0
    assert run_cli("run", model, "x.npy", "-o", "b.npy").code == 0
    expected, _ = lstm_onnx.load(tmp_path / model)(x)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), expected)
    table = np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table.astype(np.float32), expected)
    swapped = run_cli("run", model, "x.csv", "--columns", "d,c,b,a", "--json")
    expected, _ = lstm_onnx.load(tmp_path / model)(np.ascontiguousarray(x[:, ::-1]))
    np.testing.assert_array_equal(np.array(json.loads(swapped.out)["output"], np.float32), expected)


@pytest.mark.parametrize("options", [["--stream"], ["--chunk", "4"], ["--chunk", "100"]])
def test_stream_equals_the_whole(run_cli, model, tmp_path, options):
    rng = np.random.default_rng(1)
    np.savez(
        tmp_path / "in.npz",
        input=rng.standard_normal((9, 2, 4)).astype(np.float32),
        c0=rng.standard_normal((1, 2, 3)).astype(np.float32),
    )
    assert run_cli("run", model, "in.npz", "-o", "whole.npz").code == 0
    assert run_cli("run", model, "in.npz", "-o", "parts.npz", *options).code == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "parts.npz") as parts:
        assert sorted(whole) == sorted(parts) == ["cn", "hn", "output"]
        for name in whole:
            np.testing.assert_allclose(parts[name], whole[name], atol=1e-6)


def test_stdin_to_stdout(run_cli, model, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"1,2,3,4\n5,6,7,8\n")

    monkeypatch.setattr(sys, "stdin", Stdin)
    done = run_cli("run", model, "-", "-o", "-", "--format", "csv")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "output_0,output_1,output_2"
    assert len(done.out.splitlines()) == 3


def test_random_input_is_seeded_and_of_the_sizes_asked_for(run_cli, model):
    first = run_cli("run", model, "--size", "batch=2", "--size", "time=5", "--json")
    again = run_cli("run", model, "--size", "batch=2", "--size", "time=5", "--json")
    other = run_cli("run", model, "--size", "batch=2", "--size", "time=5", "--json", "--seed", "7")
    assert first.out == again.out != other.out
    assert np.shape(json.loads(first.out)["output"]) == (5, 2, 3)


def test_wider_numbers_are_said_to_be_cast(run_cli, model, tmp_path):
    np.savez(tmp_path / "in.npz", input=np.ones((2, 1, 4)))
    done = run_cli("run", model, "in.npz")
    assert done.code == 0
    assert "float64" in done.err
    assert "float32" in done.err


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"input": np.zeros((0, 1, 4), np.float32)}, "time"),
        ({"input": np.zeros((2, 0, 4), np.float32)}, "batch"),
        ({"input": np.zeros((2, 1, 5), np.float32)}, "4"),
        ({"input": np.zeros((2, 1, 4), np.float32), "h0": np.zeros((1, 2, 3), np.float32)}, "h0"),
        ({"input": np.zeros((2, 1, 4), np.float32), "x": np.zeros(1)}, "x is not an input"),
        ({"input": np.zeros((2, 1, 4), np.float32), "lengths": np.array([2])}, "lengths"),
        ({"h0": np.zeros((1, 1, 3), np.float32)}, "missing input"),
    ],
)
def test_what_does_not_fit_is_named(run_cli, model, tmp_path, arrays, said):
    np.savez(tmp_path / "in.npz", **arrays)
    for options in ([], ["--stream"]):
        done = run_cli("run", model, "in.npz", "-o", "out.npz", *options)
        assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
        assert said in done.err
    assert not (tmp_path / "out.npz").exists()


def test_the_name_of_a_column_may_have_a_comma(run_cli, model, tmp_path):
    (tmp_path / "x.csv").write_text('"days, last",a,b,c,d\n1,2,3,4,5\n6,7,8,9,10\n')
    pq.write_table(pa.table({"days, last": [1.0, 6.0], "a": [2.0, 7.0], "b": [3.0, 8.0], "c": [4.0, 9.0]}), "x.parquet")
    expected, _ = lstm_onnx.load(tmp_path / model)(np.array([[1, 2, 3, 4], [6, 7, 8, 9]], np.float32))
    for name in ("x.csv", "x.parquet"):
        done = run_cli("run", model, name, "--columns", '"days, last", a,b,c', "--json")
        np.testing.assert_array_equal(np.array(json.loads(done.out)["output"], np.float32), expected)
        done = run_cli("run", model, name, "--columns", "days, last,a,b")
        assert done.code == 2
        assert "there is no column 'days'; it has \"days, last\", a, b, c" in done.err


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a,,b", "an empty name"), ("", "an empty name"), ('a,"b', "not a list"), ("a,b,a", "a was given twice")],
)
def test_what_is_no_list_of_columns_is_refused(run_cli, model, tmp_path, text, reason):
    (tmp_path / "x.csv").write_text("a,b,c,d\n1,2,3,4\n")
    done = run_cli("run", model, "x.csv", "--columns", text)
    assert done.code == 2
    assert reason in done.err


def test_a_parquet_file_with_a_column_that_is_no_input_says_how_to_choose(run_cli, model, tmp_path):
    pq.write_table(pa.table({"id": [7], "input": [[[1.0, 2.0, 3.0, 4.0]]]}), tmp_path / "x.parquet")
    done = run_cli("run", model, "x.parquet")
    assert "row 1: id is not an input of the model; " in done.err
    assert "select the columns that are inputs with --columns" in done.err
    assert run_cli("run", model, "x.parquet", "--columns", "input").code == 0


def test_table_with_other_columns_says_how_to_choose(run_cli, model, tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    done = run_cli("run", model, "x.csv")
    assert done.code == 2
    assert "--columns" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "batch=0"],
        ["--size", "batch=nan"],
        ["--size", "width=3"],
        ["--size", "batch"],
        ["--size", "batch=2", "--size", "time=3", "--size", "batch=4"],
        ["x.npy", "--size", "batch=1"],
    ],
)
def test_sizes_that_are_none(run_cli, model, arguments):
    done = run_cli("run", model, *arguments)
    assert done.code == 2
    assert "--size" in done.err


def test_a_seed_beside_data_is_refused(run_cli, model):
    done = run_cli("run", model, "x.npy", "--seed", "0")
    assert (done.code, "--seed is for random input, but DATA was given" in done.err) == (2, True)


def test_steps_of_one_and_of_several_exclude_each_other(run_cli, model):
    done = run_cli("run", model, "--stream", "--chunk", "4")
    assert done.code == 2
    assert "--stream and --chunk" in done.err


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"input": np.full((2, 1, 4), 1e300)}, "too large for the model's float32"),
        ({"input": np.zeros((2, 2, 4), np.float32), "lengths": np.array([2**32 + 1, 2])}, "cannot represent"),
        ({"input": np.zeros((2, 2, 4), np.float32), "lengths": np.array([1.5, 2.0])}, "cannot represent"),
        ({"input": np.zeros((2, 2, 4), np.float32), "lengths": np.array([np.nan, 2.0])}, "cannot represent"),
    ],
)
def test_numbers_that_the_model_cannot_hold(run_cli, toml, tmp_path, arrays, said):
    assert run_cli("export", toml(), "--lengths", "-o", "m.onnx").code == 0
    np.savez(tmp_path / "in.npz", **arrays)
    done = run_cli("run", "m.onnx", "in.npz", "-o", "out.npz")
    assert done.code == 2
    assert said in done.err.splitlines()[-1]
    assert "Warning" not in done.err
    assert not (tmp_path / "out.npz").exists()


def test_nan_is_run_and_said_once(run_cli, model, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"input": [[1, 2, 3, NaN]]}\n' * 3)
    done = run_cli("run", model, "x.jsonl", "-o", "y.jsonl")
    assert done.code == 0
    assert done.err.count("note: input contains NaN") == 1


def test_one_state_alone_beside_one_sequence(run_cli, model, tmp_path):
    rng = np.random.default_rng(1)
    x, h0 = rng.standard_normal((5, 4)).astype(np.float32), rng.standard_normal((1, 3)).astype(np.float32)
    np.savez(tmp_path / "in.npz", input=x, h0=h0)
    for options in ([], ["--chunk", "2"]):
        assert run_cli("run", model, "in.npz", "-o", "out.npz", *options).code == 0
        expected, _ = lstm_onnx.load(tmp_path / model)(x, (h0, np.zeros((1, 3), np.float32)))
        with np.load(tmp_path / "out.npz") as out:
            np.testing.assert_allclose(out["output"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "arguments", [["--columns", "a"], ["x.npy", "--format", "csv"], ["x.npy", "--json", "-o", "y.npz"]]
)
def test_options_that_would_do_nothing_are_refused(run_cli, model, tmp_path, arguments):
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    assert run_cli("run", model, *arguments).code == 2
    assert not (tmp_path / "y.npz").exists()


def test_a_file_that_says_its_input_is_a_state_is_refused(run_cli, model, tmp_path):
    from tests.module_files import with_metadata

    states = {"input": "output", "h0": "hn", "c0": "cn"}
    with_metadata(tmp_path / "s.onnx", tmp_path / model, states=states)
    done = run_cli("run", "s.onnx", "--provider", "cpu")
    assert done.code == 2
    assert "is a bare LSTM with h0 <- hn, c0 <- cn: output does not feed input" in done.err


@pytest.mark.parametrize(
    ("dims", "code", "said"),
    [
        (["2*batch", 3], 0, ""),
        ([2**62, 3], 2, "no NumPy array fits the input 'x': it has 2 axes"),
        (["batch - 7", 3], 2, "random input cannot be made for x float32 (batch - 7, 3): "),
        (["batch*nothing", 3], 0, ""),
    ],
)
def test_random_input_of_axes_that_follow_from_others_or_cannot_be(run_cli, tmp_path, dims, code, said):
    import onnx
    from onnx import TensorProto, helper

    values = {"x": dims, "z": ["batch", 2]}
    opsets = [helper.make_opsetid("", 18)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in values],
        "axes",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()],
        [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, shape) for name, shape in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    done = run_cli("run", "m.onnx", "--provider", "cpu")
    assert done.code == code, done.err
    assert said in done.err
