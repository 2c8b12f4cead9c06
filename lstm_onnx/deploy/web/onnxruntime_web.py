"""Finds ONNX Runtime for the page: at a CDN, or in an npm package from which it is copied."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import FileError

VERSION = "1.30.0"
"""The version that the page loads, with which lstm-onnx is tested."""
_CDN = "https://cdn.jsdelivr.net/npm/onnxruntime-web"
_WASM, _WEBGPU = "ort.wasm.bundle.min.mjs", "ort.webgpu.bundle.min.mjs"
_LOADED = re.compile(rb"ort-wasm-simd-threaded[a-z.]*\.(?:wasm|mjs)")
"""The names, in a bundle's code, of the files that it loads."""
FOLDER = "ort"


@dataclass(frozen=True)
class OnnxRuntimeWeb:
    """ONNX Runtime as the page loads it.

    Attributes:
        version: the version of onnxruntime-web.
        wasm: the URL of its module for WebAssembly.
        webgpu: the URL of its module for WebGPU; None if that was not copied.
        files: the files to copy, by their names in the folder.
    """

    version: str
    wasm: str
    webgpu: str | None
    files: dict[str, Path]

    def to_dict(self) -> dict[str, Any]:
        """The fields that the page reads."""
        return {"version": self.version, "wasm": self.wasm, "webgpu": self.webgpu, "offline": bool(self.files)}


def from_cdn() -> OnnxRuntimeWeb:
    """The module that a browser loads from the network."""
    base = f"{_CDN}@{VERSION}/dist"
    return OnnxRuntimeWeb(VERSION, f"{base}/{_WASM}", f"{base}/{_WEBGPU}", {})


def from_package(folder: str) -> OnnxRuntimeWeb:
    """A copy of the npm package onnxruntime-web.

    Args:
        folder: the package, or its folder ``dist``.

    Raises:
        FileError: the folder is not that package.
    """
    inner = Path(folder) / "dist"
    dist = inner if os.path.isdir(inner) else Path(folder)  # noqa: PTH112 - it accepts names of any length
    files: dict[str, Path] = {}
    for bundle in (_WASM, _WEBGPU):
        try:
            names = {name.decode() for name in _LOADED.findall((dist / bundle).read_bytes())}
        except OSError:
            continue
        present = [dist / name for name in sorted(names) if (dist / name).is_file()]
        if any(path.suffix == ".wasm" for path in present):
            files |= {f"{FOLDER}/{path.name}": path for path in (dist / bundle, *present)}
    if f"{FOLDER}/{_WASM}" not in files:
        raise FileError(
            f"{folder}: has no {_WASM} with its .wasm file; it must be the npm package onnxruntime-web, such as "
            f"node_modules/onnxruntime-web after npm install onnxruntime-web@{VERSION}"
        )
    webgpu = f"{FOLDER}/{_WEBGPU}"
    return OnnxRuntimeWeb(_version(dist.parent), f"{FOLDER}/{_WASM}", webgpu if webgpu in files else None, files)


def _version(package: Path) -> str:
    try:
        found = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
