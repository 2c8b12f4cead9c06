"""What works on this machine, tested with a session on each execution provider, and what to install for the rest.

ONNX Runtime's list of providers says what it was compiled with.  So each one computes a step of a small LSTM, and the
result is compared with numpy's.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import LSTMOnnxError
from .runtime import providers
from .runtime.cpu import cpu_flags, int8_instructions
from .runtime.ort_messages import first_line
from .runtime.pool.pinned_threads import cores
from .terminal_text import safe_copy
from .version import installed_versions

_RUN = ("lstm-onnx", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu")
_EXPORT = ("torch", "onnxscript", "safetensors")
_SERVE = ("uvicorn", "httptools", "websockets", "grpcio", "protobuf", "prometheus-client", "uvloop")
PACKAGES = (*_RUN, *_EXPORT, "pyarrow", *_SERVE, "ray")
TOLERANCE = 1e-5
"""Maximum difference from numpy's result at which a provider works."""
_INSTALL = "pip install 'lstm-onnx[{}]'"


@dataclass(frozen=True)
class Capability:
    """A provider ("cpu" or "cuda") or a feature of lstm-onnx, and whether it works here.

    `detail` has a provider's accuracy, or the reason why something does not work and how to fix it; else it is "".
    """

    name: str
    works: bool
    detail: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What works on this machine; true if at least the CPU provider does.

    `cpu_count` counts the CPUs that this process may use; `packages` maps names to installed versions, and to None for
    packages that are not installed.
    """

    python: str
    platform: str
    cpu_count: int
    packages: dict[str, str | None]
    providers: tuple[Capability, ...]
    can: tuple[Capability, ...]

    def __bool__(self) -> bool:
        """Whether models run here."""
        return any(status.works for status in self.providers if status.name == "cpu")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the verdict as "ok"."""
        return {"ok": bool(self), **asdict(self)}

    def __str__(self) -> str:
        """Lists, as text."""
        return safe_copy(self)._lines()

    def _lines(self) -> str:
        lines = [f"Python {self.python} on {self.platform}, {self.cpu_count} CPUs", "", "packages"]
        wide = max(map(len, self.packages), default=0)
        lines += [f"  {name:{wide}}  {version or 'not installed'}" for name, version in self.packages.items()]
        for title, items in (("providers", self.providers), ("this machine can", self.can)):
            wide = max((len(item.name) for item in items), default=0)
            lines += ["", title]
            lines += [f"  {item.name:{wide}}  {_verdict(item.works, item.detail)}" for item in items]
        return "\n".join(lines)


def _verdict(works: bool, detail: str) -> str:
    return ("yes" if works else "no ") + (f"  {detail}" if detail else "")


def diagnose() -> Diagnosis:
    """List the installed packages, and run a step of an LSTM on each provider.

    Nothing that is missing is an error; the diagnosis has the command that installs it.
    """
    packages = _packages()
    cpu, cuda = _status("cpu"), _status("cuda")
    return Diagnosis(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=cores(),
        packages=packages,
        providers=(cpu, cuda),
        can=_capabilities(packages, cpu, cuda),
    )


def _packages() -> dict[str, str | None]:
    """Versions by distribution name, without importing the packages."""
    names = (*PACKAGES, *_other_wheels())
    versions = installed_versions(names)
    return {name: versions.get(name) for name in names}


