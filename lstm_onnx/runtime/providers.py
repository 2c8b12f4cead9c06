"""ONNX Runtime sessions on the provider that was asked for, or an error that names the cause.

ONNX Runtime itself is lenient: a CUDA-only session opens on the CPU where CUDA is missing, and its
list of available providers says what was compiled in, not what can run (onnxruntime issues 17801,
21424, 23372).  Here the driver is asked first, the session is asked afterwards where each node
went, and nothing falls back without a word.
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

from ..atomic_io import require_readable
from ..errors import MissingDependencyError, ModelError, ProviderError, shown
from .arguments import integer, seconds
from .huge_pages import on_huge_pages
from .shutdown import sleep_if_ending

PROVIDERS = ("auto", "cpu", "cuda")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CPU_SHAPE_OPS = frozenset(
    {"Shape", "Size", "Gather", "Cast", "Range", "Unsqueeze", "Squeeze", "Slice", "Concat", "Less"}
)
"""Operators on shapes and lengths that ONNX Runtime keeps on the CPU on purpose, also in a CUDA session."""
_MAX_THREADS = 1024
_SPINS = (1, 27)
"""From which ONNX Runtime on the time that threads spin for can be set (pull request 27916)."""
_MAX_FOLDED_BYTES = 2**28
"""Constant folding stops here: a model of 68 bytes can otherwise ask for a GiB when it is opened."""
_FATAL_OPTIMIZERS = ["MatmulTransposeFusion"]
"""In float16 a Transpose before a MatMul takes the whole process down when the session opens on the CPU (1.31.1):
this one makes a FusedMatMul of them, which NchwcTransformer, at level 99, then fails on."""
_WARNING, _FATAL = 2, 4
"""ONNX Runtime's severities of log messages; the first is its default."""
_PARAMETERS = r"\((?:[^()]|\([^()]*\))*\)"
_NOISE = (
    r"(?:\[ONNXRuntimeError\] : )?\b\d+ : [A-Z_]+ : "
    r"|Load model from (?s:.{1,4096}?) failed:"
    # file.cc:12 type name(parameters) [with T = type], by gcc and clang; file.cc:12 name, by MSVC
    r"|/[^\s:]{1,200}\.(?:cc|cpp|cu|h|hpp):\d+ "
    rf"[^()\n]{{0,300}}(?<=\S){_PARAMETERS}(?:[^() ]*{_PARAMETERS})*[^() ]*(?: const)?(?: \[with [^\]]*\])? "
    r"|\b[A-Z]:\\[^\s:]{1,200}\.(?:cc|cpp|cu|h|hpp):\d+ [\w:<>~]+ "
)
"""What ONNX Runtime's messages say to its own developers."""


@dataclass(frozen=True)
class Placement:
    """Where one node of an open session runs."""

    node: str
    op_type: str
    provider: str


@cache
def onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingDependencyError: it is not installed, or both of its wheels are, which overwrite each
            other's files.
    """
    try:
        module = importlib.import_module("onnxruntime")
        _ = module.InferenceSession  # a wheel that was half removed leaves an empty namespace
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"ONNX Runtime cannot be imported ({error}); pip install 'lstm-onnx[gpu]' brings it, or "
            "'lstm-onnx[cpu]' for a small one without CUDA"
        ) from error
    wheels = installed_wheels(os.path.dirname(module.__path__[0]))  # noqa: PTH120 - pathlib is slow to import
    if len(wheels) > 1:
        raise MissingDependencyError(
            f"{' and '.join(wheels)} are both installed and overwrite each other's files; "
            f"pip uninstall -y {' '.join(wheels)}, then pip install 'lstm-onnx[gpu]'"
        )
    return module


def installed_wheels(site_packages: str | os.PathLike[str]) -> list[str]:
    """Which of onnxruntime's wheels are in `site_packages`; a look at names, as importlib.metadata is slow."""
    known = {"onnxruntime", "onnxruntime_gpu", "onnxruntime_directml", "onnxruntime_openvino"}
    entries = os.listdir(site_packages)  # noqa: PTH208
    found = {entry.partition("-")[0] for entry in entries if entry.endswith(".dist-info")}
    return sorted(name.replace("_", "-") for name in found & known)


