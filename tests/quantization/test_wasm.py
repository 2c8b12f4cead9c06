"""The default kernel in onnxruntime-web under Node: equal to Python's, for every operator.

It needs npm and its registry; where these are not, or the package does not install, the tests are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from lstm_onnx.quantization import quantize
from tests.quantization.operators import CASES, Case, saved

pytestmark = pytest.mark.slow  # 150 MB of packages
SCRIPT = """
const ort = require("onnxruntime-web"), fs = require("fs");
ort.env.wasm.numThreads = 1;
const kinds = {float32: Float32Array, int32: Int32Array};
(async () => {
  for (const job of JSON.parse(fs.readFileSync("jobs.json"))) {
    const session = await ort.InferenceSession.create(job.model, {executionProviders: ["wasm"]});
    const feeds = {};
    for (const [name, one] of Object.entries(job.feeds))
      feeds[name] = new ort.Tensor(one.dtype, new kinds[one.dtype](one.data), one.shape);
    const results = await session.run(feeds), told = {};
    for (const [name, one] of Object.entries(results)) told[name] = {shape: one.dims, data: Array.from(one.data)};
    fs.writeFileSync(job.result, JSON.stringify(told));
  }
})().catch(error => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds onnxruntime-web."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    place = tmp_path_factory.mktemp("web")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "onnxruntime-web@1.30"]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not reach its registry")
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {done.stderr[-200:]}")
    (place / "run.cjs").write_text(SCRIPT)
    return place


def told(array: np.ndarray) -> dict[str, object]:
    return {"dtype": array.dtype.name, "shape": array.shape, "data": array.reshape(-1).tolist()}


def test_every_operator_gives_what_python_gives(folder: Path):
    cases: list[Case] = [*CASES, Case("LSTM", inputs=130, hidden=70, gain=2.0)]
    jobs, expected = [], []
    for index, case in enumerate(cases):
        source, path = saved(folder / f"{index}.onnx", case.model()), folder / f"{index}-int8.onnx"
        quantize(source, path)
        feeds = case.feeds(9, 3)
        session = ort.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        expected.append(dict(zip(names, session.run(names, feeds), strict=True)))
        jobs.append(
            {
                "model": path.name,
                "feeds": {name: told(array) for name, array in feeds.items()},
                "result": f"{index}.json",
            }
        )
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(["node", "run.cjs"], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    for index, (case, outputs) in enumerate(zip(cases, expected, strict=True)):
        found = json.loads((folder / f"{index}.json").read_text())
        assert found.keys() == outputs.keys()
        for name, array in outputs.items():
            size = max(1.0, float(np.abs(array).max()))
            actual = np.array(found[name]["data"], np.float32).reshape(found[name]["shape"])
            # One value at the middle between two integers may be rounded to either.
            assert np.median(np.abs(actual - array)) < 2e-7 * size, (case, name)
            assert np.abs(actual - array).max() < 1e-6 * size, (case, name)
