"""The acceptance set on each engine: right, refused beforehand by a rule of `check --target`, or a known fault."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from pathlib import Path

import pytest

from lstm_onnx.check.examine import target_findings
from lstm_onnx.parity.runtimes.web import FOLDER
from tests.architectures import ALL, Architecture
from tests.docs.blocks import ROOT

from .sweep import TARGETS, for_target, prepare, result_on

pytestmark = pytest.mark.slow

REFUSED = {
    ("tract", "packed_max_pool"): "LO620 tract-data-slice",
    ("tract", "packed_mean"): "LO620 tract-data-slice",
    ("tract", "packed_tagger_trimmed"): "LO620 tract-data-slice",
}
"""What the export for an engine refuses."""
KNOWN = {"tract": ("huge states", "tract-precision")}
"""A fault that is no error of `check`: the label of the cases that show it, and the rule that has its issue number."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.fixture(params=TARGETS)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "onnxruntime-web":
        modules = os.environ.get(FOLDER, ROOT / ".ci/node_modules")
        if shutil.which("node") is None or not Path(modules, "onnxruntime-web").exists():
            pytest.skip("Node and onnxruntime-web are not installed; .ci/run installs the latter")
        monkeypatch.setenv(FOLDER, os.fspath(modules))
    elif importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.mark.parametrize("architecture", ALL, ids=[item.name for item in ALL])
@pytest.mark.filterwarnings("ignore")
def test_every_architecture_has_an_answer(architecture: Architecture, runtime: str, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = prepare(architecture, folder)
        fitted = for_target(architecture, runtime, folder)
    golden = plain.with_suffix(".npz")
    refusal = REFUSED.get((runtime, architecture.name))
    if isinstance(fitted, str):
        assert refusal is not None, fitted
        assert refusal in fitted
    else:
        assert refusal is None
        result = result_on(runtime, fitted, golden)
        assert result["result"].startswith("right"), result
    result = result_on(runtime, plain, golden)
    if not result["result"].startswith("right"):
        found = target_findings(plain, TARGETS[runtime])
        label, rule = KNOWN.get(runtime, ("", ""))
        known = result["result"] == "wrong" and label in result["reason"] and rule in {item.rule for item in found}
        assert known or found[0].failed, result
