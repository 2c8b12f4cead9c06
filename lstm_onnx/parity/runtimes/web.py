"""Starts ONNX Runtime Web in a Node process."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ...errors import MissingDependencyError

FOLDER = "LSTM_ONNX_NODE_MODULES"
"""The environment variable that names the folder of npm packages."""
_PACKAGE = "onnxruntime-web"
INSTALL = f"npm install {_PACKAGE} installs it in this folder; or name another node_modules folder in {FOLDER}"


def start(threads: int | None) -> subprocess.Popen[bytes]:
    """Start the process, in this process's working folder.

    Raises:
        MissingDependencyError: Node or the package is not installed.
    """
    node = shutil.which("node")
    if node is None:
        raise MissingDependencyError(
            "onnxruntime-web needs Node.js, but no program node was found", hint="install it from https://nodejs.org"
        )
    command = [node, os.fspath(Path(__file__).with_name("web.mjs")), os.fspath(packages()), str(threads or 0)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)  # noqa: S603 - the program that was found


def packages() -> Path:
    """The folder of npm packages: that in `FOLDER`, or the nearest node_modules, upwards, that has onnxruntime-web.

    Raises:
        MissingDependencyError: there is none.
    """
    named = os.environ.get(FOLDER)
    here = Path.cwd()
    candidates = [Path(named)] if named else [parent / "node_modules" for parent in (here, *here.parents)]
    for folder in candidates:
        if (folder / _PACKAGE / "package.json").is_file():
            return folder.resolve()
    where = f"in {named}, which {FOLDER} names" if named else f"in a node_modules of {here} or above"
    raise MissingDependencyError(f"onnxruntime-web was not found {where}", hint=INSTALL)
