"""The checker: sound files pass, and each way of being wrong fails by its own rule, naming the culprit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from lstm_onnx.check import CheckReport, Finding, check
from lstm_onnx.errors import ProviderError
from lstm_onnx.exporter.sources.source import load_source
from lstm_onnx.runtime.providers import cuda_unavailable

from .models import (
    ONE_LAYER,
    PLAIN,
    PROJECTED,
    STACKED,
    by_hand,
    edited,
    export,
    failing,
    fix_dim,
    saved,
    set_initializer,
    set_states,
)

MODELS = Path(__file__).parents[2] / "models"
RULES = ["valid-onnx", "metadata", "dynamic-axes", "states-paired", "not-streamable", "provider", "runnable"]


# --- Sound files ---


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        (PLAIN, {}),
        (PLAIN, {"opset": 14, "lengths": True}),
        ({**PLAIN, "dtype": "float16"}, {}),
        (STACKED, {}),
        (STACKED, {"opset": 23, "lengths": True}),
        (PROJECTED, {"lengths": True}),
        ({**PROJECTED, "num_layers": 2, "bidirectional": True, "batch_first": True}, {"lengths": True, "opset": 14}),
        ({**PROJECTED, "dtype": "float64"}, {}),
        ({**PROJECTED, "bidirectional": True}, {"projection": "fold", "opset": 23}),
    ],
    ids=str,
)
def test_sound_exports_pass(tmp_path: Path, sizes: dict[str, Any], options: dict[str, Any]) -> None:
    report = check(export(tmp_path, sizes, **options), provider="cpu")
    assert report, str(report)
    assert [finding.rule for finding in report.findings if finding.passed] == RULES
    # A file in float16 is told to be no faster here.
    others = [finding for finding in report.findings if not finding.passed]
    assert {finding.mark for finding in others} <= {"note"}
    assert bool(others) is (sizes.get("dtype") == "float16")
    assert "batch 3, time 7" in report.findings[RULES.index("runnable")].message


@pytest.mark.sweep(4)
@pytest.mark.parametrize("config", sorted(MODELS.glob("*.toml")), ids=lambda path: path.stem)
def test_no_rule_speaks_of_a_configured_model(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    load_source(str(config)).export(path)
    report = check(path, provider="cpu", require=True, strict=True)
    assert report, str(report)
    others = {finding.rule for finding in report.findings if not finding.passed}
    assert others == ({"float16-on-cpu"} if config.stem == "half" else set()), str(report)
    # Nor of where it might run, but for steps one by one.
    forecast = check(path, provider="auto", strict=True)
    assert forecast, str(forecast)
    assert {finding.rule for finding in forecast.findings if finding.violated} <= {"float16-on-cpu", "loop-on-cuda"}


def test_a_report_is_json_and_a_table(tmp_path: Path) -> None:
    path = export(tmp_path, PLAIN)
    report = check(path, provider="cpu")
    table = json.loads(json.dumps(report.to_dict()))
    assert table["passed"] is True
    assert (table["file"], table["provider"]) == (str(path), "cpu")
    keys = {"id", "rule", "severity", "passed", "where", "message", "fix", "skipped"}
    assert [set(finding) for finding in table["findings"]] == [keys] * len(RULES)
    assert [finding["id"] for finding in table["findings"]] == [
        "LO101",
        "LO102",
        "LO201",
        "LO301",
        "LO309",
        "LO501",
        "LO502",
    ]
    assert {item["provider"] for item in table["placements"]} == {"CPUExecutionProvider"}
    lines = str(report).splitlines()
    assert lines[2] == "ok    LO201 dynamic-axes    batch and time are dynamic in every input and output"
    assert lines[-2] == f"ok    {len(report.silent)} further rules found nothing"
    assert lines[-1] == f"{path}: passed on cpu"


def test_nothing_checked_is_not_passed() -> None:
    assert not CheckReport("m.onnx", "cpu", ())
    assert not CheckReport("m.onnx", "cpu", (Finding("runnable", False, "", "not tried", skipped=True),))
    bad = CheckReport("m.onnx", "cpu", (Finding("a", True, "", "so"), Finding("b", False, "n", "wrong", "mend it")))
    assert not bad
    assert str(bad).splitlines()[-1] == "m.onnx: FAILED (b) on cpu"
    assert "FAIL  b  n: wrong\n         fix: mend it" in str(bad)


def test_the_checked_file_stays_as_it_is(tmp_path: Path) -> None:
    path = export(tmp_path, {"input_size": 80, "hidden_size": 100})
    before = path.read_bytes()
    assert check(path, provider="cpu")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_outlives_sizes_too_large_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.check.runs._MOST_ELEMENTS", 30)
    sound = check(export(tmp_path, PLAIN), provider="cpu")
    assert sound.findings[-1].skipped
    broken = edited(tmp_path, lambda model: set_initializer(model, "ints/0_0_6", [3, 5, 6]), ONE_LAYER)
    assert "cannot run at batch 1, time 1" in failing(broken, "runnable")


def test_auto_says_where_it_ran(tmp_path: Path) -> None:
    report = check(export(tmp_path, PLAIN))
    assert report
    assert report.provider == ("cpu" if cuda_unavailable() else "cuda")


# --- Sizes baked in ---


@pytest.mark.parametrize(("axis", "name"), [(0, "time"), (1, "batch")])
def test_a_fixed_axis_of_the_input(tmp_path: Path, axis: int, name: str) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, 0, axis, 5), PLAIN)
    text = failing(report, "dynamic-axes")
    assert f"l0/LSTM: {name} is fixed at 5 in the input input" in text


def test_shapes_that_differ_from_the_metadata_are_one_finding(tmp_path: Path) -> None:
    def fix_batch(model: ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[1].dim_value = 2

    lines = failing(edited(tmp_path, fix_batch, PLAIN), "dynamic-axes").splitlines()
    shapes = {"input": "time, batch, 4", "h0": "1, batch, 3", "c0": "1, batch, 3"}
    shapes |= {"output": "time, batch, 3", "hn": "1, batch, 3", "cn": "1, batch, 3"}
    different = [f"{name} is ({shape.replace('batch', '2')}), not ({shape})" for name, shape in shapes.items()]
    assert lines[0] == f"input: not the shapes that the metadata promises: {'; '.join(different)}"
    assert [line.split(":")[0] for line in lines] == ["input", "l0/LSTM"]


@pytest.mark.parametrize("index", [1, 2])
def test_a_state_with_a_fixed_batch(tmp_path: Path, index: int) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, index, 1, 2), PLAIN)
    state = ("h0", "c0")[index - 1]
    assert f"batch is fixed at 2 in the input {state} (1, 2, 3)" in failing(report, "state-batch")
    assert f"{state} is (1, 2, 3)" in failing(report, "states-paired")
    assert "cannot run at batch 3, time 7" in failing(report, "runnable")


def test_the_origin_of_a_fixed_axis_is_named(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, 0, 0, 2), STACKED)
    assert "l0/LSTM: batch is fixed at 2 in the value input/time_first" in failing(report, "dynamic-axes")
    assert "which comes from the input input (2, time, 4)" in failing(report, "dynamic-axes")


def test_a_reshape_with_a_frozen_literal(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: set_initializer(model, "ints/0_0_6", [3, 7, 6]), ONE_LAYER)
    text = failing(report, "frozen-literal")
    assert "l0/output: Reshape turns" in text
    assert "(3, 7, 6), without batch, time" in text
    text = failing(report, "runnable")
    assert "cannot run at batch 1, time 1" in text
    assert "batch 3, time 7" not in text  # the very sizes that were baked in
    assert "onnxruntime_src" not in text


def test_a_reshape_that_freezes_one_axis_fails_to_run(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: set_initializer(model, "ints/0_0_6", [3, -1, 6]), STACKED)
    assert "cannot run at batch 2, time 5" in failing(report, "runnable")


def test_a_fixed_batch_in_a_scan(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, 0, 1, 4), PROJECTED)
    assert "l0/Scan: batch is fixed at 4" in failing(report, "dynamic-axes")


def test_an_input_that_the_metadata_promises_is_missing(tmp_path: Path) -> None:
    def unpromise(model: ModelProto) -> None:
        del model.graph.input[3]
        model.graph.node[0].input[4] = ""

    report = edited(tmp_path, unpromise, PLAIN, lengths=True)
    assert "the input lengths (batch) is missing" in failing(report, "dynamic-axes")


# --- States ---


@pytest.mark.parametrize("states", [{"h0": "cn", "c0": "hn"}, {"h0": "hn"}, {"h0": "nowhere", "c0": "cn"}, {}])
def test_a_bare_lstm_with_wrong_pairs(tmp_path: Path, states: dict[str, str]) -> None:
    report = edited(tmp_path, lambda model: set_states(model, states), PLAIN)
    assert "a bare LSTM has h0 <- hn, c0 <- cn" in failing(report, "states-paired")
    assert [finding.rule for finding in report.failures] == ["states-paired"]


def test_damaged_metadata(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: set_states(model, [1]), PLAIN)
    assert "damaged" in failing(report, "metadata")
    assert "damaged" in failing(report, "runnable")


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({"state": "hN"}, "state <- hN: the input state is missing; the inputs are x, h, c"),
        ({"h": "hT"}, "h <- hT: the output hT is missing; the outputs are y, hN, cN"),
        ({"h": "hN", "c": "hN"}, "c <- hN: hN already feeds h"),
        ({"h": "y"}, "h <- y: h is (1, batch, 3) and y is (time, 1, batch, 3)"),
    ],
)
def test_pairs_that_do_not_fit(tmp_path: Path, states: dict[str, str], said: str) -> None:
    model = onnx.load_model(by_hand(tmp_path))
    graph = onnx.shape_inference.infer_shapes(model).graph
    report = check(saved(tmp_path, graph, states), provider="cpu")
    assert failing(report, "states-paired") == said
    assert [finding.rule for finding in report.failures] == ["states-paired"]


def test_pairs_of_two_dtypes(tmp_path: Path) -> None:
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])
    b = helper.make_tensor_value_info("b", TensorProto.INT64, [2])
    node = helper.make_node("Cast", ["a"], ["b"], to=TensorProto.INT64)
    report = check(saved(tmp_path, helper.make_graph([node], "g", [a], [b]), {"a": "b"}), provider="cpu")
    assert failing(report, "states-paired") == "a <- b: a is float32 and b is int64"


WEIGHTS = f"float[1, 8, 2] W = {{{', '.join('1' * 16)}}}, int64[1] one = {{1}}"
TWO_LAYERS = f"""g (float[t, b, 2] x, float[1, b, 2] h, float[1, b, 2] c, float[1, b, 2] h2, float[1, b, 2] c2)
    => (float[t, 1, b, 2] y, float[1, b, 2] hn, float[1, b, 2] cn, float[1, b, 2] h2n, float[1, b, 2] c2n)
    <{WEIGHTS}> {{
    y1, hn, cn = LSTM <hidden_size = 2> (x, W, W, , , h, c) z = Squeeze(y1, one)
    y, h2n, c2n = LSTM <hidden_size = 2> (z, W, W, , , h2, c2) }}"""
ONE_STATE = f"""g (float[t, b, 2] x, float[2, b, 2] s) => (float[t, 1, b, 2] y, float[2, b, 2] sn) <{WEIGHTS}> {{
    h, c = Split <axis = 0> (s)
    y, hn, cn = LSTM <hidden_size = 2> (x, W, W, , , h, c) sn = Concat <axis = 0> (hn, cn) }}"""


@pytest.mark.parametrize(
    ("graph", "states", "said"),
    [
        (TWO_LAYERS, {"h": "hn", "c": "cn", "h2": "h2n", "c2": "c2n"}, ""),
        (TWO_LAYERS, {"h": "cn", "c": "hn", "h2": "h2n", "c2": "c2n"}, "h <- cn: the state h is h, but cn is c"),
        (
            TWO_LAYERS,
            {"h": "h2n", "c": "cn", "h2": "hn", "c2": "c2n"},
            "h <- h2n: the state h is of LSTM that makes y1, hn, cn, but h2n of LSTM that makes y, h2n, c2n",
        ),
        (ONE_STATE, {"s": "sn"}, ""),
    ],
)
def test_pairs_of_other_layers(tmp_path: Path, graph: str, states: dict[str, str], said: str) -> None:
    report = check(saved(tmp_path, onnx.parser.parse_graph(graph), states), provider="cpu")
    found = [f"{item.where}: {item.message}" for item in report.failures if item.rule == "states-paired"]
    assert found[:1] == ([said] if said else [])


# --- Providers ---


def test_float64_on_the_cpu(tmp_path: Path) -> None:
    report = check(export(tmp_path, {**PLAIN, "dtype": "float64"}, projection="fold"), provider="cpu")
    assert "l0/LSTM: LSTM is float64" in failing(report, "float64-on-cpu")
    assert [finding.rule for finding in report.findings if finding.skipped] == ["runnable"]


def test_a_misspelt_provider(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match='"cudda" is unknown; it must be one of auto, cpu, cuda'):
        check(export(tmp_path, PLAIN), provider="cudda")


@pytest.mark.skipif(cuda_unavailable() is None, reason="there is a GPU here")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="CUDA cannot be used"):
        check(export(tmp_path, PLAIN), provider="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(cuda_unavailable() is not None, reason="needs an NVIDIA GPU")
def test_cuda_runs_every_node(tmp_path: Path) -> None:
    report = check(export(tmp_path, STACKED, lengths=True), provider="cuda")
    assert report, str(report)
    assert report.provider == "cuda"