def _other_wheels() -> list[str]:
    """Other distributions of ONNX Runtime in the folder that it is imported from."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    wheels = {wheel for folder in folders for wheel in providers.installed_wheels(Path(folder).parent)}
    return sorted(wheels - set(PACKAGES))


def _capabilities(packages: dict[str, str | None], cpu: Capability, cuda: Capability) -> tuple[Capability, ...]:
    def needs(name: str, *required: str, command: str) -> Capability:
        missing = [package for package in required if packages[package] is None]
        listed = " and ".join([", ".join(missing[:-1]), *missing[-1:]] if len(missing) > 1 else missing)
        return Capability(name, not missing, f"{listed} missing: {command}" if missing else "")

    verify = needs("verify against PyTorch", "torch", command=_INSTALL.format("torch"))
    if verify.works and not cpu.works:
        verify = Capability(verify.name, False, cpu.detail)
    # uvloop is not made for Windows.
    serve = [name for name in _SERVE if name != "uvloop" or sys.platform != "win32"]
    return (
        needs("export a .toml with safetensors weights", "onnx", "safetensors", command="pip install lstm-onnx"),
        needs("export a torch module", "onnx", "torch", "onnxscript", command=_INSTALL.format("torch")),
        verify,
        Capability("run on cpu", cpu.works, "" if cpu.works else cpu.detail),
        Capability("run on cuda", cuda.works, "" if cuda.works else cuda.detail),
        _int8(),
        needs("read and write parquet", "pyarrow", command=_INSTALL.format("parquet")),
        needs("serve over HTTP, gRPC and websockets", *serve, command=_INSTALL.format("serve")),
        needs("run on many machines with Ray", "ray", "pyarrow", *serve, command=_INSTALL.format("ray")),
    )


def _int8() -> Capability:
    fast, why = int8_instructions(cpu_flags())
    return Capability("run int8 files fast on cpu", fast is not False, why)


def _status(name: str) -> Capability:
    """Run the small LSTM on one provider."""
    feeds, expected = _known_step()
    try:
        model = _tiny_lstm(feeds)
        session, _ = providers.open_session(model, name)
    except LSTMOnnxError as error:
        return Capability(name, False, str(error))
    except ImportError as error:
        return Capability(name, False, f"onnx cannot be imported ({error}); pip install --force-reinstall onnx")
    try:
        results = session.run(["h", "c"], {key: feeds[key] for key in ("x", "h0", "c0")})
    except providers.ort_errors() as error:
        why = first_line(error)
        return Capability(name, False, f"opens a session but cannot run an LSTM: {why}; {_reinstall()}")
    difference = _difference(results, expected)
    if not difference <= TOLERANCE:
        problem = f"runs an LSTM, but its result is off by {difference:.3g} (at most {TOLERANCE:g} is allowed)"
        return Capability(name, False, f"{problem}; {_reinstall()}")
    return Capability(name, True, f"ran one LSTM step, within {difference:.1g} of numpy's result")


def _reinstall() -> str:
    return f"{_INSTALL.format('gpu')} --upgrade --force-reinstall"


def _difference(results: list[Any], expected: list[np.ndarray]) -> float:
    """The largest absolute difference; infinite if shapes differ or a value is not finite."""
    if [np.shape(array) for array in results] != [array.shape for array in expected]:
        return float("inf")
    difference = float(np.max([np.max(np.abs(a - b)) for a, b in zip(results, expected, strict=True)]))
    return difference if np.isfinite(difference) else float("inf")


def _known_step() -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The inputs and weights of one step, and the expected [h, c].

    I = 3 input features, H = 2, batch 2.  Every value is a small multiple of 1/8, so TF32 on a GPU, which keeps 10 bits
    of each factor, multiplies them exactly.
    """

    def eighths(*shape: int, start: int) -> np.ndarray:
        numbers = (np.arange(np.prod(shape)) * 5 + start) % 17 - 8
        return (numbers / 8).astype(np.float32).reshape(shape)

    feeds = {
        "x": eighths(1, 2, 3, start=1),
        "W": eighths(1, 8, 3, start=2),
        "R": eighths(1, 8, 2, start=3),
        "B": eighths(1, 16, start=4),
        "h0": eighths(1, 2, 2, start=6),
        "c0": eighths(1, 2, 2, start=7),
    }
    x, w, r, b, h0, c0 = (feeds[name][0].astype(np.float64) for name in ("x", "W", "R", "B", "h0", "c0"))
    gates = x @ w.T + h0 @ r.T + b[:8] + b[8:]
    i, o, f, g = np.split(gates, 4, axis=1)  # ONNX's order: input, output, forget, cell
    c = _sigmoid(f) * c0 + _sigmoid(i) * np.tanh(g)
    h = _sigmoid(o) * np.tanh(c)
    return feeds, [h[np.newaxis], c[np.newaxis]]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _tiny_lstm(feeds: dict[str, np.ndarray]) -> bytes:
    """The step as a serialized ONNX model: inputs x, h0 and c0, outputs h and c."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("LSTM", ["x", "W", "R", "B", "", "h0", "c0"], ["", "h", "c"], name="LSTM", hidden_size=2)
    graph = helper.make_graph(
        [node],
        "doctor",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, feeds[name].shape) for name in ("x", "h0", "c0")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2, 2)) for name in ("h", "c")],
        [numpy_helper.from_array(feeds[name], name) for name in ("W", "R", "B")],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    return bytes(model.SerializeToString())
