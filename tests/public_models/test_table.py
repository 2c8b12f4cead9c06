"""The table in the documentation, and the judge behind it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from .judge import IndifferentError, difference, judge
from .model import EXAMPLE, SHAPES, Model
from .models import MODELS
from .packages import Package, _Finder, default_folder
from .table import HEAD, PAGE, TOOLS, main, row, short, slug, totals


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.scores = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.lstm(x)[0])


TAGGER = Model("tagger", Package("none", "0"), Tagger, lambda batch, time: (torch.randn(batch, time, 4),))


def rows_of_page() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert lines[0] == "| " + " | ".join(HEAD) + " |"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_every_model_has_a_row():
    rows = rows_of_page()
    assert [cells[0] for cells in rows] == [model.name for model in MODELS]
    assert [cells[1] for cells in rows] == [f"{model.package.name} {model.package.version}" for model in MODELS]
    assert {len(cells) for cells in rows} == {len(HEAD)}


def test_the_totals_are_those_of_the_rows():
    assert totals(rows_of_page()) in PAGE.read_text()


def test_a_changed_row_changes_the_totals():
    rows = rows_of_page()
    first = next(index for index, cells in enumerate(rows) if cells[HEAD.index("ours")].startswith("right"))
    rows[first] = [*rows[first][: HEAD.index("ours")], "wrong: by hand", *rows[first][HEAD.index("ours") + 1 :]]
    assert totals(rows) not in PAGE.read_text()


def test_there_are_enough_models_and_their_names_differ():
    assert len(MODELS) >= 40
    assert len({model.package.name for model in MODELS}) >= 15
    assert len({slug(model.name) for model in MODELS}) == len(MODELS)


def test_none_of_ours_is_wrong():
    assert not [cells[0] for cells in rows_of_page() if cells[HEAD.index("ours")].startswith("wrong")]


def test_the_shapes_are_not_the_example():
    assert EXAMPLE not in SHAPES
    assert (1, 1) in SHAPES


def test_the_open_axes_are_found_by_trying():
    assert TAGGER.open_axes() == [{0: "batch", 1: "time"}]
    assert TAGGER.dynamic_shapes() == ({0: "batch", 1: "time"},)


def runner(module: nn.Module):
    def run(arrays):
        with torch.no_grad():
            return [module(*map(torch.from_numpy, arrays)).numpy()]

    return run


def test_the_module_itself_is_judged_right():
    module = TAGGER.made()
    judgement = judge(TAGGER, module, runner(module))
    assert judgement.verdict == "right"
    assert len(judgement.compared) == len(SHAPES)


@pytest.mark.parametrize("name", ["lstm.weight_hh_l0", "lstm.bias_ih_l0", "scores.weight"])
def test_a_file_with_another_weight_is_judged_wrong(name):
    module, other = TAGGER.made(), TAGGER.made()
    with torch.no_grad():
        other.get_parameter(name)[0] += 0.1
    judgement = judge(TAGGER, module, runner(other))
    assert judgement.verdict == "wrong"
    assert "differs by" in judgement.reason


def test_a_file_with_a_step_too_few_is_judged_wrong():
    module = TAGGER.made()
    judgement = judge(TAGGER, module, lambda arrays: [runner(module)(arrays)[0][:, 1:]])
    assert judgement.verdict == "wrong"
    assert "instead of" in judgement.reason


def test_a_file_that_runs_at_one_batch_only_fails():
    module = TAGGER.made()

    def run(arrays):
        if len(arrays[0]) != 2:
            raise ValueError("the batch is 2")
        return runner(module)(arrays)

    judgement = judge(TAGGER, module, run)
    assert judgement.verdict == "fails"
    assert "the batch is 2" in judgement.reason


def test_a_module_that_ignores_its_inputs_is_not_judged():
    module = TAGGER.made()
    with torch.no_grad():
        module.scores.weight.zero_()
    with pytest.raises(IndifferentError):
        judge(TAGGER, module, runner(module))


def test_not_a_number_is_a_difference():
    one, other = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)
    other[0, 0] = np.nan
    assert difference([one], [other])[0] == np.inf
    assert difference([other], [other]) == (0.0, "")


def test_a_stub_can_be_inherited_from_and_not_called(monkeypatch):
    finder = _Finder(Package("none", "0", stubs=("heavy_dependency",)), [])
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "heavy_dependency", raising=False)
    import heavy_dependency  # type: ignore[import-not-found]

    monkeypatch.setitem(sys.modules, "heavy_dependency", heavy_dependency)

    class Inherits(heavy_dependency.Base):
        pass

    with pytest.raises(NotImplementedError, match="stubbed"):
        heavy_dependency.load("weights")
    with pytest.raises(NotImplementedError, match="stubbed"):
        Inherits()


def test_a_row_says_why_an_exporter_refused():
    results = {tool: {"verdict": "refused", "reason": "at forward: a | b"} for tool in TOOLS}
    assert row(TAGGER, results)[HEAD.index("dynamo")] == r"refused: at forward: a \| b"


def test_a_cell_names_no_folder():
    refused = "/scratch/run/stream.onnx: cannot be streamed: LSTM is bidirectional, at model.py:7: y = self.lstm(x)"
    assert short(refused) == "LSTM is bidirectional, at model.py:7: y = self.lstm(x)"
    assert short("word " * 99).endswith("word …")
    assert not re.search(r"/(tmp|home|root|work)/", PAGE.read_text())


@pytest.mark.slow
def test_every_model_is_exported_as_the_table_says(tmp_path):
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "encodec==0.1.1"]
    if subprocess.run(probe, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("packages cannot be installed here: pip download encodec==0.1.1 failed")
    folder = default_folder()
    assert main(["--folder", str(folder)]) == 0
    results = json.loads((folder / "details.json").read_text())
    told = {cells[0]: cells[HEAD.index("ours")].split(":")[0].split(" (")[0] for cells in rows_of_page()}
    assert {name: found["ours"]["verdict"] for name, found in results.items()} == told
