"""OpenVINO and tract, where they are installed: what the rules of `check --target` say of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.errors import LSTMOnnxError
from lstm_onnx.parity.runtimes import load_on, running
from lstm_onnx.parity.runtimes.process import EngineProcess
from lstm_onnx.spec import ExportOptions
from tests.check.violations import LENGTHS, Case, attributes, base, nothing
from tests.runtime.models import exported

X = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
NEAR = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(scope="module", params=["openvino", "tract"])
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, EngineProcess]]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with running(request.param, 1) as process:
        assert process is not None
        yield request.param, process


@pytest.mark.parametrize("sizes", [{}, {"bidirectional": True, "num_layers": 2}, {"hidden_size": 8, "proj_size": 3}])
def test_an_lstm_is_right(sizes: dict[str, int], engine: tuple[str, EngineProcess], tmp_path: Path):
    exported(tmp_path / "m.onnx", **sizes)
    with load_on(engine[1], tmp_path / "m.onnx") as model, lstm_onnx.load(tmp_path / "m.onnx", "cpu") as plain:
        np.testing.assert_allclose(model(X)[0], plain(X)[0], **NEAR)
        if "bidirectional" not in sizes:
            stream = model.stream(batch=3)
            whole = np.concatenate([stream(X[at : at + 2]) for at in (0, 2, 4)])
            np.testing.assert_allclose(whole, plain(X)[0], **NEAR)


def test_lengths_are_as_the_rules_say(engine: tuple[str, EngineProcess], tmp_path: Path):
    name, process = engine
    exported(tmp_path / "m.onnx", options=ExportOptions(lengths=True))
    (rule,) = {item.rule for item in check(tmp_path / "m.onnx", provider="cpu", targets=[name]).failures}
    assert rule == f"{name}-lengths"
    with load_on(process, tmp_path / "m.onnx") as model, lstm_onnx.load(tmp_path / "m.onnx", "cpu") as plain:
        right = plain(X, lengths=[6, 2, 4])[0]
        if name == "tract":
            with pytest.raises(LSTMOnnxError, match="Non constant seq_len"):
                model(X, lengths=[6, 2, 4])
        else:
            assert np.abs(model(X, lengths=[6, 2, 4])[0] - right).max() > 1e-2


@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        (Case(attributes(direction="reverse")), ["tract"]),
        (Case(attributes(activations=["Sigmoid", "Relu", "Tanh"])), ["tract"]),
        (Case(attributes(clip=0.2)), ["tract"]),
        (Case(attributes(input_forget=1)), ["openvino", "tract"]),
        (Case(nothing, given=(*LENGTHS[1:],)), []),
    ],
    ids=["reverse", "activations", "clip", "input_forget", "plain"],
)
def test_attributes_are_as_the_rules_say(
    case: Case, wrong: list[str], engine: tuple[str, EngineProcess], tmp_path: Path
):
    name, process = engine
    path = base(tmp_path, case, case.breaks)
    told = {item.rule for item in check(path, provider="cpu", targets=[name]).findings if item.violated}
    assert (f"{name}-variant" in told) is (name in wrong)
    feeds = {
        "X": X,
        **{name: np.random.default_rng(1).standard_normal((1, 3, 3)).astype(np.float32) for name in LENGTHS[1:]},
    }
    with load_on(process, path) as model, lstm_onnx.load(path, "cpu") as plain:
        error = max(np.abs(array - plain.run(feeds)[key]).max() for key, array in model.run(feeds).items())
    assert bool(error > 1e-3) is (name in wrong), error
