"""Files in int8: right ones pass, and every wrong one fails by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError, ModelError
from lstm_onnx.parity.converted.exact import GRAPH, STORED, Stored, different_interface, different_nodes, read_stored
from lstm_onnx.parity.converted.results import converted_results
from lstm_onnx.parity.golden_file import Golden
from lstm_onnx.parity.golden_file import read as read_golden
from lstm_onnx.parity.results import OTHER_WEIGHTS
from lstm_onnx.testing import ParityError, assert_parity
from tests.parity.converted.files import (
    OPTIONS,
    Files,
    a_zero_point,
    all_numbers,
    changed,
    crossed_pairs,
    crossed_states,
    failed,
    next_float,
    number,
    reversed_direction,
)
from tests.quantization.operators import Case, saved

pytestmark = pytest.mark.sweep(27)

WRONG = {
    "one byte of W": (number("l0/W/int8", lambda value: value ^ 1), STORED),
    "one byte of R": (number("l1/R/int8", lambda value: value ^ 1), STORED),
    "one scale": (number("l0/R/scale", next_float), STORED),
    "one bias": (all_numbers("/bias", lambda array: np.concatenate([[next_float(array[0])], array[1:]])), STORED),
    "one zero point": (a_zero_point, STORED),
    "states crossed": (crossed_states, GRAPH),
    "a direction flipped": (reversed_direction, GRAPH),
    "pairs of states crossed": (crossed_pairs, GRAPH),
}


@pytest.fixture(scope="module")
def stored(bare: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Golden]:
    """The float32 file of the bare LSTM, and its cases."""
    folder = tmp_path_factory.mktemp("stored")
    assert bare.verified(golden=folder / "g.npz")
    golden = read_golden(folder / "g.npz")
    assert golden.float32 is not None
    (folder / "float32.onnx").write_bytes(golden.float32)
    return folder / "float32.onnx", golden


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_int8_file_fails(name: str, bare: Files, stored: tuple[Path, Golden], tmp_path: Path) -> None:
    change, label = WRONG[name]
    path = changed(bare.int8, tmp_path / "wrong.onnx", change)
    with lstm_onnx.load(path, provider="cpu", threads=1, trial=None) as model:
        found = converted_results(stored[0], model, stored[1].cases, mutants="none")
    assert label in {case.label for case in found.cases if not case.passed}


def test_a_wrong_int8_file_is_not_in_parity(bare: Files, tmp_path: Path) -> None:
    report = bare.verified(changed(bare.int8, tmp_path / "wrong.onnx", WRONG["one scale"][0]))
    assert not report
    assert failed(report) == {STORED}
    assert "l0/R/scale" in str(report)
    assert "1 of 96 numbers differ from the source's" in str(report)


def test_a_file_with_other_nodes_and_the_same_bits_passes_with_a_note(
    bare: Files, stored: tuple[Path, Golden], tmp_path: Path
) -> None:
    def renamed(file: Stored) -> None:
        file.model.graph.node[0].name = "of another version"

    with lstm_onnx.load(changed(bare.int8, tmp_path / "m.onnx", renamed), provider="cpu", threads=1) as model:
        found = converted_results(stored[0], model, stored[1].cases, mutants="none")
    assert all(case.passed for case in found.cases)
    (note,) = found.notes
    assert note.startswith("the file was written by lstm-onnx")
    assert "gives the same bits in all outputs: the node of another version" in note


def _limit_renamed(file: Stored) -> None:
    """The least scale of a row under another name, as of a version whose nodes have other constants."""
    (name,) = (name for name, array in file.arrays.items() if array.ndim == 0 and 0 < array < 1e-20)
    file.arrays["of another version"] = file.arrays.pop(name)
    for node in file.model.graph.node:
        node.input[:] = ["of another version" if value == name else value for value in node.input]


def _skipped(ending: str) -> Callable[[Stored], None]:
    """The first node whose name ends so only hands on its first input."""

    def edit(file: Stored) -> None:
        node = next(node for node in file.model.graph.node if node.name.endswith(ending))
        node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output, node.name))

    return edit


def test_constants_of_other_nodes_are_no_weights(bare: Files, stored: tuple[Path, Golden], tmp_path: Path) -> None:
    def nudged(file: Stored) -> None:
        _limit_renamed(file)
        number("l1/R/int8", lambda value: value ^ 1)(file)

    for change, wrong in ((_limit_renamed, set()), (nudged, {STORED, GRAPH, "int8 layers"})):
        with lstm_onnx.load(changed(bare.int8, tmp_path / "m.onnx", change), provider="cpu", threads=1) as model:
            found = converted_results(stored[0], model, stored[1].cases, mutants="none")
        assert {case.label.partition(",")[0] for case in found.cases if not case.passed} <= wrong
        assert any("the same bits in all outputs" in note for note in found.notes) is not bool(wrong)
        assert all(case.passed for case in found.cases) is not bool(wrong)


@pytest.mark.parametrize("ending", ["/scale_or_nan", "/c0_or_nan"])
def test_what_carries_a_nan_must_be_there(
    ending: str, bare: Files, stored: tuple[Path, Golden], tmp_path: Path
) -> None:
    path = changed(bare.int8, tmp_path / "wrong.onnx", _skipped(ending))
    with lstm_onnx.load(path, provider="cpu", threads=1, trial=None) as model:
        found = converted_results(stored[0], model, stored[1].cases, mutants="none")
    assert {case.label for case in found.cases if not case.passed} == {GRAPH}


def test_another_modules_weights_fail(bare: Files) -> None:
    torch.manual_seed(1)
    report = lstm_onnx.verify(nn.LSTM(20, 24, num_layers=2), bare.int8, **OPTIONS)
    assert not report
    assert STORED in failed(report)
    assert OTHER_WEIGHTS in report.notes


@pytest.mark.parametrize("files", ["bare", "net"])
def test_a_right_int8_file_passes_and_its_mutants_do_not(
    files: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Files = request.getfixturevalue(files)
    report = found.verified(mutants="quick")
    assert report, str(report)
    assert report.precision == "int8"
    assert sum("(" in mutant.name and "/" in mutant.name for mutant in report.mutants) >= 8
    labels = {case.label for case in report.cases}
    assert {STORED, "int8 layers, alone", "int8 layers, step by step"} <= labels
    for drift in report.drift:
        assert 1e-4 < drift.relative < 0.1
        assert drift.inputs == "drawn"
        assert bool(drift.over_time) is (drift.output in ("output", "0")), drift.output
    assert "drift: output is off by" in str(report)
    assert "in parity with PyTorch but for int8 weights" in str(report)
    assert report.to_dict()["drift"][0]["output"] == "output"  # type: ignore[index]
    from lstm_onnx.parity.reports.page import page

    assert "<h3>Drift</h3>" in page([report])


class ZeroStates(nn.Module):
    """Its code makes its zero states, of which both layers take their own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 16, num_layers=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, c = (torch.zeros(2, x.shape[1], 16) for _ in "hc")
        output: torch.Tensor = self.lstm(x, (h, c))[0]
        return output


