"""Opens ONNX Runtime sessions on the requested provider, or raises an error that names the cause.

ONNX Runtime itself is lenient: a CUDA-only session opens on the CPU if CUDA is missing, and its list of available
providers is what was compiled in, not what can run (onnxruntime issues 17801, 21424, 23372).  Here the driver is
queried first, and afterwards the session for the provider of each node; nothing falls back silently.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..atomic_io import require_readable, require_utf8
from ..errors import InputError, MissingDependencyError, ModelError, ProviderError, shown
from .arguments import integer, seconds
from .ort_messages import open_error
from .shutdown import opened, sleep_if_ending
from .tuning import CPU_ARENA, MAX_FOLDED_BYTES, MAX_THREADS

PROVIDERS = ("auto", "cpu", "cuda")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ORT_NAMES = {CPU: "cpu", CUDA: "cuda"}
"""ONNX Runtime's names of the providers, which are accepted too."""
_MAX_DEVICES = 1024
NO_GRAPH = -1
CPU_SHAPE_OPS = frozenset(
    {"Shape", "Size", "Gather", "Cast", "Range", "Unsqueeze", "Squeeze", "Slice", "Concat", "Less"}
)
"""Operators on shapes and lengths that ONNX Runtime keeps on the CPU on purpose, even in a CUDA session."""
_LEAST_VERSION = (1, 27)
"""The oldest ONNX Runtime that computes correctly.  On CPUs with AMX, 1.24 computes int8 products of few features
wrongly (as measured; 1.25 does not).  Since 1.27, a thread spins for as long as requested (pull request 27916)."""
_FATAL_OPTIMIZERS = ["MatmulTransposeFusion"]
"""In float16, a Transpose before a MatMul crashes the process when the session opens on the CPU (1.31.1): this
optimizer fuses them into a FusedMatMul, on which NchwcTransformer, at level 99, fails."""
_WARNING, _FATAL = 2, 4
"""ONNX Runtime's log severities; the first is its default."""


@dataclass(frozen=True)
class Placement:
    """The provider on which one node of an open session runs."""

    node: str
    op_type: str
    provider: str


@cache
def onnxruntime() -> Any:
    """The onnxruntime module.

    From the import on, its wheels of 1.31 and 1.32 store an identifier of the machine and how they are used, to upload
    it.  They do neither if ORT_DISABLE_TELEMETRY is 1, which is set here unless the user has set it.

    Raises:
        MissingDependencyError: it is not installed or too old, or both of its wheels are installed, which overwrite
            each other's files.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        module = importlib.import_module("onnxruntime")
        _ = module.InferenceSession  # an incompletely removed wheel leaves an empty namespace
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"ONNX Runtime cannot be imported ({error})",
            hint="pip install 'lstm-onnx[gpu]' installs it, or 'lstm-onnx[cpu]' a small one without CUDA",
        ) from error
    wheels = installed_wheels(os.path.dirname(module.__path__[0]))  # noqa: PTH120 - pathlib is slow to import
    if len(wheels) > 1:
        raise MissingDependencyError(
            f"{' and '.join(wheels)} are both installed and overwrite each other's files",
            hint=f"pip uninstall -y {' '.join(wheels)}, then pip install 'lstm-onnx[gpu]'",
        )
    if tuple(map(int, re.findall(r"\d+", module.__version__)[:2])) < _LEAST_VERSION:
        raise MissingDependencyError(
            f"ONNX Runtime {module.__version__} is too old: {'.'.join(map(str, _LEAST_VERSION))} or newer is needed",
            hint=f"pip install -U {' '.join(wheels) or 'onnxruntime'}",
        )
    return module


def installed_wheels(site_packages: str | os.PathLike[str]) -> list[str]:
    """Which of onnxruntime's wheels are in `site_packages`, by folder names, since importlib.metadata is slow."""
    known = {"onnxruntime", "onnxruntime_gpu", "onnxruntime_directml", "onnxruntime_openvino"}
    entries = os.listdir(site_packages)  # noqa: PTH208
    found = {entry.partition("-")[0] for entry in entries if entry.endswith(".dist-info")}
    return sorted(name.replace("_", "-") for name in found & known)


