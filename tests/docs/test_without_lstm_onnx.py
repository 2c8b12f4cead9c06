"""The page for programs without lstm-onnx: its metadata keys, and its programs in other languages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from lstm_onnx import ExportOptions, LSTMSpec
from lstm_onnx.checksum import KEY
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata, Origin, Quantization

from .blocks import ROOT, blocks_of, prepare, run

PAGE = (ROOT / "lstm_onnx/docs/without-lstm-onnx.md").read_text(encoding="utf-8")
NODE_MODULES = ROOT / ".ci/node_modules"


def test_every_metadata_key_is_described():
    full = Metadata(
        spec=LSTMSpec(4, 3),
        options=ExportOptions(),
        digest="",
        inputs=(InputSpec("x", ("batch",)),),
        initial={"h0": np.zeros(1)},
        origins={"h0": Origin("lstm", 0, 0, 0)},
        not_streamable="",
        time_axes=("time",),
        batch_mixes="",
        axis_limits={"time": (1, None)},
        size_boundaries={"time": (2,)},
        call=[],
        quantization=Quantization("rows", "all"),
    )
    described = re.findall(r"^\| `(lstm_onnx\.\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(described) == sorted([*full.to_metadata(), KEY])


def test_the_page_names_the_languages_that_are_not_run():
    languages = [block.language for block in blocks_of(PAGE)]
    assert {"python", "javascript", "csharp", "java", "cpp"} <= set(languages)
    not_run = PAGE.partition("**not run by the tests**")[2]
    assert [block.language for block in blocks_of(not_run)][:3] == ["csharp", "java", "cpp"]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.skipif(
    not (NODE_MODULES / "onnxruntime-node").exists(), reason="onnxruntime-node is not installed; .ci/run does that"
)
def test_javascript_prints_what_python_prints(tmp_path, script_environment):
    prepare(tmp_path)
    blocks = blocks_of(PAGE)
    at = next(index for index, block in enumerate(blocks) if block.language == "javascript")
    printed = [run(block, tmp_path, script_environment) for block in blocks[:at]]
    (tmp_path / "stream.cjs").write_text(blocks[at].text, encoding="utf-8")
    done = subprocess.run(
        ["node", "stream.cjs"],
        cwd=tmp_path,
        env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers = [float(number) for number in done.stdout.split()]
    assert numbers == pytest.approx([float(number) for number in printed[-1].split()], abs=1.1e-5)
    assert len(numbers) == 3
    assert all(numbers)
