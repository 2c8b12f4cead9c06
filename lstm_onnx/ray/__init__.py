"""Runs models on many machines with Ray: `map` runs one on a data set, `deployment` serves it by several replicas.

``import lstm_onnx.ray`` imports neither Ray nor the server's libraries; the functions import them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import MapResult
    from .dataset import map_dataset as map  # noqa: A004 - as `Model.map`
    from .replicas import deployment

_MODULES = {
    "MapResult": ("dataset", "MapResult"),
    "deployment": ("replicas", "deployment"),
    "map": ("dataset", "map_dataset"),
}

__all__ = ["MapResult", "deployment", "map"]


def __getattr__(name: str) -> object:
    """Import a name from its module on first use."""
    import importlib

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _MODULES[name]
    value: object = getattr(importlib.import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value
