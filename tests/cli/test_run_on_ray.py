"""``lstm-onnx run --engine ray``, as far as no cluster is needed; tests/ray has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_onnx.cli import main as command
from lstm_onnx.ray.dataset import MapResult


def main(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        command(arguments)
    return ended.value.code


REFUSED = [
    (["m.onnx"], "--engine ray runs a .parquet file or a folder of them"),
    (["m.onnx", "-", "-o", "out"], "--engine ray runs a .parquet file or a folder of them"),
    (["m.onnx", "data"], "--engine ray writes a folder; name one with -o"),
    (["m.onnx", "data", "-o", "-"], "--engine ray writes a folder"),
    (["m.onnx", "data", "-o", "out", "--json"], "--json is not for --engine ray"),
    (["m.onnx", "data", "-o", "out", "--format", "npz"], "--format is not for --engine ray"),
    (["m.onnx", "data", "-o", "out", "--seed", "0"], "--seed is not for --engine ray"),
    (["m.onnx", "data", "-o", "out", "--no-isolate"], "--isolate is not for --engine ray"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_options_that_it_does_not_have(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments, "--engine", "ray"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_address_is_for_ray(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "m.onnx", "--address", "auto"]) == 2
    assert "--address is not for --engine local" in capsys.readouterr().err


def test_without_ray(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    assert main(["run", "m.onnx", str(tmp_path), "-o", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert "Ray is not installed; pip install 'lstm-onnx[ray]'" in capsys.readouterr().err


def test_states_reach_the_workers_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = {}

    def map_dataset(*_: object, **options: object) -> MapResult:
        passed.update(options)
        return MapResult(str(tmp_path), 0, 0, 0)

    monkeypatch.setattr("lstm_onnx.ray.map", map_dataset)
    monkeypatch.setenv("RAY_ADDRESS", "none")
    assert main(["run", "m.onnx", "data", "-o", "out", "--engine", "ray", "--state", "state=stateN"]) == 0
    assert passed["states"] == {"state": "stateN"}