@cache
def ort_errors() -> tuple[type[Exception], ...]:
    """Every exception type that ONNX Runtime's binding raises; they share no base but Exception."""
    onnxruntime()
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def first_line(error: BaseException) -> str:
    """The message of an ONNX Runtime error without its codes, source lines, the file's path and later lines."""
    lines = re.sub(_NOISE, "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()


def open_session(
    model: str | os.PathLike[str] | bytes,
    provider: str = "auto",
    threads: int | None = None,
    *,
    spin: float = 0.0,
    cuda_graph: bool = False,
    folder: str | None = None,
    every_node: bool = True,
) -> tuple[Any, str]:
    """Open `model`, a path or the bytes of one, on `provider`.

    Args:
        model: an .onnx file, or its content.
        provider: "cpu"; "cuda", strictly; or "auto", CUDA where a GPU can be used and else CPU.
        threads: threads within an operator; None leaves the choice to ONNX Runtime, one a core.
        spin: seconds that a thread without work stays awake for the next; 0 lets it sleep at once.
        cuda_graph: let CUDA runs be captured as graphs and replayed.
        folder: of bytes, where their external data lies.
        every_node: of "cuda", refuse a model that has nodes elsewhere; False leaves the look at
            `placements` to the caller.

    Returns:
        The ``InferenceSession`` and "cpu" or "cuda".

    Raises:
        FileError: the file is missing, empty or a folder.
        ModelError: it is not a model, ONNX Runtime cannot run it, or memory ran out.
        ProviderError: the provider is unknown, is not there, or would not run every node.
        MissingDependencyError: no usable ONNX Runtime is installed, or one that cannot spin for a given time.
        InputError: `threads` is not a positive integer, or `spin` no time.
    """
    if not isinstance(provider, str) or provider not in PROVIDERS:
        said = provider if isinstance(provider, str) else shown(provider)
        raise ProviderError(f'provider "{said:.60}" is unknown; it must be one of {", ".join(PROVIDERS)}')
    if threads is not None:
        threads = integer("threads", threads, 1, _MAX_THREADS, "or None")
    spin = seconds("spin", spin, 1)
    if not isinstance(model, bytes):
        # ONNX Runtime looks for external data beside the path that it is given, and not beside a link's target.
        require_readable(model, "an .onnx file")
        model = os.path.realpath(model)
    ort = onnxruntime()
    if spin and _version(ort) < _SPINS:
        raise MissingDependencyError(
            f"spin needs ONNX Runtime {'.'.join(map(str, _SPINS))} or newer, and this is {ort.__version__}; "
            "pip install -U it, or leave spin out"
        )
    if provider == "cpu" or (provider == "auto" and cuda_unavailable() is not None):
        return _open(ort, model, [CPU], threads, spin=spin, folder=folder), "cpu"
    if provider == "cuda":
        reason = cuda_unavailable()
        if reason is not None:
            raise ProviderError(f"CUDA cannot be used: {reason}")
        session = _open(ort, model, [CUDA, CPU], threads, spin=spin, cuda_graph=cuda_graph, folder=folder)
        _prove_cuda(session, every_node=every_node)
        return session, "cuda"
    session = _open(ort, model, [CUDA, CPU], threads, spin=spin, cuda_graph=cuda_graph, folder=folder)
    if CUDA in session.get_providers():
        return session, "cuda"
    import logging

    log = logging.getLogger("lstm_onnx")
    log.warning("a GPU is there, but ONNX Runtime cannot use it and runs on the CPU: %s", _missing_library(ort))
    return session, "cpu"


def _open(
    ort: Any,
    model: str | bytes,
    providers: list[str],
    threads: int | None,
    *,
    spin: float = 0.0,
    cuda_graph: bool = False,
    folder: str | None = None,
) -> Any:
    sleep_if_ending()
    where = "the model" if isinstance(model, bytes) else model
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL  # failures come as exceptions, with the same words
    if threads is not None:
        options.intra_op_num_threads = threads
    # The CPU's arena keeps the largest shape that ever came, and with lengths that vary a third more than is in use;
    # without it runs took between 0.93 (a small step) and 1.015 of the time.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Spinning threads fight with those of the application: up to 50 times slower beside torch (onnxruntime 13808).
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    if spin:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(max(1, round(spin * 1e6))))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_MAX_FOLDED_BYTES))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    if CUDA in providers:
        _preload_cuda(ort)
    try:
        with _provider_told_below(ort, providers):
            chosen: list[Any] = [
                (name, {"enable_cuda_graph": "1"}) if cuda_graph and name == CUDA else name for name in providers
            ]
            return on_huge_pages(
                lambda: ort.InferenceSession(
                    model, options, providers=chosen, enable_fallback=0, disabled_optimizers=_FATAL_OPTIMIZERS
                )
            )
    except MemoryError as error:
        raise ModelError(f"{where}: ran out of memory while opening it") from error
    except ort_errors() as error:
        reason = first_line(error)
        if providers == [CPU] and "Could not find an implementation for" in reason:
            # What it does not say is that most operators have one, in float32.
            reason += '; its CPU provider lacks it in this dtype: export it as float32, or use provider "cuda"'
        raise ModelError(f"{where}: ONNX Runtime cannot open it: {reason}") from error


