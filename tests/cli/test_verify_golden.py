"""`lstm-onnx verify` with --golden: stored beside PyTorch, compared without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import MODELS, Done, made_once

pytestmark = pytest.mark.sweep(6)

Run = Callable[..., Done]
_STORED: dict[str, bytes] = {}


@pytest.fixture
def stored(run_cli: Run, toml: Callable[..., Path]) -> str:
    """A source, its file m.onnx and its golden file m.npz in the folder that the commands run in."""

    def make() -> None:
        toml()
        assert run_cli("export", "net.toml", "-o", "m.onnx").code == 0
        done = run_cli("verify", "net.toml", "m.onnx", "--provider", "cpu", "--mutants", "none", "--golden", "m.npz")
        assert done.code == 0, done.err
        assert "wrote m.npz: " in done.err
        assert done.err.rstrip().endswith(" cases")

    made_once(_STORED, make)
    return "net.toml"


def _other(run_cli: Run, toml: Callable[..., Path], **sizes: object) -> None:
    assert run_cli("export", toml("other", **sizes), "-o", "other.onnx").code == 0


def test_a_file_is_compared_with_its_golden_file(run_cli: Run, stored: str) -> None:
    done = run_cli("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu")
    assert done.code == 0
    assert "m.onnx: in parity with PyTorch" in done.out
    assert f"{stored} (golden file m.npz)" in done.out
    assert done.err == ""


def test_both_reports_have_the_same_numbers(run_cli: Run, stored: str) -> None:
    live = run_cli("verify", stored, "m.onnx", "--provider", "cpu", "--mutants", "none", "--json")
    kept = run_cli("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu", "--json")
    one, other = json.loads(live.out), json.loads(kept.out)
    assert other["source"] == f"{stored} (golden file m.npz)"
    assert other["versions"]["torch"] == one["versions"]["torch"]
    assert "onnx" not in other["versions"]
    for report in (one, other):
        for key in ("source", "versions", "seconds", "command", "date"):
            del report[key]
    assert one == other


def test_another_model_of_the_same_sizes_fails(run_cli: Run, stored: str, toml: Callable[..., Path]) -> None:
    _other(run_cli, toml, bias=False)
    done = run_cli("verify", "other.onnx", "--golden", "m.npz", "--provider", "cpu")
    assert done.code == 1
    assert "NOT in parity" in done.out
    assert "other weights than the golden file's" in done.out


def test_another_models_golden_is_an_error(run_cli: Run, stored: str) -> None:
    assert run_cli("export", MODELS / "charlm.toml", "-o", "charlm.onnx").code == 0
    done = run_cli("verify", "charlm.onnx", "--golden", "m.npz", "--provider", "cpu")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("lstm-onnx: charlm.onnx: has inputs tokens")
    assert done.err.rstrip().endswith("is it this file's golden file?")
    assert done.err.count("\n") == 1


def test_nothing_is_stored_of_what_fails(run_cli: Run, stored: str, toml: Callable[..., Path]) -> None:
    _other(run_cli, toml, bias=False)
    for out in ("new.npz", "m.npz"):
        before = Path("m.npz").read_bytes()
        arguments = ("verify", stored, "other.onnx", "--provider", "cpu", "--mutants", "none", "--golden", out)
        done = run_cli(*arguments)
        assert done.code == 1
        assert f"{out} was not written, because the comparison failed" in done.err
        assert Path("m.npz").read_bytes() == before
    assert not Path("new.npz").exists()


def test_a_fresh_export_is_stored_too(run_cli: Run, stored: str) -> None:
    assert run_cli("verify", stored, "--provider", "cpu", "--mutants", "none", "--golden", "fresh.npz").code == 0
    assert run_cli("verify", "m.onnx", "--golden", "fresh.npz", "--provider", "cpu").code == 0


def test_only_a_golden_file_is_replaced_and_that_is_said(run_cli: Run, stored: str) -> None:
    arguments = ("verify", stored, "m.onnx", "--provider", "cpu", "--mutants", "none", "--golden")
    done = run_cli(*arguments, "m.npz")
    assert done.code == 0
    assert done.err.startswith("replaced m.npz: ")
    np.savez("data.npz", x=np.zeros(3))
    Path("text.npz").write_text("no archive")
    for name in ("data.npz", "text.npz"):
        before = Path(name).read_bytes()
        done = run_cli(*arguments, name)
        assert done.code == 2
        assert done.err.startswith(f"lstm-onnx: {name}: exists and is not a golden file, so it is not replaced; name")
        assert Path(name).read_bytes() == before


def test_one_precision_is_stored_and_not_two(run_cli: Run, stored: str) -> None:
    common = ("verify", stored, "--provider", "cpu", "--mutants", "none", "--golden", "half.npz")
    done = run_cli(*common, "--precision", "float16", "--precision", "float32")
    assert done.code == 2
    assert "--golden stores one comparison; pass --precision once" in done.err
    assert run_cli(*common, "--precision", "float16").code == 0
    with np.load("half.npz") as arrays:
        assert arrays["float32"].dtype == np.float32
        assert arrays["float32_model"].dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.onnx"], "m.onnx is a FILE; put the SOURCE to compare it with before it, or pass --golden"),
        (["m.onnx", "m.onnx", "--golden", "m.npz"], "m.onnx: its metadata do not say that it is int8 or float16"),
        (["m.onnx", "--golden", "m.npz", "--seed", "0"], "--seed needs a SOURCE"),
        (["m.onnx", "--golden", "m.npz", "--precision", "float32"], "--precision needs a SOURCE"),
        (["m.onnx", "--golden", "m.npz", "--data", "x.npy"], "--data needs a SOURCE"),
        (["m.onnx", "--golden", "m.npz", "--columns", "x"], "--columns needs a SOURCE"),
        (["m.onnx", "--golden", "none.npz"], "none.npz: No such file or directory; expected a golden file"),
        (["m.onnx", "--golden", "m.onnx"], "m.onnx: is not npz"),
        (["none.onnx", "--golden", "m.npz"], "none.onnx: No such file or directory; expected an .onnx file"),
        (["net.toml", "m.onnx", "--golden", "m.onnx"], "golden files must end in .npz"),
        (["net.toml", "m.onnx", "--golden", "-"], "golden files must end in .npz"),
        (["net.toml", "--columns", "x"], "--columns is for a --data table"),
        (["m.onnx", "net.toml"], "net.toml is a SOURCE, which comes before FILE: lstm-onnx verify net.toml m.onnx"),
    ],
)
def test_what_cannot_be_meant_is_one_line(run_cli: Run, stored: str, arguments: list[str], message: str) -> None:
    model = Path("m.onnx").read_bytes()
    done = run_cli("verify", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1
    assert Path("m.onnx").read_bytes() == model


def test_a_folder_that_is_not_there_is_said_before_anything_is_compared(run_cli: Run, stored: str) -> None:
    done = run_cli("verify", stored, "m.onnx", "--provider", "cpu", "--mutants", "none", "--golden", "none/m.npz")
    assert done.code == 2
    assert done.out == ""
    assert "none/m.npz: the folder" in done.err


def test_mutants_can_be_tried_on_a_golden_file(run_cli: Run, stored: str) -> None:
    plain = json.loads(run_cli("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu", "--json").out)
    done = run_cli("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu", "--mutants", "quick", "--json")
    assert done.code == 0
    assert plain["mutants"] == []
    assert len(json.loads(done.out)["mutants"]) >= 12


def test_several_providers_are_several_reports(run_cli: Run, stored: str) -> None:
    done = run_cli("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu", "--provider", "cpu", "--json")
    assert done.code == 0
    assert [report["passed"] for report in json.loads(done.out)["reports"]] == [True, True]


_WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "onnx_ir", "safetensors"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
from lstm_onnx.cli import main
try:
    main(sys.argv[1:])
finally:
    found = {name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "onnxscript", "onnx_ir"}
    assert not found, found
"""


