"""SOURCE on the command line: a models/*.toml, ``package.module:callable`` or ``file.py:callable``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, ExportError, LSTMOnnxError, WeightsError
from ...input_spec import InputSpec
from ...onnxgraph.write import require_model_path
from ...spec import ExportOptions, LSTMSpec
from ..bare_lstm import export_lstm
from ..dependencies import import_torch, require_tracer
from ..module_options import ModuleOptions, changed_options
from ..result import ExportResult
from ..weights import Array, cast_state_dict, validate_state_dict
from .callables import attribute_of, import_file, import_package
from .checkpoint import load_state_dict, tensor_names
from .checkpoint_names import lstm_prefixes
from .config import WEIGHT_SUFFIXES, LSTMConfig, ModuleConfig, WeightsSource, flat_inputs, load_config
from .module_argument import is_unknown, not_a_module, unwrap_module
from .torch_lstm import check_sizes, is_bare_lstm, module_of, require_lstm_options, seeded_state, spec_of, state_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..call.arguments import Arguments


@dataclass(frozen=True)
class LSTMSource:
    """A bare nn.LSTM to export or to verify.

    Attributes:
        name: SOURCE.
        spec: its sizes.
        state: its parameters by torch's names, of the spec's dtype.
        options: how it is written.
    """

    name: str
    spec: LSTMSpec
    state: dict[str, Array]
    options: ExportOptions

    def module(self) -> nn.LSTM:
        """The PyTorch module, in eval mode."""
        return module_of(self.spec, self.state)

    def export(self, path: str | os.PathLike[str], *, check: bool = True) -> ExportResult:  # noqa: ARG002
        """Write it to `path`; without a trace there is nothing to check.

        Raises:
            LSTMOnnxError: see `export_lstm`.
        """
        computed = self.computed()
        return export_lstm(computed.spec, self.options, computed.state, path)

    def computed(self) -> LSTMSource:
        """The same model in the dtype that its precision is computed in."""
        if self.options.dtype in (None, self.spec.dtype):
            return self
        spec = dataclasses.replace(self.spec, dtype=self.options.dtype)
        return dataclasses.replace(self, spec=spec, state=validate_state_dict(spec, self.state, where=self.name))

    def with_options(
        self, *, states: str | None = None, max_delay: int | None = None, chunk: int | None = None, **changes: Any
    ) -> LSTMSource:
        """The same model under other `ExportOptions`; None leaves one as it is.

        Raises:
            ConfigError: an option is not possible.
        """
        require_lstm_options(states, max_delay, chunk)
        return dataclasses.replace(self, options=changed_options(self.options, changes))


@dataclass(frozen=True)
class ModuleSource:
    """Any module to export or to verify.

    Attributes:
        name: SOURCE.
        nn_module: the module.
        inputs: the forward's inputs; empty where there is an `example`.
        options: how it is exported.
        example: example inputs; None where `inputs` describes them.
        limits: the sizes that axes may have, by name; None where there is no largest.
    """

    name: str
    nn_module: nn.Module
    inputs: tuple[InputSpec, ...]
    options: ModuleOptions = dataclasses.field(default_factory=ModuleOptions)
    example: Arguments | None = None
    limits: Mapping[str, tuple[int, int | None]] = dataclasses.field(default_factory=dict)

    def module(self) -> nn.Module:
        """The PyTorch module."""
        return self.nn_module

    def export(self, path: str | os.PathLike[str], *, check: bool = True) -> ExportResult:
        """Trace it and write it to `path`.

        Raises:
            LSTMOnnxError: see `export_module`.
        """
        require_model_path(path)
        require_tracer()
        from ..functional.example_inputs import find_example_inputs
        from ..module import export_module
        from ..precision import copy_explained

        source = self.computed()
        with copy_explained(self.nn_module, source.nn_module, self.options.export):
            arguments = source.example or find_example_inputs(source.nn_module, source.inputs, limits=source.limits)
            options = dataclasses.replace(source.options, input_specs=source.inputs or None, check=check)
            return export_module(source.nn_module, arguments, options, path)

    def computed(self) -> ModuleSource:
        """The same model, with its floating-point inputs, in the dtype that its precision is computed in."""
        dtype = self.options.export.dtype
        if dtype is None:
            return self
        from ..precision import arguments_in_dtype, module_in_dtype

        inputs = tuple(
            dataclasses.replace(spec, dtype=dtype) if np.dtype(spec.dtype).kind == "f" else spec for spec in self.inputs
        )
        example = None if self.example is None else arguments_in_dtype(self.example, dtype)
        module = module_in_dtype(self.nn_module, dtype)
        return dataclasses.replace(self, nn_module=module, inputs=inputs, example=example)

    def with_options(self, **changes: Any) -> ModuleSource:
        """The same model under other `ModuleOptions` and `ExportOptions`; None leaves one as it is.

        Raises:
            ConfigError: an option is not possible.
        """
        if changes.get("lengths") is not None:
            raise ConfigError(f"{self.name}: lengths are for a bare nn.LSTM; a module's are inputs of its own")
        return dataclasses.replace(self, options=self.options.changed(**changes))


Source = LSTMSource | ModuleSource


def load_source(source: str) -> Source:
    """Read SOURCE.  A bare LSTM's .toml with safetensors weights needs no torch.

    Args:
        source: a model's .toml, ``package.module:callable`` or ``file.py:callable``.

    Raises:
        ConfigError: SOURCE is none of these, or the .toml is wrong.
        FileError: a file is missing.
        WeightsError: the weights cannot be read or do not fit.
        ExportError: the callable cannot be imported, or returns something that cannot be exported.
        MissingDependencyError: torch is not installed, and is needed.
    """
    if source.lower().endswith(".toml"):
        config = load_config(source)
        return _lstm_source(source, config) if isinstance(config, LSTMConfig) else _module_source(source, config)
    if ":" in source and not os.path.exists(source):  # noqa: PTH110 - SOURCE is only perhaps a path
        return _from_callable(source)
    raise not_a_source(source)


def source_files(source: str) -> list[str | os.PathLike[str]]:
    """The files that SOURCE is read from, which must not be overwritten; those of a package are not included.

    Raises:
        ConfigError, FileError: SOURCE is a .toml that is wrong, or cannot be read.
    """
    if not source.lower().endswith(".toml"):
        file, _ = _python_file(source)
        return [] if file is None else [file]
    config = load_config(source)
    files = [config.weights.file if config.weights else None, config.file if isinstance(config, ModuleConfig) else None]
    return [source, *(file for file in files if file is not None)]


def _lstm_source(path: str, config: LSTMConfig) -> LSTMSource:
    spec, weights = config.spec, config.weights
    try:
        check_sizes(spec)
        if weights.file is None:
            return LSTMSource(path, spec, seeded_state(spec, weights.seed or 0), config.options)
    except ConfigError as error:
        raise ConfigError(f"{path}: [lstm] {error}") from None
    state = validate_state_dict(spec, load_state_dict(weights.file, weights.prefix), where=_where(weights, path))
    return LSTMSource(path, spec, state, config.options)


def _where(weights: WeightsSource, path: str) -> str:
    if weights.prefix:
        return f"{weights.file} (prefix {weights.prefix!r}, for {path})"
    return f"{weights.file} (for {path})"


def _module_source(path: str, config: ModuleConfig) -> ModuleSource:
    torch = import_torch(f"{path} describes a module")
    where = f"{path}: [module] factory {config.factory}"
    namespace = import_file(config.file, where) if config.file else import_package(str(config.package), where)
    factory = attribute_of(namespace, config.callable, where)
    if not callable(factory):
        what = f" is a {type(factory).__name__}" if is_unknown(factory) else f": {not_a_module(factory)}"
        raise ExportError(f"{where}{what}; it must be a callable that returns an nn.Module")
    weights = config.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed if weights and weights.seed is not None else 0)
        module = _call(factory, where, dict(config.args))
    module = _unwrapped(module, where)
    if weights is not None and weights.file is not None:
        _load_weights(module, weights, path)
    module.eval()  # it was made for this export, so nobody else can put it into eval mode
    return ModuleSource(path, module, flat_inputs(config.inputs), config.options, limits=config.limits)


def _unwrapped(module: Any, where: str) -> nn.Module:
    try:
        unwrapped: nn.Module = unwrap_module(module)
    except ExportError as error:
        text = f"{where} returns a {type(module).__name__}; it must return an nn.Module"
        raise ExportError(text if is_unknown(module) else f"{where}: {error}") from None
    return unwrapped


def _load_weights(module: nn.Module, weights: WeightsSource, path: str) -> None:
    import torch

    assert weights.file is not None  # noqa: S101 - the caller's condition
    own = module.state_dict()
    other = next((name for name, value in own.items() if not isinstance(value, torch.Tensor)), None)
    if other is not None:  # get_extra_state
        raise WeightsError(
            f"{path}: {other} of the module's state dict is not a tensor, and only tensors are read from a file of "
            f"weights; load it in the factory, and leave [weights] out"
        )
    expected = {name: (tuple(tensor.shape), _numpy_dtype(tensor.dtype)) for name, tensor in own.items()}
    arrays = load_state_dict(weights.file, weights.prefix, module_names=expected)
    state = cast_state_dict(expected, arrays, _where(weights, path))
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    name = str(dtype).removeprefix("torch.")
    return np.dtype(name if name in np.sctypeDict else "float32")  # which has the range of bfloat16


def _python_file(source: str) -> tuple[Path | None, str]:
    """The file and the callable of ``file.py:callable``; None where SOURCE is something else."""
    place, _, attribute = source.rpartition(":")  # the last colon: a path on Windows has one of its own
    return (Path(place) if place.lower().endswith(".py") else None), attribute


def _from_callable(source: str) -> Source:
    file, attribute = _python_file(source)
    package = source.rpartition(":")[0]
    if not all(part.isidentifier() for part in (*([] if file else package.split(".")), *attribute.split("."))):
        raise ExportError(f"{source}: is not package.module:callable or file.py:callable")
    namespace = import_file(file, source) if file is not None else import_package(package, source)
    value = attribute_of(namespace, attribute, source)
    if not callable(value):
        what = f"{attribute} is a {type(value).__name__}" if is_unknown(value) else not_a_module(value)
        raise ExportError(
            f"{source}: {what}; it must be a callable that returns an nn.LSTM, or a module together with its example "
            "inputs"
        )
    made = _call(value, source, {})
    nn = import_torch(f"{source} needs it").nn
    if isinstance(made, tuple) and made:
        made = (_unwrapped(made[0], source), *made[1:])
    elif isinstance(made, nn.Module) or not is_unknown(made):
        made = _unwrapped(made, source)
    if isinstance(made, nn.Module) and is_bare_lstm(made):
        spec = spec_of(made)
        return LSTMSource(source, spec, state_of(made, spec), ExportOptions())
    return _with_example(source, made)


def _with_example(source: str, made: Any) -> ModuleSource:
    """``(module, example_inputs)`` or ``(module, example_inputs, dynamic_shapes)`` from a callable."""
    nn = import_torch(f"{source} needs it").nn
    example = getattr(made, "example_input_array", None)  # Lightning's name for it
    if isinstance(made, nn.Module) and example is not None:
        made = (made, example)
    if not isinstance(made, tuple) or not 2 <= len(made) <= 3 or not isinstance(made[0], nn.Module):
        what = type(made).__name__
        raise ExportError(
            f"{source}: returns a {what}; for a module that is more than an nn.LSTM, return (module, example_inputs) "
            "or (module, example_inputs, dynamic_shapes); or give the module an attribute example_input_array, or "
            "describe it in a .toml"
        )
    require_tracer()
    from ..call.arguments import bind_arguments

    found = bind_arguments(made[0], made[1], made[2] if len(made) > 2 else None, where=f"{source}: example_inputs")
    return ModuleSource(source, made[0], (), example=found)


def _call(factory: Any, source: str, keywords: dict[str, Any]) -> Any:
    torch = import_torch(f"{source} needs it")
    from ..user_code import error_line

    nn = torch.nn
    if isinstance(factory, (nn.Module, torch.export.ExportedProgram)):
        return factory  # these are callable, too
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return factory(**keywords)
    except LSTMOnnxError:
        raise
    except (Exception, SystemExit) as error:
        line = error_line(error)
        where = f" (at {line})" if line else ""
        raise ExportError(f"{source}: the callable raised {type(error).__name__}: {error}{where}") from error


_KINDS = "a model's .toml, package.module:callable or file.py:callable"


def not_a_source(source: str) -> LSTMOnnxError:
    """The error for a SOURCE that is none of what it can be."""
    lower = Path(source).name.lower()
    if not os.path.isfile(source):  # noqa: PTH113 - False for a name that no file can have
        missing = ", and no such file exists" if Path(source).suffix and not os.path.exists(source) else ""  # noqa: PTH110
        return ConfigError(f"{source}: is not {_KINDS}{missing}")
    if lower.endswith((".onnx", ".ort")):
        return ConfigError(
            f"{source}: is an ONNX file already; SOURCE is the PyTorch side, {_KINDS} (lstm-onnx check and inspect "
            "read .onnx files)"
        )
    if lower.endswith(".py"):
        return ConfigError(f"{source}: name the callable in it that returns the module as well, {source}:make")
    if lower.endswith(".pt2"):
        return ConfigError(f"{source}: is an ExportedProgram, which has no module to trace; SOURCE is {_KINDS}")
    if lower.endswith((".h5", ".hdf5", ".keras", ".pb", ".tflite")):
        return ConfigError(
            f"{source}: is TensorFlow's; convert it with tf2onnx, and its .onnx file with lstm-onnx repair"
        )
    if lower.endswith(WEIGHT_SUFFIXES):
        return _weights(source)
    return ConfigError(f"{source}: is not {_KINDS}")


def _weights(source: str) -> LSTMOnnxError:
    try:
        names = tensor_names(source)
    except WeightsError as error:
        return error
    return ConfigError(
        f"{source}: holds weights and no module ({lstm_prefixes(names)}); describe the module in a .toml, with "
        f'[lstm] and its sizes (or [module]) and [weights] file = "{Path(source).name}"'
    )
