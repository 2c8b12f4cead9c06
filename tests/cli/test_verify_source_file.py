"""``lstm-onnx verify FLOAT32.onnx FILE``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lstm_onnx
from tests.quantization.operators import Case, saved


def test_an_int8_file_is_compared_with_its_float32_file_without_torch(run_cli: Any, tmp_path: Path) -> None:
    saved(tmp_path / "m.onnx", Case("GRU").model())
    lstm_onnx.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    done = run_cli("verify", "m.onnx", "q.onnx", "--mutants", "none", "--json", "--golden", "g.npz")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["reference"], told["source"], told["precision"], told["passed"]) == ("float32", "m.onnx", "int8", True)
    assert "wrote g.npz: 3 cases" in done.err
    assert run_cli("verify", "q.onnx", "--golden", "g.npz").code == 0
    assert run_cli("verify", "m.onnx", "q.onnx", "--mutants", "none", "--max-drift", "1e-5").code == 1
    done = run_cli("verify", "m.onnx", "q.onnx", "--precision", "int8")
    assert (done.code, "--precision is for fresh exports" in done.err) == (2, True)
    program = (
        "import sys, lstm_onnx\n"
        "assert lstm_onnx.verify('m.onnx', 'q.onnx', mutants='quick', threads=1)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
