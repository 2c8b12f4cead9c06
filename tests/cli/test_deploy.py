"""``lstm-onnx deploy``."""

from __future__ import annotations

import json
from pathlib import Path

from ..runtime.models import exported


def test_a_repository_is_written_and_reported(run_cli, tmp_path: Path):
    exported(tmp_path / "net.onnx")
    done = run_cli("deploy", "triton", "net.onnx", "-o", "repository", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["schema"], found["name"], found["stateful"]) == (1, "net", True)
    assert found["files"] == ["config.pbtxt", "1/model.onnx"]
    assert all((tmp_path / found["folder"] / name).is_file() for name in found["files"])
    done = run_cli("deploy", "triton", "net.onnx", "-o", "repository", "--name", "other", "--max-batch", "8")
    assert done.code == 0
    assert "other, with 2 states that Triton carries, batches of up to 8" in done.out


def test_a_folder_for_browsers_is_written_and_reported(run_cli, tmp_path: Path):
    exported(tmp_path / "net.onnx")
    done = run_cli("deploy", "web", "net.onnx", "-o", "web", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["schema"], found["streams"], found["cases"], found["microphone"]) == (1, True, 5, None)
    assert all((tmp_path / found["folder"] / name).is_file() for name in found["files"])
    done = run_cli("deploy", "web", "net.onnx", "-o", "web")
    assert done.code == 0
    assert "streams; the page compares 5 cases with ONNX Runtime" in done.out
    done = run_cli("deploy", "web", "net.onnx", "-o", "other", "--state", "h0")
    assert done.code == 2
    assert "'h0' is not INPUT=OUTPUT" in done.err
    done = run_cli("deploy", "web", "net.onnx", "-o", "other", "--state", "h0=hn", "--state", "h0=cn")
    assert (done.code, "h0 was given twice; give it once" in done.err) == (2, True)
    for arguments in (["--ort", "."], ["--golden", "none.npz"], ["--sample-rate", "16000"], ["--state", "h0=output"]):
        done = run_cli("deploy", "web", "net.onnx", "-o", "other", *arguments)
        assert (done.code, (tmp_path / "other").exists()) == (2, False)
    assert run_cli("deploy", "web", "net.onnx").code == 2


def test_errors(run_cli, tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    done = run_cli("deploy", "triton", "bad.onnx", "-o", "repository")
    assert (done.code, (tmp_path / "repository").exists()) == (2, False)
    assert run_cli("deploy", "nowhere", "bad.onnx").code == 2
    assert run_cli("deploy", "triton", "bad.onnx").code == 2