def _version(ort: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", ort.__version__)[:2])


@contextlib.contextmanager
def _provider_told_below(ort: Any, providers: list[str]) -> Iterator[None]:
    """A CUDA provider that fails to load is told by our own message, not by ONNX Runtime on stderr too."""
    if CUDA not in providers:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # The session's own severity does not reach the loader, and the default one cannot be asked for.
        ort.set_default_logger_severity(_FATAL)
        try:
            yield
        finally:
            ort.set_default_logger_severity(_WARNING)


def _preload_cuda(ort: Any) -> None:
    """Load CUDA's libraries from torch or from the nvidia wheels; it reports failures by printing."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
            ort.preload_dlls()


def placements(session: Any) -> list[Placement]:
    """Where each node of an open session runs, after ONNX Runtime's optimisations."""
    return [
        Placement(node.name, node.op_type, part.ep_name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


@cache
def operator_versions() -> Mapping[tuple[str, str], frozenset[int]]:
    """The operators that this ONNX Runtime knows, by domain ("" is ONNX's own) and name, and since which opsets.

    Empty where its build does not tell.
    """
    onnxruntime()
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found: dict[tuple[str, str], frozenset[int]] = {}
    for schema in getattr(state, "get_all_operator_schema", list)():
        key = (schema.domain, schema.name)
        found[key] = found.get(key, frozenset()) | {schema.since_version}
    return found


def off_cuda(placed: Iterable[Placement]) -> list[Placement]:
    """The nodes that compute and yet are not on CUDA."""
    return [item for item in placed if item.provider != CUDA and item.op_type not in CPU_SHAPE_OPS]


def _prove_cuda(session: Any, *, every_node: bool = True) -> None:
    if CUDA not in session.get_providers():
        raise ProviderError(f"CUDA cannot be used: {_missing_library(onnxruntime())}")
    elsewhere = off_cuda(placements(session)) if every_node else []
    if elsewhere:
        names = ", ".join(f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere[:5])
        raise ProviderError(
            f"CUDA has no kernel for {len(elsewhere)} of the model's nodes ({names}); export at opset 21 or "
            'below, or use provider "auto" to let them run on the CPU'
        )


def cuda_unavailable() -> str | None:
    """Why CUDA cannot be used here, and how to mend it; None where a GPU and its driver are there."""
    if CUDA not in onnxruntime().get_available_providers():
        return "this ONNX Runtime is built without it; pip uninstall -y onnxruntime, then pip install 'lstm-onnx[gpu]'"
    return _no_gpu()


@cache
def _no_gpu() -> str | None:
    """Ask the NVIDIA driver itself (CUDA driver API) whether it has a device."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f'no NVIDIA driver is installed ({name} cannot be opened); use provider "cpu", or install the driver'
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        hidden = " (CUDA_VISIBLE_DEVICES is set)" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
        return f'the NVIDIA driver reports no usable GPU{hidden}, CUDA status {status}; use provider "cpu"'
    return None


def _missing_library(ort: Any) -> str:
    """Load the provider's library by hand: the loader's own message names what it lacks."""
    from pathlib import Path

    folder = Path(ort.__path__[0]) / "capi"
    suffix = "dll" if sys.platform == "win32" else "so"
    stem = "onnxruntime_providers_{}." + suffix if sys.platform == "win32" else "libonnxruntime_providers_{}." + suffix
    try:
        ctypes.CDLL(str(folder / stem.format("shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / stem.format("cuda")))
    except OSError as error:
        return f"{error}; pip install 'lstm-onnx[cuda]' brings CUDA's libraries, and so does a CUDA build of torch"
    return "ONNX Runtime could not start its CUDA provider; its wheel and the driver may be for different CUDA versions"
