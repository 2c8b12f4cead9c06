"""PyTorch LSTMs in production through ONNX: export, check, run and verify.

Imports are lazy: a program that only runs models loads numpy and ONNX Runtime, and neither torch nor onnx.
"""

TYPE_CHECKING = False  # type checkers know this name, and importing typing takes 5 ms of every command
__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import ray as ray
    from .check import CheckReport, check
    from .deploy import TritonResult, deploy_triton
    from .deploy.web import WebResult, deploy_web
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
    from .exporter.scan import scan
    from .generation import GeneratingResult, make_generating
    from .generation_spec import Generation
    from .inspect import Inspection, inspect
    from .parity import ParityReport
    from .parity.golden import verify_golden
    from .parity.public import verify
    from .quantization import QuantizeResult, quantize
    from .repairs import RepairResult, repair
    from .runtime import Model, load
    from .runtime.batcher.batcher import BatchedStream, Batcher
    from .runtime.beam_search import Hypothesis, beam_search
    from .runtime.pool.pool import Pool
    from .runtime.state_json import state_from_json, state_to_json
    from .runtime.stream import Stream
    from .spec import ExportOptions, LSTMSpec
    from .streaming import StreamingResult, make_streaming
    from .torch_modules import to_torch

_MODULES = {
    "check": ("CheckReport",),
    "deploy": ("TritonResult", "deploy_triton"),
    "deploy.web": ("WebResult", "deploy_web"),
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
    "exporter.scan": ("scan",),
    "generation": ("GeneratingResult", "make_generating"),
    "generation_spec": ("Generation",),
    "inspect": ("Inspection",),
    "parity.golden": ("verify_golden",),
    "parity.public": ("verify",),
    "parity.report": ("ParityReport",),
    "quantization": ("QuantizeResult", "quantize"),
    "repairs": ("RepairResult", "repair"),
    "runtime.batcher.batcher": ("BatchedStream", "Batcher"),
    "runtime.beam_search": ("Hypothesis", "beam_search"),
    "runtime.model": ("Model",),
    "runtime.open_model": ("load",),
    "runtime.pool.pool": ("Pool",),
    "runtime.state_json": ("state_from_json", "state_to_json"),
    "runtime.stream": ("Stream",),
    "spec": ("ExportOptions", "LSTMSpec"),
    "streaming": ("StreamingResult", "make_streaming"),
    "torch_modules": ("to_torch",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_PACKAGES = ("check", "inspect", "ray")
"""The first two are called as the function of their name, see `callable_package`; `ray` is a package as others are, for
``lstm_onnx.ray.map``, and no name of this one."""

__all__ = [
    "BatchedStream",
    "Batcher",
    "CheckReport",
    "ConfigError",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "FileError",
    "GeneratingResult",
    "Generation",
    "Hypothesis",
    "InputError",
    "Inspection",
    "LSTMOnnxError",
    "LSTMSpec",
    "MissingDependencyError",
    "Model",
    "ModelError",
    "ParityReport",
    "Pool",
    "ProviderError",
    "QuantizeResult",
    "RepairResult",
    "RunError",
    "Stream",
    "StreamingResult",
    "TritonResult",
    "WebResult",
    "WeightsError",
    "__version__",
    "beam_search",
    "check",
    "deploy_triton",
    "deploy_web",
    "export",
    "inspect",
    "load",
    "make_generating",
    "make_streaming",
    "quantize",
    "repair",
    "scan",
    "state_from_json",
    "state_to_json",
    "to_torch",
    "verify",
    "verify_golden",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether imported or not."""
    return __all__
