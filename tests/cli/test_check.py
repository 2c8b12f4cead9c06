"""``lstm-onnx check``: options, what it prints, and the code it leaves with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lstm_onnx.check.rules import all_rules
from tests.check.models import fake_cuda


@pytest.fixture
def right(run_cli: Callable, toml: Callable) -> str:
    """A file of ours."""
    assert run_cli("export", toml(), "-o", "m.onnx").code == 0
    return "m.onnx"


def edited(path: str, name: str, edit: Callable[[onnx.ModelProto], object]) -> str:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, name)
    return name


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2


def clip(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("clip", 0.5))


def test_a_right_file_passes(run_cli, right):
    done = run_cli("check", right, "--provider", "cpu", "--strict", "--require")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "m.onnx: passed on cpu"
    assert "l0/LSTM (LSTM) -> CPUExecutionProvider" in done.out
    (told,) = json.loads(run_cli("check", right, "--provider", "cpu", "--json").out)["files"]
    assert told["passed"] is True
    assert {item["op_type"] for item in told["placements"]} >= {"LSTM"}
    assert {*told["silent"], *(item["rule"] for item in told["findings"])} < {rule.name for rule in all_rules()}


def test_a_wrong_one_fails_and_says_what_to_do(run_cli, right):
    done = run_cli("check", edited(right, "bad.onnx", fix_batch), "--provider", "cpu")
    assert (done.code, done.err) == (1, "")
    assert "FAIL  LO201 dynamic-axes" in done.out
    assert "fix: a size was baked in; export again with dynamic batch and time" in done.out
    assert "why: lstm-onnx check --explain LO201" in done.out
    said = "bad.onnx: FAILED (LO201 dynamic-axes, LO301 states-paired, LO502 runnable) on cpu"
    assert done.out.splitlines()[-1] == said
    ignored = run_cli("check", "bad.onnx", "--provider", "cpu", "--ignore", "LO201", "--ignore", "LO301")
    assert ignored.code == 1
    assert "ignored: dynamic-axes, states-paired" in ignored.out
    assert ignored.out.splitlines()[-1] == "bad.onnx: FAILED (LO502 runnable) on cpu"


def test_warnings_fail_where_it_is_strict(run_cli, right):
    path = edited(right, "clip.onnx", clip)
    lenient = run_cli("check", path, "--provider", "cpu")
    assert lenient.code == 0
    assert lenient.out.splitlines()[-1] == "clip.onnx: passed on cpu, 1 warning"
    assert "warn  LO404 clip" in lenient.out
    strict = run_cli("check", path, "--provider", "cpu", "--strict")
    assert strict.code == 1
    assert "FAIL  LO404 clip" in strict.out
    assert run_cli("check", path, "--provider", "cpu", "--strict", "--ignore", "clip", "--ignore", "LO999").code == 2
    assert run_cli("check", path, "--provider", "cpu", "--strict", "--ignore", "clip").code == 0


def test_cuda_is_proven_node_by_node(run_cli, right, monkeypatch):
    fake_cuda(monkeypatch, "LSTM")
    done = run_cli("check", right, "--provider", "cuda", "--require")
    assert done.code == 1
    assert "FAIL  LO501 provider" in done.out
    assert "l0/LSTM (LSTM) -> CPUExecutionProvider" in done.out
    assert "l0/output (Squeeze) -> CUDAExecutionProvider" in done.out
    (told,) = json.loads(run_cli("check", right, "--provider", "cuda", "--require", "--json").out)["files"]
    assert {item["node"]: item["provider"] for item in told["placements"]} == {
        "l0/LSTM": "CPUExecutionProvider",
        "l0/output": "CUDAExecutionProvider",
    }
    fake_cuda(monkeypatch)
    assert run_cli("check", right, "--provider", "cuda", "--require").code == 0


# --- Several files ---


def test_every_file_is_checked_and_the_worst_counts(run_cli, right, tmp_path):
    edited(right, "bad.onnx", fix_batch)
    (tmp_path / "torn.onnx").write_bytes((tmp_path / right).read_bytes()[:100])
    assert run_cli("check", right, right, "--provider", "cpu").code == 0
    done = run_cli("check", "bad.onnx", right, "--provider", "cpu")
    assert done.code == 1
    assert "bad.onnx: FAILED" in done.out
    assert "m.onnx: passed" in done.out
    done = run_cli("check", "torn.onnx", "none.onnx", right, "bad.onnx", "--provider", "cpu", "--json")
    assert done.code == 2
    messages = [json.loads(line)["error"]["message"] for line in done.err.splitlines()]
    assert [message.partition(":")[0] for message in messages] == ["torn.onnx", "none.onnx"]
    result = json.loads(done.out)
    assert result["passed"] is False
    read, unread = result["files"][:2], result["files"][2:]
    assert [(item["file"], item["passed"]) for item in read] == [(right, True), ("bad.onnx", False)]
    assert [(item["file"], item["passed"]) for item in unread] == [("torn.onnx", False), ("none.onnx", False)]
    assert [item["error"] for item in unread] == messages
    (alone,) = json.loads(run_cli("check", "none.onnx", "--json").out)["files"]
    assert (alone["file"], alone["passed"]) == ("none.onnx", False)
    assert "No such file" in alone["error"]
    done = run_cli("check", "none.onnx", "torn.onnx")
    assert done.out == ""
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["none.onnx", "torn.onnx"]


# --- Rules ---


@pytest.mark.parametrize("name", ["LO104", "lo104", "unknown-operator"])
def test_a_rule_is_explained(run_cli, name):
    done = run_cli("check", "--explain", name)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("LO104 unknown-operator (error)\n")
    assert "\nFix: " in done.out
    told = json.loads(run_cli("check", "--explain", name, "--json").out)
    assert set(told) == {"schema", "id", "name", "severity", "summary", "why", "fix", "target", "source"}
    assert told["target"] == told["source"] == ""


def test_a_rule_on_another_engine_says_for_which_and_its_source(run_cli):
    done = run_cli("check", "--explain", "LO601")
    assert done.out.startswith("LO601 openvino-lengths (error, --target openvino)\n")
    assert "\nSource: run with OpenVINO" in done.out


def test_an_unknown_rule_is_an_error_that_names_the_closest(run_cli):
    done = run_cli("check", "--explain", "LO37")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "did you mean LO307 lengths-ignored? `lstm-onnx check --rules` lists all" in done.err


def test_all_rules_are_listed(run_cli):
    done = run_cli("check", "--rules")
    assert done.code == 0
    assert [line.split()[:2] for line in done.out.splitlines()] == [[rule.id, rule.name] for rule in all_rules()]
    told = json.loads(run_cli("check", "--rules", "--json").out)
    assert [item["id"] for item in told["rules"]] == [rule.id for rule in all_rules()]


@pytest.mark.parametrize(
    "arguments", [(), ("m.onnx", "--rules"), ("m.onnx", "--explain", "LO101"), ("--rules", "--explain", "LO101")]
)
def test_one_thing_at_a_time(run_cli, arguments):
    done = run_cli("check", *arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "pass a FILE, --explain RULE or --rules" in done.err


# --- Files that are damaged ---


def test_a_file_is_refused_failed_or_fine_and_never_a_traceback(run_cli, right, tmp_path):
    content = (tmp_path / right).read_bytes()
    metadata = content.index(b"lstm_onnx.")
    files = []
    for cut in (*range(1, metadata, 60), *range(metadata, len(content), 20)):
        files.append(f"cut_{cut}.onnx")
        (tmp_path / files[-1]).write_bytes(content[:cut])
    done = run_cli("check", *files, "--provider", "cpu", "--json")
    told = json.loads(done.out)["files"]
    assert [each["file"] for each in told] == files
    # What is cut off just behind an entry of the metadata is a sound model that lost the rest of them.
    assert {("error" in each, each["passed"]) for each in told} <= {(True, False), (False, False)}
    refused = [each for each in told if "error" in each]
    assert len(done.err.splitlines()) == len(refused)
    assert all(len(each["error"].splitlines()) == 1 for each in refused)
    assert len(refused) > 30
    assert done.code == 2
    for file in (files[0], files[len(files) // 2], files[-1]):
        done = run_cli("check", file, "--provider", "cpu")
        assert done.code in (1, 2)
        assert len(done.err.splitlines()) == (done.code == 2), done.err


@pytest.mark.parametrize("arguments", [("--json",), ()])
def test_a_bomb_is_a_failed_check(run_cli, arguments, tmp_path: Path):
    stored = numpy_helper.from_array(np.array([2**33]), "n")
    node = onnx.helper.make_node("ConstantOfShape", ["n"], ["y"])
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [value], [stored])), "bomb.onnx")
    done = run_cli("check", "bomb.onnx", *arguments)
    assert (done.code, done.err) == (1, "")
    assert "32768 MiB" in done.out
