"""PyTorch LSTMs in production through ONNX: export, check, run and verify.

Nothing heavy is imported until it is used: a program that only runs models loads numpy and
ONNX Runtime, and neither torch nor onnx.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it by this name too, and importing typing takes 5 ms of every command
__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from .errors import (
        ConfigError,
        ExportError,
        FileError,
        InputError,
        LSTMOnnxError,
        MissingDependencyError,
        ModelError,
        ProviderError,
        RunError,
        WeightsError,
    )
    from .exporter import ExportResult, export
    from .parity import ParityReport, verify
    from .parity.golden import verify_golden
    from .runtime import Model, load
    from .runtime.batcher.batcher import Batcher
    from .runtime.pool.pool import Pool
    from .runtime.stream import Stream
    from .spec import ExportOptions, LSTMSpec

_HOMES = {
    "errors": (
        "ConfigError",
        "ExportError",
        "FileError",
        "InputError",
        "LSTMOnnxError",
        "MissingDependencyError",
        "ModelError",
        "ProviderError",
        "RunError",
        "WeightsError",
    ),
    "exporter": ("ExportResult", "export"),
    "parity": ("ParityReport", "verify"),
    "parity.golden": ("verify_golden",),
    "runtime": ("Model", "load"),
    "runtime.batcher.batcher": ("Batcher",),
    "runtime.pool.pool": ("Pool",),
    "runtime.stream": ("Stream",),
    "spec": ("ExportOptions", "LSTMSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Batcher",
    "ConfigError",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "FileError",
    "InputError",
    "LSTMOnnxError",
    "LSTMSpec",
    "MissingDependencyError",
    "Model",
    "ModelError",
    "ParityReport",
    "Pool",
    "ProviderError",
    "RunError",
    "Stream",
    "WeightsError",
    "__version__",
    "export",
    "load",
    "verify",
    "verify_golden",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "verify":
        from .exporter.dependencies import import_torch

        import_torch(f"lstm_onnx.{name} compares with it")
    import importlib

    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return __all__
