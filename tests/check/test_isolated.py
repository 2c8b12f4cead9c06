"""`check` opens files in a child process: what ends or hangs it fails a rule, and all else is as without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lstm_onnx.check import CheckReport, check
from lstm_onnx.errors import ConfigError, FileError, ModelError, ProviderError
from lstm_onnx.isolation.process import Child
from tests.hostile_files import ENDING, FLOAT, HALF, hanging, one_node, written

from .models import PLAIN, PROJECTED, STACKED, InThisProcess, by_hand, export, failing
from .violations import CASES, base

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX exit statuses")
LO112 = "crashing-node"
SURVIVED = {"EyeLike of no type", "GatherND of a negative size"}
"""What onnx and ONNX Runtime only sometimes do not survive: these read behind the end of a list."""


@pytest.fixture(scope="module")
def child():
    with Child() as made:
        yield made


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", ENDING)
def test_a_file_that_ends_the_process_fails(name: str, tmp_path: Path, child: Child):
    path = written(tmp_path, ENDING[name]())
    report = check(path, provider="cpu", child=child)
    assert not report
    assert report.provider == "cpu"
    told = {finding.rule for finding in report.findings if finding.skipped or finding.passed or finding.failed}
    assert {"valid-onnx", "dynamic-axes", "provider", "runnable"} <= told
    if name not in SURVIVED:
        said = failing(report, LO112)
        assert "opening the file ended the process (SIG" in said
        assert "not tried: opening the file crashes or hangs" in str(report)


def test_what_was_found_before_the_end_is_told(tmp_path: Path, child: Child):
    report = check(written(tmp_path, ENDING["RandomNormal of scale 0"]()), provider="cpu", child=child)
    assert "in a run at its fixed sizes" in failing(report, LO112)
    by_rule = {finding.rule: finding for finding in report.findings}
    assert by_rule["random-operator"].violated
    assert by_rule["metadata"].passed
    assert by_rule["provider"].passed
    assert by_rule["runnable"].skipped
    assert "frozen-slice" in report.silent
    assert [item.op_type for item in report.placements] == ["RandomNormal"]


def test_a_file_that_hangs_fails_within_its_time(tmp_path: Path, child: Child):
    report = check(written(tmp_path, hanging()), provider="cpu", seconds=1.5, child=child)
    assert "opening the file took longer than 1.5 s in shape inference" in failing(report, LO112)
    assert check(export(tmp_path, PLAIN), provider="cpu", child=child)  # the next one has a process of its own


def test_that_rule_cannot_be_ignored(tmp_path: Path, child: Child):
    path = written(tmp_path, ENDING["Max with an input of no name"]())
    report = check(path, provider="cpu", ignore=["LO112", "valid-onnx"], child=child)
    assert failing(report, LO112)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_file_that_asks_for_too_much_memory_fails(tmp_path: Path):
    """A size that follows from numbers which no shape tells of: no bomb that is told in advance."""
    nodes = one_node("Identity", ["x"], given={"x": (FLOAT, ["n"])})
    large = 2**30 + 2**28
    nodes.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["i"], to=onnx.TensorProto.INT64))
    nodes.graph.node.insert(1, onnx.helper.make_node("Mul", ["i", "zero"], ["z"]))
    nodes.graph.node.insert(2, onnx.helper.make_node("ReduceSum", ["z"], ["s"]))
    nodes.graph.node.insert(3, onnx.helper.make_node("Add", ["s", "size"], ["n"]))
    nodes.graph.node.insert(4, onnx.helper.make_node("ConstantOfShape", ["n"], ["big"]))
    nodes.graph.node[5].input[0] = "big"
    nodes.graph.initializer.append(onnx.helper.make_tensor("zero", onnx.TensorProto.INT64, [], [0]))
    nodes.graph.initializer.append(onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [1], [large]))
    report = check(written(tmp_path, nodes), provider="cpu")
    assert "bad_alloc" in failing(report, "runnable")


def half_product(permutation: list[int]) -> onnx.ModelProto:
    """A float16 Transpose before a MatMul."""
    shape = [f"axis{axis}" if axis != permutation[2] else 4 for axis in range(3)]
    model = one_node("MatMul", ["t", "w"], given={"x": (HALF, shape)}, stored={"w": np.ones((4, 3), np.float16)})
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["x"], ["t"], perm=permutation))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", HALF, ["b", "t", 3]))
    return model


@pytest.mark.parametrize("permutation", [[1, 0, 2], [0, 2, 1]])
def test_a_file_that_ends_only_other_programs_is_told(permutation: list[int], tmp_path: Path, child: Child):
    path = written(tmp_path, half_product(permutation))
    opened = "import sys, onnxruntime as o; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    plain = subprocess.run([sys.executable, "-c", opened, path], capture_output=True, check=False)
    assert plain.returncode <= 0
    report = check(path, provider="cpu", child=child)
    assert report, str(report)
    told = [finding.message for finding in report.warnings if finding.rule == "fatal-optimizer"]
    assert [message.partition(" (")[0] for message in told] == [
        "opening it with ONNX Runtime's default options ended the process"
    ] * (plain.returncode < 0)
    assert ("fatal-optimizer" in report.silent) is not bool(told)
    assert check(export(tmp_path, PLAIN), provider="cpu", child=child)


# --- Ordinary files ---


def same(one: CheckReport, other: CheckReport) -> bool:
    return one == other and one.to_dict() == other.to_dict() and str(one) == str(other)


@pytest.mark.parametrize("name", [name for name in CASES if name != LO112])
def test_a_violated_rule_is_told_as_without_a_child(name: str, tmp_path: Path, child: Child):
    path = base(tmp_path, CASES[name], CASES[name].breaks)
    arguments = {"provider": CASES[name].provider if CASES[name].provider == "cpu" else "auto", "strict": True}
    assert same(check(path, child=child, **arguments), check(path, child=InThisProcess(), **arguments))


def test_good_files_pass_as_without_a_child(tmp_path: Path, child: Child):
    for path in (export(tmp_path, STACKED), export(tmp_path, PROJECTED, lengths=True), by_hand(tmp_path)):
        report = check(path, provider="cpu", require=True, child=child)
        assert report or path.name == "other.onnx"
        assert LO112 in report.silent
        assert same(report, check(path, provider="cpu", require=True, child=InThisProcess()))


def test_errors_are_those_of_the_checker(tmp_path: Path, child: Child):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(FileError, match=r"missing\.onnx: No such file"):
        check(tmp_path / "missing.onnx", child=child)
    with pytest.raises(ModelError, match=r"text\.onnx: is not an ONNX model"):
        check(tmp_path / "text.onnx", child=child)
    path = export(tmp_path, PLAIN)
    with pytest.raises(ProviderError, match='provider "tpu" is unknown'):
        check(path, provider="tpu", child=child)
    with pytest.raises(ConfigError, match='no rule is called "LO999"'):
        check(path, ignore=["LO999"], child=child)


def test_a_path_is_meant_from_here(tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch):
    export(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path)
    report = check("m.onnx", provider="cpu", child=child)
    assert report
    assert report.file == "m.onnx"


@pytest.mark.parametrize("seconds", [float("nan"), 0, -1.0, "a"])
def test_a_time_limit_is_above_0(seconds: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seconds = .* is not possible; it must be a number above 0"):
        check(tmp_path / "m.onnx", seconds=seconds)