def test_exchanged_states_that_are_both_zeros_are_no_mistake(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = ZeroStates().eval(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(3, 2, 4), precision="int8")
    report = lstm_onnx.verify(module, path, **{**OPTIONS, "mutants": "quick"})
    assert report, str(report)


def test_a_file_of_quantize_is_the_same_as_an_export(bare: Files, tmp_path: Path) -> None:
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert (tmp_path / "q.onnx").read_bytes() == bare.int8.read_bytes()


def test_layers_are_recurrent_alone_by_an_option(net: Files, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = lstm_onnx.export(
        net.module,
        path,
        example_inputs=torch.randint(0, 64, (2, 5)),
        dynamic_shapes={"tokens": {0: "batch", 1: "time"}},
        precision="int8",
        layers="recurrent",
        check=False,
    )
    assert result.options.layers == "recurrent"
    kinds = {name: array.dtype.name for name, array in read_stored(path).arrays.items()}
    assert kinds["embedding.weight"] == "float32"
    assert "int8" in kinds.values()
    with pytest.raises(ConfigError, match='it goes with precision = "int8"'):
        lstm_onnx.export(net.module.lstm, path, layers="recurrent")
    assert net.verified(path)


# --- float16 ----------------------------------------------------------------------------------------


def test_the_drift_has_a_limit_and_data_count(bare: Files) -> None:
    data = [{"input": np.full((30, 1, 20), 0.3, np.float32)}]
    report = bare.verified(max_drift=0.2, data=data)
    assert report, str(report)
    assert {(drift.output, drift.inputs) for drift in report.drift} >= {("output", "data"), ("output", "drawn")}
    report = bare.verified(max_drift=1e-5)
    assert not report
    assert failed(report) == {"the drift from float64"}
    assert "DRIFTS FARTHER than allowed" in str(report)
    with pytest.raises(ConfigError, match="max_drift"):
        bare.verified(max_drift=-1)


def test_a_float_file_drifts_by_rounding_alone(bare: Files, tmp_path: Path) -> None:
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    report = bare.verified(tmp_path / "m.onnx", max_drift=1e-6)
    assert report, str(report)
    assert all(drift.relative < 1e-6 for drift in report.drift)


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_golden_files_hold_the_float32_file(precision: str, bare: Files, tmp_path: Path) -> None:
    path = getattr(bare, precision)
    assert bare.verified(path, golden=tmp_path / "g.npz")
    assert_parity(path, golden=tmp_path / "g.npz", max_drift=0.2)
    report = lstm_onnx.verify_golden(path, tmp_path / "g.npz", mutants="quick")
    assert report, str(report)
    assert report.precision == precision
    assert report.mutants
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    assert lstm_onnx.verify_golden(tmp_path / "m.onnx", tmp_path / "g.npz")
    name = "l0/W/int8" if precision == "int8" else "l0/W/float16"
    wrong = changed(path, tmp_path / "wrong.onnx", all_numbers(name, lambda array: np.roll(array, 1)))
    with pytest.raises(ParityError, match="numbers differ from the source's"):
        assert_parity(wrong, golden=tmp_path / "g.npz")


def test_a_golden_file_of_a_float32_file_is_refused(bare: Files, tmp_path: Path) -> None:
    lstm_onnx.export(bare.module, tmp_path / "m.onnx")
    assert bare.verified(tmp_path / "m.onnx", golden=tmp_path / "g.npz")
    with pytest.raises(ConfigError, match=r"int8\.onnx: has int8 weights, but .*g\.npz is from a file without"):
        lstm_onnx.verify_golden(bare.int8, tmp_path / "g.npz")


def test_an_int8_file_of_anothers_is_refused_with_what_to_verify(bare: Files, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", Case("LSTM").model())
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    with pytest.raises(
        ModelError, match=r"q\.onnx: was made from a file that lstm-onnx did not export.*verify FLOAT32"
    ):
        bare.verified(tmp_path / "q.onnx")


def test_graphs_are_compared_whatever_the_order_of_their_nodes(bare: Files) -> None:
    one, other = read_stored(bare.int8).model, read_stored(bare.int8).model
    nodes = list(other.graph.node)
    del other.graph.node[:]
    other.graph.node.extend(reversed(nodes))
    assert different_nodes(one, other) == different_interface(one, other) == ""
    other.opset_import[0].version += 1
    assert "the operator sets are" in different_nodes(other, one)
    other.opset_import[0].version -= 1
    other.graph.node[0].name = "renamed"
    assert "renamed" in different_nodes(other, one)
    del other.graph.node[0]
    assert "is missing from the file" in different_nodes(other, one)
    assert "is not in the source" in different_nodes(one, other)
    other.graph.output[0].name = "y"
    assert different_interface(other, one) == "the outputs are y, hn, cn, the source's output, hn, cn"


def test_numbers_over_2_gb_would_be_read_beside_the_file(bare: Files, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(bare.int8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    stored = read_stored(tmp_path / "m.onnx").arrays
    assert all(np.array_equal(stored[t.name], numpy_helper.to_array(t)) for t in onnx.load(bare.int8).graph.initializer)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match=r"its weights in m\.data cannot be read"):
        read_stored(tmp_path / "m.onnx")