@cache
def ort_errors() -> tuple[type[Exception], ...]:
    """Every exception type that ONNX Runtime's Python binding raises; their only common base is Exception."""
    onnxruntime()
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def parse_provider(provider: Any) -> tuple[str, int]:
    """The provider ("auto", "cpu" or "cuda"), and the number of the GPU.

    Args:
        provider: one of `PROVIDERS` or of `ORT_NAMES`; for CUDA also with a device, as in "cuda:1".

    Raises:
        ProviderError: it is none of these.
    """
    name, colon, device = provider.partition(":") if isinstance(provider, str) else ("", "", "")
    name = ORT_NAMES.get(name, name)
    has_device = name == "cuda" and device.isascii() and device.isdecimal() and int(device) < _MAX_DEVICES
    if name not in PROVIDERS or (colon and not has_device):
        raise ProviderError(
            f'provider "{provider if isinstance(provider, str) else shown(provider):.60}" is unknown',
            hint=f"it must be one of {', '.join((*PROVIDERS, 'cuda:1', *ORT_NAMES))}",
            name="provider",
        )
    return name, int(device or 0)


def validated_threads(threads: Any) -> int | None:
    """The number of threads; None leaves the choice to ONNX Runtime (InputError)."""
    return None if threads is None else integer("threads", threads, 1, MAX_THREADS, "or None")


@dataclass(frozen=True)
class _Settings:
    """How a session is opened, and the name of its model in messages; see `open_session`."""

    name: str
    threads: int | None
    spin: float
    cuda_graph: bool
    device_id: int
    folder: str | None
    session_options: Any


def open_session(
    model: str | os.PathLike[str] | bytes,
    provider: str = "auto",
    threads: int | None = None,
    *,
    spin: float = 0.0,
    cuda_graph: bool = False,
    folder: str | None = None,
    every_node: bool = True,
    session_options: Any = None,
) -> tuple[Any, str]:
    """Open `model`, a path or the bytes of one, on `provider`.

    Args:
        model: an .onnx file, or its content.
        provider: see `parse_provider`; "cuda" is strict, and "auto" is CUDA if a GPU can be used, otherwise CPU.
        threads: threads within an operator; None leaves the choice to ONNX Runtime, one per core.
        spin: seconds for which an idle thread spins before it sleeps.
        cuda_graph: let CUDA runs be captured as graphs and replayed.
        folder: for bytes, the folder of their external data.
        every_node: for "cuda", refuse a model with nodes on other providers; see `placements`.
        session_options: see `load`.

    Returns:
        The ``InferenceSession`` and "cpu" or "cuda".

    Raises:
        FileError: the file is missing, empty or a folder.
        ModelError: it is not a model, ONNX Runtime cannot run it, or memory ran out.
        ProviderError: the provider is unknown, is not available, or would not run every node.
        MissingDependencyError: no usable ONNX Runtime is installed, or one too old for `spin`.
        InputError: `threads` is not a positive integer, `spin` is not a duration, or `session_options` has the wrong
            type.
    """
    wanted, device_id = parse_provider(provider)
    threads = validated_threads(threads)
    spin = seconds("spin", spin, 1)
    name = "the model" if isinstance(model, bytes) else os.fspath(model)
    if not isinstance(model, bytes):
        # ONNX Runtime looks for external data beside the path that it gets, not beside the target of a link.
        require_readable(model, "an .onnx file")
        require_utf8(name)
        model = os.path.realpath(model)
        require_utf8(model)
    ort = onnxruntime()
    if session_options is not None and not isinstance(session_options, ort.SessionOptions):
        raise InputError.of_argument("session_options", session_options, "an onnxruntime.SessionOptions")
    settings = _Settings(name, threads, spin, cuda_graph, device_id, folder, session_options)
    if wanted == "cpu" or (wanted == "auto" and cuda_unavailable() is not None):
        return _open(ort, model, [CPU], settings), "cpu"
    if wanted == "cuda":
        reason = cuda_unavailable() or _no_such_device(device_id)
        if reason is not None:
            raise ProviderError(f"CUDA cannot be used: {reason}", name="provider")
        session = _open(ort, model, [CUDA, CPU], settings)
        _require_cuda(session, every_node=every_node)
        return session, "cuda"
    session = _open(ort, model, [CUDA, CPU], settings)
    if CUDA in session.get_providers():
        return session, "cuda"
    import logging

    log = logging.getLogger("lstm_onnx")
    log.warning("ONNX Runtime cannot use the GPU and runs on the CPU: %s", _missing_library(ort))
    return session, "cpu"


