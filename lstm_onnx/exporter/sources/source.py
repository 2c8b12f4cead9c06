"""SOURCE on the command line: a models/*.toml, or ``package.module:callable``."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, ExportError, FileError, LSTMOnnxError, WeightsError
from ...input_spec import InputSpec
from ...spec import ExportOptions, LSTMSpec
from ..bare_lstm import export_lstm
from ..weights import Array, validate_state_dict
from ..write import ExportResult
from .checkpoint import import_torch, load_state_dict
from .config import LSTMConfig, ModuleConfig, WeightsSource, flat_inputs, load_config
from .torch_lstm import check_sizes, module_of, seeded_state, spec_of, state_of

if TYPE_CHECKING:
    from torch import nn

    from ..tracing.arguments import Arguments


@dataclass(frozen=True)
class LSTMSource:
    """A bare nn.LSTM to export or to verify: its sizes, its parameters, and how it is written."""

    name: str
    spec: LSTMSpec
    state: dict[str, Array]
    options: ExportOptions

    def module(self) -> nn.LSTM:
        """The PyTorch module, in eval mode."""
        return module_of(self.spec, self.state)

    def export(self, path: str | os.PathLike[str], *, check: bool = True) -> ExportResult:  # noqa: ARG002
        """Write it; the graph is written directly, so there is nothing to try out.

        Raises:
            LSTMOnnxError: see `export_lstm`.
        """
        return export_lstm(self.spec, self.options, self.state, path)

    def with_options(self, *, states: str | None = None, **changes: Any) -> LSTMSource:
        """The same model under other `ExportOptions`; None leaves one as it is.

        Raises:
            ConfigError: an option is not possible.
        """
        if states == "zero":
            raise ConfigError("a bare nn.LSTM always has its states as inputs; leave states out")
        return dataclasses.replace(self, options=_changed(self.options, changes))


@dataclass(frozen=True)
class ModuleSource:
    """Any module to export or to verify: what it is called with, and how it is written.

    `inputs` describes what its forward takes, and `limits` the sizes of its axes; where `inputs` is
    empty, `example` shows both.
    """

    name: str
    held: nn.Module
    inputs: tuple[InputSpec, ...]
    options: ExportOptions
    states: str = "zero"
    outputs: tuple[str, ...] | None = None
    example: Arguments | None = None
    limits: Mapping[str, tuple[int, int | None]] = dataclasses.field(default_factory=dict)

    def module(self) -> nn.Module:
        """The PyTorch module."""
        return self.held

    def export(self, path: str | os.PathLike[str], *, check: bool = True) -> ExportResult:
        """Trace it and write it.

        Raises:
            LSTMOnnxError: see `export_module`.
        """
        from ..module import ModuleOptions, export_module
        from ..tracing.example_inputs import find_example_inputs

        arguments = self.example or find_example_inputs(self.held, self.inputs, limits=self.limits)
        options = ModuleOptions(self.options, self.states, self.outputs, self.inputs or None, check)
        return export_module(self.held, arguments, options, path)

    def with_options(self, *, states: str | None = None, **changes: Any) -> ModuleSource:
        """The same model under other options; None leaves one as it is.

        Raises:
            ConfigError: an option is not possible.
        """
        if changes.get("lengths") is not None:
            raise ConfigError(f"{self.name}: lengths are for a bare nn.LSTM; a module's are inputs of its own")
        return dataclasses.replace(self, options=_changed(self.options, changes), states=states or self.states)


Source = LSTMSource | ModuleSource


def _changed(options: ExportOptions, changes: dict[str, Any]) -> ExportOptions:
    return dataclasses.replace(options, **{name: value for name, value in changes.items() if value is not None})


def load_source(source: str) -> Source:
    """Read SOURCE.  A bare LSTM's .toml with safetensors weights needs no torch.

    Raises:
        ConfigError: SOURCE is neither, or the .toml is wrong.
        WeightsError: the weights cannot be read or do not fit.
        ExportError: the callable cannot be imported, or gives something that cannot be exported.
    """
    if source.lower().endswith(".toml"):
        config = load_config(source)
        return _lstm_source(source, config) if isinstance(config, LSTMConfig) else _module_source(source, config)
    if ":" in source and not os.path.exists(source):  # noqa: PTH110 - SOURCE is only perhaps a path
        return _from_callable(source)
    raise ConfigError(f"{source}: is not a model's .toml, nor package.module:callable")


def source_files(source: str) -> list[str | os.PathLike[str]]:
    """The files that SOURCE is read from, none of which may be written over; a package's are not looked for.

    Raises:
        ConfigError, FileError: SOURCE is a .toml that is wrong, or cannot be read.
    """
    if not source.lower().endswith(".toml"):
        return []
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
        raise ConfigError(f"{path}: [lstm] {error}") from error
    state = validate_state_dict(spec, load_state_dict(weights.file, weights.prefix), where=_where(weights, path))
    return LSTMSource(path, spec, state, config.options)


def _where(weights: WeightsSource, path: str) -> str:
    if weights.prefix:
        return f"{weights.file} (prefix {weights.prefix!r}, for {path})"
    return f"{weights.file} (for {path})"


def _module_source(path: str, config: ModuleConfig) -> ModuleSource:
    torch = import_torch(f"{path} describes a module")
    where = f"{path}: [module] factory {config.factory}"
    namespace = _from_file(config.file, where) if config.file else _imported(str(config.package), where)
    factory = _attribute(namespace, config.callable, where)
    if not callable(factory):
        raise ExportError(f"{where} is a {type(factory).__name__}; it must be a callable that gives an nn.Module")
    weights = config.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed if weights and weights.seed is not None else 0)
        made = _call(factory, where, dict(config.args))
    if not isinstance(made, torch.nn.Module):
        raise ExportError(f"{where} gives a {type(made).__name__}; it must give an nn.Module")
    if weights is not None and weights.file is not None:
        _load_weights(made, weights, path)
    inputs = flat_inputs(config.inputs)
    return ModuleSource(path, made, inputs, config.options, config.states, config.outputs, limits=config.limits)


def _load_weights(module: nn.Module, weights: WeightsSource, path: str) -> None:
    import torch

    assert weights.file is not None  # noqa: S101 - the caller's condition
    arrays = load_state_dict(weights.file, weights.prefix, any_module=True)
    wanted = module.state_dict()
    problems = [f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in arrays]
    problems += [f"unexpected {name} {arrays[name].shape}" for name in arrays if name not in wanted]
    problems += [
        f"{name} is {arrays[name].shape} where the module has {tuple(wanted[name].shape)}"
        for name in wanted
        if name in arrays and tuple(wanted[name].shape) != arrays[name].shape
    ]
    if problems:
        raise WeightsError(f"{_where(weights, path)}: the weights do not fit the module: {'; '.join(problems[:8])}")
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})


def _from_file(file: Path, where: str) -> Any:
    """The namespace of a Python file, which can import its neighbours while it is loaded."""
    if not file.is_file():
        raise FileError(f"{where}: {file} is not there")
    name = f"_lstm_onnx_source_{hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101 - it ends in .py
    assert spec.loader is not None  # noqa: S101
    namespace = importlib.util.module_from_spec(spec)
    sys.modules[name] = namespace
    sys.path.insert(0, str(file.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(namespace)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ExportError(f"{where}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    return namespace


def _imported(package: str, where: str) -> Any:
    # As `python -m` does: a module in the folder where the command is run can be named.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for our own results
            return importlib.import_module(package)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ExportError(f"{where}: {package} cannot be imported: {reason}") from error


def _attribute(namespace: Any, path: str, where: str) -> Any:
    value = namespace
    for part in path.split("."):
        if not hasattr(value, part):
            raise ExportError(f"{where}: {namespace.__name__} has no {path!r}")
        value = getattr(value, part)
    return value


def _from_callable(source: str) -> Source:
    module_name, _, attribute = source.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ExportError(f"{source}: is not package.module:callable")
    value = _attribute(_imported(module_name, source), attribute, source)
    if not callable(value):
        raise ExportError(
            f"{source}: {attribute} is a {type(value).__name__}; it must be a callable that gives an nn.LSTM, "
            "or a module together with its example inputs"
        )
    made = _call(value, source, {})
    nn = import_torch(f"{source} needs it").nn
    if isinstance(made, nn.LSTM) and type(made).forward is nn.LSTM.forward:
        spec = spec_of(made)
        return LSTMSource(source, spec, state_of(made, spec), ExportOptions())
    return _with_example(source, made)


def _with_example(source: str, made: Any) -> ModuleSource:
    """``(module, example_inputs)`` or ``(module, example_inputs, dynamic_shapes)`` from a callable."""
    nn = import_torch(f"{source} needs it").nn
    if not isinstance(made, tuple) or not 2 <= len(made) <= 3 or not isinstance(made[0], nn.Module):
        what = type(made).__name__
        raise ExportError(
            f"{source}: gives a {what}; of a module that is more than an nn.LSTM it must give "
            "(module, example_inputs) or (module, example_inputs, dynamic_shapes), or describe it in a .toml"
        )
    from ..tracing.arguments import bind_arguments

    found = bind_arguments(made[0], made[1], made[2] if len(made) > 2 else None, where=f"{source}: example_inputs")
    return ModuleSource(source, made[0], (), ExportOptions(), example=found)


def _call(factory: Any, source: str, keywords: dict[str, Any]) -> Any:
    nn = import_torch(f"{source} needs it").nn
    if isinstance(factory, nn.Module):
        return factory  # a module is callable too, but it is what was asked for
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return factory(**keywords)
    except LSTMOnnxError:
        raise
    except (Exception, SystemExit) as error:
        raise ExportError(f"{source}: the callable raised {type(error).__name__}: {error}") from error
