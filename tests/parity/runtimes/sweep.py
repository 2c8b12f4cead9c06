"""The acceptance set on other engines: right, refused by `check --target`, or wrong.

``python -m tests.parity.runtimes.sweep FOLDER RUNTIME... [--only NAME...] [--part 1/2] [--target]``

Each architecture is exported and verified once, on ONNX Runtime, and its file and golden file are kept in FOLDER; then
each engine runs the golden file's cases.  A line of JSON for each file and engine goes to FOLDER/RUNTIME.jsonl; with
--target, where each file is exported anew for the engine, to FOLDER/RUNTIME-target.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import lstm_onnx
from lstm_onnx.errors import LSTMOnnxError
from tests.architectures import ALL, Architecture

TARGETS = {"openvino": "openvino", "tract": "tract", "onnxruntime-web": "web"}
"""What `check --target` calls each engine."""


def prepare(architecture: Architecture, folder: Path) -> Path:
    """The file, with its golden file beside it."""
    path = folder / f"{architecture.name}.onnx"
    golden = path.with_suffix(".npz")
    if not golden.exists():
        module, inputs = architecture.example()
        lstm_onnx.export(module, path, example_inputs=inputs, dynamic_shapes=architecture.dynamic_shapes, check=False)
        report = lstm_onnx.verify(
            module, path, example_inputs=inputs, provider="cpu", threads=1, mutants="none", golden=golden
        )
        if not report:
            raise SystemExit(str(report))
    return path


def for_target(architecture: Architecture, runtime: str, folder: Path) -> Path | str:
    """The file that is exported for an engine, or why it is refused."""
    module, inputs = architecture.example()
    path = folder / f"{architecture.name}.{runtime}.onnx"
    shapes = architecture.dynamic_shapes
    try:
        lstm_onnx.export(
            module, path, example_inputs=inputs, dynamic_shapes=shapes, target=TARGETS[runtime], check=False
        )
    except LSTMOnnxError as error:
        return str(error)
    return path


def result_on(runtime: str, path: Path, golden: Path) -> dict[str, Any]:
    """What an engine makes of a file: right, wrong, fails, or refused by the engine; with the first reason."""
    try:
        report = lstm_onnx.verify_golden(path, golden, runtime=runtime, threads=1)
    except LSTMOnnxError as error:
        return {"result": "refused", "reason": error.message}
    if report:
        ratio = max((tensor.ratio for _, tensor in report.worst.values()), default=0.0)
        fixed = next((note for note in report.notes if "at one size of each axis" in note), "")
        return {"result": "right at fixed sizes" if fixed else "right", "reason": fixed or f"ratio {ratio:.3g}"}
    errors = [case.error for case in report.judged if case.error]
    if errors:
        return {"result": "fails", "reason": errors[0], "failed": len(errors), "cases": len(report.judged)}
    wrong = [case for case in report.judged if not case.passed]
    tensor = max(wrong[0].tensors, key=lambda item: item.ratio)
    reason = f"{wrong[0].label}: {tensor.output} off by {tensor.error:.3g} (ratio {tensor.ratio:.3g})"
    return {"result": "wrong", "reason": reason, "failed": len(wrong), "cases": len(report.judged)}


def main() -> None:
    """Export what is missing, and run each file on each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runtimes", nargs="*")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--target", action="store_true")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for architecture in ALL[part - 1 :: parts]:
        if options.only and architecture.name not in options.only:
            continue
        path = prepare(architecture, options.folder)
        for runtime in options.runtimes:
            started = time.perf_counter()
            own = for_target(architecture, runtime, options.folder) if options.target else path
            refused = {"result": "refused beforehand", "reason": own}
            result = refused if isinstance(own, str) else result_on(runtime, own, path.with_suffix(".npz"))
            line = {"name": architecture.name, **result, "seconds": round(time.perf_counter() - started, 1)}
            results = options.folder / f"{runtime}{'-target' if options.target else ''}.jsonl"
            with results.open("a") as stream:
                stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
