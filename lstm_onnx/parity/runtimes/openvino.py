"""The adapter for OpenVINO, which runs in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .child import Run


class OpenVINO:
    """OpenVINO's CPU plugin, computing in float32 even if the processor has bfloat16."""

    def __init__(self, threads: int | None) -> None:
        import openvino

        self.version = str(openvino.__version__).partition("-")[0]
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        """Read and compile a file."""
        del outputs, fixed
        compiled = self._core.compile_model(self._core.read_model(path), "CPU", self._settings)
        inputs = {port.any_name for port in compiled.inputs}
        request = compiled.create_infer_request()

        def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            results = request.infer({name: array for name, array in feeds.items() if name in inputs})
            return {name: np.array(value) for port, value in results.items() for name in port.get_names()}

        return run

    @staticmethod
    def reason(error: Exception) -> str:
        """The last of the nested checks that failed, which says what is wrong."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return " ".join(lines[-2:] if lines else [type(error).__name__])
