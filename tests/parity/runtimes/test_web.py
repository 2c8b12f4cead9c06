"""Where ONNX Runtime Web is looked for, and its runs in Node where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.errors import MissingDependencyError
from lstm_onnx.parity.runtimes import load_on, running, web

CI = Path(__file__).parents[3] / ".ci" / "node_modules"


def installed(folder: Path) -> Path:
    (folder / "onnxruntime-web").mkdir(parents=True)
    (folder / "onnxruntime-web" / "package.json").write_text('{"version": "1.30.0"}')
    return folder


def test_the_package_is_found_upwards_or_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(web.FOLDER, raising=False)
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(MissingDependencyError, match=r"in a node_modules of .* or above; npm install onnxruntime-web"):
        web.packages()
    assert web.packages.__doc__
    above = installed(tmp_path / "node_modules")
    assert web.packages() == above
    named = installed(tmp_path / "elsewhere")
    monkeypatch.setenv(web.FOLDER, str(named))
    assert web.packages() == named
    monkeypatch.setenv(web.FOLDER, str(tmp_path / "none"))
    with pytest.raises(MissingDependencyError, match=r"in .*none, which LSTM_ONNX_NODE_MODULES names"):
        web.packages()


def test_without_node_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match=r"no program node was found"), running("onnxruntime-web"):
        pass


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_a_package_that_does_not_load_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(web.FOLDER, str(installed(tmp_path)))
    with pytest.raises(MissingDependencyError, match=r"ONNX Runtime Web cannot be started"), running("onnxruntime-web"):
        pass


@pytest.mark.skipif(
    shutil.which("node") is None or not (CI / "onnxruntime-web").is_dir(), reason="onnxruntime-web is not in .ci"
)
def test_it_gives_the_numbers_of_onnxruntime(lstm: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(web.FOLDER, str(CI))
    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    with (
        running("onnxruntime-web") as engine,
        load_on(engine, lstm) as model,
        lstm_onnx.load(lstm, "cpu", threads=1) as plain,
    ):
        stream = model.stream(batch=3)
        for _ in range(3):
            np.testing.assert_allclose(model(x)[0], plain(x)[0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(stream(x), plain(x)[0], rtol=0, atol=1e-6)
            stream.reset()
