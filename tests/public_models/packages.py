"""Public packages, installed without their dependencies into folders outside the repository."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Package:
    """One version of a package on PyPI, and how its model code is imported without the heavy dependencies.

    `needs` are the requirements that the model code imports, installed without dependencies of their own.  `bare` are
    packages (dotted names) whose ``__init__`` is not run, since it imports far more than the model.  `stubs` are
    modules that are imported beside the model and that its code does not use: an empty module stands in for each, and
    a call of anything in it raises.
    """

    name: str
    version: str
    needs: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


def default_folder() -> Path:
    """Where the packages are kept: ``LSTM_ONNX_PUBLIC_MODELS``, else a folder among the temporary files."""
    return Path(os.environ.get("LSTM_ONNX_PUBLIC_MODELS") or Path(tempfile.gettempdir()) / "lstm-onnx-public-models")


def install(package: Package, folder: Path, timeout: float = 300.0) -> str | None:
    """Install `package` and its needs, each into a folder of its own; None, or why that is not possible."""
    for requirement in (package.requirement, *package.needs):
        target = folder / requirement
        if target.is_dir():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"]
            command += [f"{scratch}/site", requirement]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
            except subprocess.TimeoutExpired:
                return f"pip took longer than {timeout:g} s for {requirement}"
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["pip failed"]
                return f"{requirement}: {lines[0].strip()}"
            os.replace(f"{scratch}/site", target)
    return None


class _Unused(type):
    """Stands for anything in a stub: it can be named, inherited from and annotated with, and not called."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unused(name, (), {})

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{cls.__name__} is of a module that is stubbed here: the model uses it after all")

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__

    def __getitem__(cls, key: Any) -> Any:
        return cls


class _Stub(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unused(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stubs, and the packages whose ``__init__`` is left out."""

    def __init__(self, package: Package, roots: list[Path]) -> None:
        self.package = package
        self.roots = roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002 - the protocol's
        if any(name == stub or name.startswith(f"{stub}.") for stub in self.package.stubs):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        if name in self.package.bare:
            folders = [str(root / name.replace(".", "/")) for root in self.roots]
            spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
            spec.submodule_search_locations = [folder for folder in folders if Path(folder).is_dir()]
            return spec
        return None

    def create_module(self, spec: Any) -> ModuleType:
        return ModuleType(spec.name) if spec.name in self.package.bare else _Stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Both are empty."""


def use(package: Package, folder: Path) -> None:
    """Make `package` importable in this process; it is installed in `folder`."""
    roots = [folder / requirement for requirement in (package.requirement, *package.needs)]
    sys.path.extend(str(root) for root in roots)
    sys.meta_path.insert(0, _Finder(package, roots))
    importlib.invalidate_caches()
