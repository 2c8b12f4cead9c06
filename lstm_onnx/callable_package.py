"""Packages that can be called: ``lstm_onnx.check(path)``, while ``lstm_onnx.check.report`` stays a module.

A function of the same name as the package in ``lstm_onnx`` would be replaced by the package when that is first
imported, so that ``lstm_onnx.check`` would depend on the order of imports.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class CallablePackage(ModuleType):
    """A package that calls the function of its own name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **options)

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = vars(self)[self.__name__.rpartition(".")[2]]
        return function

    @property
    def __signature__(self) -> Any:
        """The function's, for ``help`` and editors."""
        import inspect

        return inspect.signature(self._function)


def make_callable(package: str) -> None:
    """Let calls of an imported package, by its full name, call its function of the same name."""
    sys.modules[package].__class__ = CallablePackage
