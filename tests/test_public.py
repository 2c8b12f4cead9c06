"""The public surface: what it holds, and that every error in it is one of ours."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx import errors
from lstm_onnx.runtime import load
from lstm_onnx.runtime.providers import ort_errors
from lstm_onnx.spec import ExportOptions

from .runtime.models import exported

PUBLIC = [
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
PACKAGES = {"check", "inspect"}
"""Those that are called as functions."""
OWN_ERRORS = [value for value in vars(errors).values() if inspect.isclass(value)]


def test_the_public_names():
    assert lstm_onnx.__all__ == PUBLIC
    assert dir(lstm_onnx) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_resolves_to_its_own(name: str):
    value = getattr(lstm_onnx, name)
    own = {"__version__": name, **{package: f"lstm_onnx.{package}" for package in PACKAGES}}
    assert name == "__version__" or value.__name__ == own.get(name, name)
    assert name in own or value.__module__.startswith("lstm_onnx.")


def fresh(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_else_is_in_the_namespace():
    code = """
import types, lstm_onnx
for name in lstm_onnx.__all__:
    getattr(lstm_onnx, name)
found = [
    name
    for name, value in vars(lstm_onnx).items()
    if not name.startswith("_") and not (isinstance(value, types.ModuleType) and not callable(value))
]
print(*sorted({*found, "__version__"} - {"TYPE_CHECKING"}))
"""
    assert fresh(code).split() == PUBLIC


WITHOUT_TORCH = "import sys; sys.modules.update(torch=None, onnxscript=None, onnx_ir=None)\n"


def test_without_torch_every_name_is_there_and_can_be_explained():
    code = """
import inspect, pydoc, lstm_onnx
assert all(hasattr(lstm_onnx, name) for name in dir(lstm_onnx))
assert {name for name, _ in inspect.getmembers(lstm_onnx)} >= set(lstm_onnx.__all__)
text = pydoc.render_doc(lstm_onnx, renderer=pydoc.plaintext)
assert "verify(" in text and "class Model" in text
print(*inspect.signature(lstm_onnx.verify).parameters)
"""
    assert fresh(WITHOUT_TORCH + code).split()[:2] == ["module", "path"]


@pytest.mark.parametrize("call", ["verify(None, 'm.onnx')", "export(None, 'm.onnx')", "scan(None, None, None)"])
def test_without_torch_the_call_says_so(call: str, tmp_path: Path):
    code = f"""
import os, lstm_onnx
os.chdir(sys.argv[1])
try:
    lstm_onnx.{call}
except lstm_onnx.MissingDependencyError as error:
    print(error)
"""
    assert "pip install" in fresh(WITHOUT_TORCH + code, str(tmp_path))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("package", sorted(PACKAGES))
@pytest.mark.parametrize("first", ["package", "function"])
def test_a_package_is_its_function_whatever_is_imported_first(package: str, first: str, tmp_path: Path):
    exported(tmp_path / "m.onnx")
    package_first = f"import lstm_onnx.{package}.report\n" if first == "package" else ""
    code = f"""
