"""PyTorch LSTMs in production through ONNX: export, check, run and verify.

Imports are lazy: a program that only runs models loads numpy and ONNX Runtime, and neither torch nor onnx.
"""

from .version import __version__ as __version__

TYPE_CHECKING = False  # type checkers know this name, and importing typing takes 5 ms of every command

if TYPE_CHECKING:
    from . import ray as ray
    from .check import CheckReport as CheckReport
    from .check import check as check
    from .deploy import TritonResult as TritonResult
    from .deploy import deploy_triton as deploy_triton
    from .deploy.web import WebResult as WebResult
    from .deploy.web import deploy_web as deploy_web
    from .errors import ConfigError as ConfigError
    from .errors import ExportError as ExportError
    from .errors import FileError as FileError
    from .errors import InputError as InputError
    from .errors import LSTMOnnxError as LSTMOnnxError
    from .errors import MissingDependencyError as MissingDependencyError
    from .errors import ModelError as ModelError
    from .errors import ProviderError as ProviderError
    from .errors import RunError as RunError
    from .errors import WeightsError as WeightsError
    from .exporter import ExportResult as ExportResult
    from .exporter import export as export
    from .exporter.scan import scan as scan
    from .generation import GeneratingResult as GeneratingResult
    from .generation import make_generating as make_generating
    from .generation_spec import Generation as Generation
    from .inspect import Inspection as Inspection
    from .inspect import inspect as inspect
    from .parity.golden import verify_golden as verify_golden
    from .parity.public import verify as verify
    from .parity.report import ParityReport as ParityReport
    from .quantization import QuantizeResult as QuantizeResult
    from .quantization import quantize as quantize
    from .repairs import RepairResult as RepairResult
    from .repairs import repair as repair
    from .runtime import Model as Model
    from .runtime import load as load
    from .runtime.batcher.batcher import BatchedStream as BatchedStream
    from .runtime.batcher.batcher import Batcher as Batcher
    from .runtime.beam_search import Hypothesis as Hypothesis
    from .runtime.beam_search import beam_search as beam_search
    from .runtime.pool.pool import Pool as Pool
    from .runtime.state_json import state_from_json as state_from_json
    from .runtime.state_json import state_to_json as state_to_json
    from .runtime.stream import Stream as Stream
    from .spec import ExportOptions as ExportOptions
    from .spec import LSTMSpec as LSTMSpec
    from .streaming import StreamingResult as StreamingResult
    from .streaming import make_streaming as make_streaming
    from .torch_modules import to_torch as to_torch

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

__all__ = sorted(("__version__", "check", "inspect", *_MODULE_OF))


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