def _without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_machine_without_torch_and_onnx_can_prove_a_file(
    run_cli: Run, stored: str, toml: Callable[..., Path]
) -> None:
    _other(run_cli, toml, bias=False)
    done = _without_torch("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    done = _without_torch("verify", "other.onnx", "--golden", "m.npz", "--provider", "cpu")
    assert done.returncode == 1, done.stderr


def test_python_stores_one_as_well(run_cli: Run, stored: str, tmp_path: Path) -> None:
    import torch
    from torch import nn

    import lstm_onnx

    torch.manual_seed(0)
    module: Any = nn.LSTM(4, 3)
    lstm_onnx.export(module, "own.onnx")
    options = {"provider": "cpu", "threads": 1, "mutants": "none"}
    assert lstm_onnx.verify(module, "own.onnx", golden=tmp_path / "own.npz", **options)
    assert lstm_onnx.verify_golden("own.onnx", tmp_path / "own.npz", provider="cpu")
    assert not lstm_onnx.verify(module, "m.onnx", golden=tmp_path / "wrong.npz", **options)
    assert not (tmp_path / "wrong.npz").exists()
    with pytest.raises(lstm_onnx.FileError, match=r"must end in \.npz"):
        lstm_onnx.verify(module, "own.onnx", golden="own.onnx", **options)
    with pytest.raises(lstm_onnx.ConfigError, match="mutants = 'some' is not known"):
        lstm_onnx.verify_golden("own.onnx", tmp_path / "own.npz", mutants="some")