import sys
{package_first}import lstm_onnx, inspect
one = lstm_onnx.{package}
result = one(sys.argv[1])
import lstm_onnx.{package}.report as module
assert lstm_onnx.{package} is one and lstm_onnx.{package}.report is module
assert next(iter(inspect.signature(one).parameters)) == "path"
print(type(result).__name__)
"""
    expected = {"check": "CheckReport", "inspect": "Inspection"}
    assert fresh(code, str(tmp_path / "m.onnx")).split() == [expected[package]]


def test_map_has_a_real_signature():
    assert list(inspect.signature(lstm_onnx.Model.map).parameters) == [
        "self",
        "sequences",
        "workers",
        "look_ahead",
        "batch",
        "progress",
    ]


def test_every_repr_is_one_line(tmp_path: Path):
    result = lstm_onnx.export(torch.nn.LSTM(4, 5), tmp_path / "m.onnx")
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as model:
        pool = model.pool(2)
        with lstm_onnx.Batcher(pool) as batcher, batcher.open() as stream:
            objects = [model, model.stream(), pool, pool.open(), batcher, stream, result, model.inputs["h0"]]
            texts = [repr(item) for item in objects]
        assert all("\n" not in text and len(text) < 1000 for text in texts)
        assert "batch 1, states c0 (1, 1, 5), h0 (1, 1, 5)" in texts[1]
        assert re.search(r"<BatchedStream of .*m\.onnx: slot \d, 0 requests waiting>", texts[5])
        assert repr(stream).endswith("closed>")
    assert "on cpu, closed: input float32" in repr(model)


def test_reports_of_files_are_one_line_however_much_they_hold(tmp_path: Path):
    path = tmp_path / "m.onnx"
    module = torch.nn.LSTM(4, 5)
    lstm_onnx.export(module, path)
    assert repr(lstm_onnx.check(path)) == f"<CheckReport {path}: passed on cpu>"
    assert repr(lstm_onnx.inspect(path)) == f"<Inspection {path}: 1 LSTM; 220 parameters, 880 bytes>"
    worst = lstm_onnx.verify(module, path, mutants="none").worst
    assert all(len(repr(tensor)) < 300 for _, tensor in worst.values())


def test_a_model_in_a_notebook_is_a_table_without_markup_of_the_file(tmp_path: Path):
    exported(tmp_path / "<b>.onnx")
    text = load(tmp_path / "<b>.onnx", "cpu")._repr_html_()
    assert "<b>" not in text
    assert "&lt;b&gt;.onnx on cpu" in text
    assert "<td>h0</td><td>float32</td><td>(1, batch, 5)</td><td>state</td>" in text
    assert "<td>hn</td><td>float32</td><td>(1, batch, 5)</td><td>feeds h0</td>" in text


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lstm_onnx' has no attribute 'serve'"):
        lstm_onnx.serve  # noqa: B018
    assert not hasattr(lstm_onnx, "np")


def test_every_error_is_public():
    assert {cls.__name__ for cls in OWN_ERRORS} == {name for name in PUBLIC if name.endswith("Error")}


@pytest.mark.parametrize("cls", OWN_ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_has_the_root_and_exit_code_2(cls: type[errors.LSTMOnnxError]):
    assert issubclass(cls, errors.LSTMOnnxError)
    assert cls.exit_code == 2
    assert inspect.getdoc(cls)


def test_errors_are_what_python_would_raise():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.MissingDependencyError, ImportError)


def test_every_error_of_onnx_runtime_is_mapped():
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    theirs = {value for _, value in inspect.getmembers(state, inspect.isclass) if issubclass(value, BaseException)}
    assert {"Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented"} <= {
        cls.__name__ for cls in theirs
    }
    assert theirs <= set(ort_errors())


def test_errors_carry_data_and_the_message_is_complete():
    error = errors.InputError("lengths[2] is 9", path="m.onnx", hint="it must be 6 or less", name="lengths", index=2)
    assert str(error) == "m.onnx: lengths[2] is 9; it must be 6 or less"
    assert error.reason == "lengths[2] is 9; it must be 6 or less"
    assert (error.message, error.path, error.hint) == ("lengths[2] is 9", "m.onnx", "it must be 6 or less")
    assert (error.name, error.index) == ("lengths", 2)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.data()) == (str(error), error.data())
    plain = errors.ModelError("no path")
    assert (str(plain), plain.path, plain.hint, plain.name, plain.index) == ("no path", None, None, None, None)


@pytest.mark.parametrize("cls", OWN_ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_takes_the_data(cls: type[errors.LSTMOnnxError]):
    error = cls("is wrong", path=Path("a.onnx"), hint="mend it", name="x", index=(1, 2))
    assert str(error) == "a.onnx: is wrong; mend it"
    assert error.data() == {"path": "a.onnx", "hint": "mend it", "name": "x", "index": [1, 2]}


def test_the_runtime_s_errors_carry_data(tmp_path: Path):
    exported(tmp_path / "m.onnx", options=ExportOptions(lengths=True))
    model = load(tmp_path / "m.onnx", "cpu")
    x = np.zeros((6, 2, 4), np.float32)
    with pytest.raises(errors.InputError) as caught:
        model(x, lengths=[3, 7])
    assert (caught.value.name, caught.value.index) == ("lengths", 1)
    with pytest.raises(errors.InputError) as caught:
        list(model.map([x[:, 0], x[:, 0], x[:0, 0]]))
    assert (caught.value.name, caught.value.index) == ("input", 2)
    assert isinstance(caught.value.__cause__, errors.InputError)
    model.close()
    with pytest.raises(errors.RunError) as caught:
        model(x)
    assert (caught.value.path, caught.value.message) == (model.path, "is closed")
    with pytest.raises(errors.FileError) as caught:
        load(tmp_path / "none.onnx")
    assert caught.value.hint == "expected an .onnx file"