def _open(ort: Any, model: str | bytes, providers: list[str], settings: _Settings) -> Any:
    sleep_if_ending()
    options = _session_options(ort, settings)
    if CUDA in providers and hasattr(ort, "preload_dlls"):
        # From torch or from the nvidia wheels; failures are printed, which is suppressed.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
            ort.preload_dlls()
    try:
        weights = {} if isinstance(model, bytes) or settings.session_options is not None else _weights(model)
        if weights:  # which live until the session is open
            sizes = list(map(len, weights.values()))
            options.add_external_initializers_from_files_in_memory(list(weights), list(weights.values()), sizes)
        with _silent_provider_loading(ort, providers):
            return opened(
                ort.InferenceSession(
                    model,
                    options,
                    providers=[(name, _provider_options(settings)) if name == CUDA else name for name in providers],
                    enable_fallback=0,
                    disabled_optimizers=_FATAL_OPTIMIZERS,
                )
            )
    except MemoryError as error:
        raise ModelError("ran out of memory while opening it", path=settings.name) from error
    except ort_errors() as error:
        raise open_error(error, settings.name, on_cpu=providers == [CPU]) from error


def _weights(model: str) -> dict[str, bytes]:
    from .file_digest import weights_of_others

    return weights_of_others(model)


def _session_options(ort: Any, settings: _Settings) -> Any:
    """The caller's options with the settings that we need, or our own options."""
    options = settings.session_options
    entries = {"session.record_ep_graph_assignment_info": "1"}
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL  # failures are exceptions with the same text
        options.enable_cpu_mem_arena = CPU_ARENA
        options.enable_mem_pattern = False
        # Spinning threads compete with the application's: 50 times slower beside torch (onnxruntime issue 13808).
        entries |= {f"session.{kind}_op.allow_spinning": "0" for kind in ("intra", "inter")}
        entries["optimization.constant_folding_max_output_size_in_bytes"] = str(MAX_FOLDED_BYTES)
    if settings.threads is not None:
        options.intra_op_num_threads = settings.threads
    if settings.spin:
        entries["session.intra_op.allow_spinning"] = "1"
        entries["session.intra_op.spin_duration_us"] = str(max(1, round(settings.spin * 1e6)))
    if settings.folder is not None:
        entries["session.model_external_initializers_file_folder_path"] = settings.folder
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _provider_options(settings: _Settings) -> dict[str, str]:
    graph = {"enable_cuda_graph": "1"} if settings.cuda_graph else {}
    return graph | ({"device_id": str(settings.device_id)} if settings.device_id else {})


def graph_options(number: int) -> Any:
    """Options of a run that captures the CUDA graph of this number, or replays it; `NO_GRAPH` for a plain run."""
    options = onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


@contextlib.contextmanager
def _silent_provider_loading(ort: Any, providers: list[str]) -> Iterator[None]:
    """Keep ONNX Runtime from printing that its CUDA provider failed to load, which our own error says."""
    if CUDA not in providers:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # The session's log severity does not apply to the loader, and the default severity cannot be queried.
        ort.set_default_logger_severity(_FATAL)
        try:
            yield
        finally:
            ort.set_default_logger_severity(_WARNING)


