"""Files of whole modules with a real fault: where they first differ, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import ParityReport
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.graph_edit import known_shapes
from lstm_onnx.parity.mutants.self_test import mutated
from tests.architectures import ALL
from tests.module_files import module_file

from ..files import edit_file

pytestmark = [pytest.mark.sweep(18), pytest.mark.usefixtures("without_sweeps")]


def _verified(name: str, path: Path) -> ParityReport:
    architecture = next(item for item in ALL if item.name == name)
    module, inputs = architecture.example()
    return lstm_onnx.verify(module, path, example_inputs=inputs, provider="cpu", threads=1, mutants="none")


def _wrong(name: str, mistake: str, site: int, folder: Path) -> ParityReport:
    graph = onnx.load(module_file(name))
    mutator = next(mutator for mutator in MUTATORS if mutator.name == mistake)
    outcome, wrong = mutated(graph, mutator, site, "", known_shapes(graph))
    assert outcome.applied
    onnx.save(wrong, folder / "wrong.onnx")
    report = _verified(name, folder / "wrong.onnx")
    assert not report
    return report


@pytest.mark.parametrize("name", ["packed_with_states", "packed_projection", "cell_step", "packed_gru"])
def test_a_right_file_has_neither_place_nor_cause(name: str) -> None:
    report = _verified(name, module_file(name))
    assert report, str(report)
    assert report.location is None
    assert report.causes == ()


@pytest.mark.sweep(12)
@pytest.mark.parametrize(
    ("name", "mistake", "site", "cause", "place"),
    [
        # module, layer, direction
        ("packed_with_states", "gates o and f exchanged", 1, "gate order of layer 1: i,o,g,f", ("lstm", 1, None)),
        ("packed_with_states", "recurrent bias dropped", 0, "missing bias of layer 0: bias_hh", ("lstm", 0, None)),
        ("packed_tagger", "lengths ignored", 0, "lengths ignored", ("lstm", 0, None)),
        ("packed_tagger", "R transposed", 0, "R transposed", ("lstm", 0, None)),
        ("packed_both_ends", "gates i and f exchanged", 0, "gate order: f,i,g,o", ("lstm", 0, "forward")),
        ("packed_projection", "gates i and o exchanged", 0, "gate order: o,f,g,i", ("lstm", 0, None)),
        ("cell_step", "initial c ignored", 0, "states ignored: state.1", ("cell", 0, None)),
        ("cell_step", "initial h and c exchanged", 0, "state order: state.0 and state.1 exchanged", ("cell", 0, None)),
        ("packed_two_lstms", "both biases dropped", 1, "missing bias: both", None),
        ("time_first_copier", "gates i and c exchanged", 0, "gate order", None),
    ],
)
def test_where_and_why(
    name: str, mistake: str, site: int, cause: str, place: tuple[str, int, str | None] | None, tmp_path: Path
) -> None:
    report = _wrong(name, mistake, site, tmp_path)
    (found,) = report.causes
    assert found.name.startswith(cause)
    location = report.location
    assert location is not None
    if place is not None:
        assert (location.module, location.layer, location.direction) == place
    else:  # which of several recurrent modules: the one whose node was changed
        changed = onnx.load(module_file(name))
        from lstm_onnx.parity.mutants.graph_edit import Edit

        path = Edit(changed).layers[site].name.rpartition("/l")[0].replace("/", ".")
        assert location.module == path
        assert f" in {path} " in found.evidence
    assert location.output
    assert location.case


@pytest.mark.parametrize(("mistake", "axis"), [("batch baked in", "batch"), ("time baked in", "time")])
def test_a_baked_size_is_named(mistake: str, axis: str, tmp_path: Path) -> None:
    report = _wrong("packed_tagger", mistake, 0, tmp_path)
    assert [cause.name for cause in report.causes] == [f"baked shape: {axis}"]


def test_streams_that_are_mispaired(tmp_path: Path) -> None:
    """The attribute that the module keeps its state in says how it goes on, whatever the file says."""
    report = _wrong("kept_state", "streams' states mispaired", 0, tmp_path)
    assert [cause.name for cause in report.causes] == ["state order: streams"]
    assert report.location is not None
    assert "every chunking" in report.location.case


@pytest.mark.parametrize("mistake", ["W too large", "other activations", "lengths one step off"])
def test_what_is_in_no_catalogue_has_a_place_and_no_cause(mistake: str, tmp_path: Path) -> None:
    report = _wrong("packed_tagger", mistake, 0, tmp_path)
    assert report.causes == ()
    assert report.location is not None
    assert report.location.module == "lstm"
    assert report.location.step is not None


def _other_head(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name.startswith("tag"):
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(1.1), tensor.name))


def test_what_is_wrong_behind_the_lstm_is_not_said_to_be_in_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(module_file("packed_tagger").read_bytes())
    edit_file(path, _other_head)
    report = _verified("packed_tagger", path)
    assert not report
    assert report.causes == ()
    assert report.location is not None
    assert report.location.module is None
    assert report.location.layer is None


def test_a_file_whose_nodes_have_other_names_has_a_place_in_its_output_alone(tmp_path: Path) -> None:
    graph = onnx.load(module_file("packed_tagger"))
    mutator = next(mutator for mutator in MUTATORS if mutator.name == "R transposed")
    _, wrong = mutated(graph, mutator)
    for index, node in enumerate(wrong.graph.node):
        node.name = f"n{index}"
    onnx.save(wrong, tmp_path / "m.onnx")
    report = _verified("packed_tagger", tmp_path / "m.onnx")
    assert report.location is not None
    assert report.location.module is None
    assert report.location.step is not None
    assert [cause.name for cause in report.causes] == ["R transposed"]


def test_the_module_is_not_changed_by_what_is_tried(tmp_path: Path) -> None:
    architecture = next(item for item in ALL if item.name == "packed_tagger")
    module: nn.Module = architecture.build()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    path = tmp_path / "m.onnx"
    path.write_bytes(module_file("packed_tagger").read_bytes())
    edit_file(path, _other_head)
    lstm_onnx.verify(module, path, example_inputs=architecture.inputs(2, 4), provider="cpu", threads=1)
    for name, value in module.state_dict().items():
        assert value.equal(before[name])
