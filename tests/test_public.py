"""The public surface: what it holds, and that every error in it is one of ours."""

from __future__ import annotations

import importlib
import inspect

import pytest

import lstm_onnx
from lstm_onnx import errors
from lstm_onnx.runtime.providers import ort_errors

PUBLIC = [
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
OWN_ERRORS = [value for value in vars(errors).values() if inspect.isclass(value)]


def test_the_public_names():
    assert lstm_onnx.__all__ == PUBLIC
    assert dir(lstm_onnx) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_resolves_to_its_own(name: str):
    value = getattr(lstm_onnx, name)
    assert name == "__version__" or value.__name__ == name
    assert name == "__version__" or value.__module__.startswith("lstm_onnx.")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lstm_onnx' has no attribute 'quantize'"):
        lstm_onnx.quantize  # noqa: B018
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