def placements(session: Any) -> list[Placement]:
    """The provider of each node of an open session, after ONNX Runtime's optimizations.

    Raises:
        ModelError: the name of a node is not valid text.
    """
    try:
        return [
            Placement(node.name, node.op_type, part.ep_name)
            for part in session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
    except UnicodeDecodeError as error:
        raise ModelError("damaged: the name of a node is not UTF-8 text", hint="export or copy it again") from error


def runs_operator(session: Any, *names: str) -> bool:
    """Whether an open session has a node with one of these operators."""
    return any(node.op_type in names for node in placements(session))


@cache
def operator_versions() -> Mapping[tuple[str, str], frozenset[int]]:
    """The operators of this ONNX Runtime, by domain ("" is ONNX's own) and name, with the opsets of their versions.

    Empty where the build does not list them.
    """
    onnxruntime()
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found: dict[tuple[str, str], frozenset[int]] = {}
    for schema in getattr(state, "get_all_operator_schema", list)():
        key = (schema.domain, schema.name)
        found[key] = found.get(key, frozenset()) | {schema.since_version}
    return found


def off_cuda(placed: Iterable[Placement]) -> list[Placement]:
    """The nodes that compute something and are not on CUDA."""
    return [item for item in placed if item.provider != CUDA and item.op_type not in CPU_SHAPE_OPS]


def _require_cuda(session: Any, *, every_node: bool = True) -> None:
    if CUDA not in session.get_providers():
        raise ProviderError(f"CUDA cannot be used: {_missing_library(onnxruntime())}", name="provider")
    elsewhere = off_cuda(placements(session)) if every_node else []
    if elsewhere:
        names = ", ".join(f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere[:5])
        raise ProviderError(
            f"CUDA has no kernel for {len(elsewhere)} of the model's nodes ({names})",
            hint='export at opset 21 or below, or use provider "auto" to let them run on the CPU',
            name="provider",
        )


def cuda_unavailable() -> str | None:
    """Why CUDA cannot be used here, and how to fix it; None where there is a GPU with a driver."""
    if CUDA not in onnxruntime().get_available_providers():
        return "this ONNX Runtime is built without it; pip uninstall -y onnxruntime, then pip install 'lstm-onnx[gpu]'"
    return _gpus()[1]


def _no_such_device(device_id: int) -> str | None:
    """Why this GPU cannot be used; None where it exists."""
    count = _gpus()[0] if device_id else 1  # the first one is known to exist
    if device_id < count:
        return None
    return f"there is no device {device_id}; the NVIDIA driver reports {count}, counted from 0"


@cache
def _gpus() -> tuple[int, str | None]:
    """The number of GPUs that the NVIDIA driver reports (CUDA driver API), and the reason if there is none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0, f'no NVIDIA driver is installed ({name} cannot be opened); use provider "cpu", or install the driver'
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        hidden = " (CUDA_VISIBLE_DEVICES is set)" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
        return 0, f'the NVIDIA driver reports no usable GPU{hidden}, CUDA status {status}; use provider "cpu"'
    return count.value, None


def _missing_library(ort: Any) -> str:
    """Why ONNX Runtime's CUDA provider does not load: the dynamic loader's message names the missing library."""
    from pathlib import Path

    folder = Path(ort.__path__[0]) / "capi"
    name = "onnxruntime_providers_{}.dll" if sys.platform == "win32" else "libonnxruntime_providers_{}.so"
    try:
        ctypes.CDLL(str(folder / name.format("shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / name.format("cuda")))
    except OSError as error:
        return f"{error}; pip install 'lstm-onnx[cuda]' installs CUDA's libraries, and so does a CUDA build of torch"
    return "ONNX Runtime could not start its CUDA provider; its wheel and the driver may be for different CUDA versions"
