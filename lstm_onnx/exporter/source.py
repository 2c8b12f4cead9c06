"""SOURCE on the command line: a models/*.toml, or ``package.module:callable``."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import load_config
from ..errors import ConfigError, ExportError, LSTMOnnxError
from ..spec import ExportOptions, LSTMSpec
from ..weights import Array, fitted
from .checkpoint import import_torch, load_state_dict
from .torch_lstm import check_memory, module_of, seeded_state, spec_of, state_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Source:
    """A model to export or to verify: its sizes, its parameters, and how it is written."""

    name: str
    spec: LSTMSpec
    state: dict[str, Array]
    options: ExportOptions

    def module(self) -> nn.LSTM:
        """The PyTorch module, in eval mode."""
        return module_of(self.spec, self.state)

    def with_options(self, **changes: Any) -> Source:
        """The same model under other `ExportOptions`; None leaves one as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **given))


def load_source(source: str) -> Source:
    """Read SOURCE.  A .toml with safetensors weights needs no torch.

    Raises:
        ConfigError: SOURCE is neither, or the .toml is wrong.
        WeightsError: the weights cannot be read or do not fit.
        ExportError: the callable cannot be imported, or gives something other than an nn.LSTM.
    """
    if source.lower().endswith(".toml"):
        return _from_config(source)
    if ":" in source and not os.path.exists(source):  # noqa: PTH110 - SOURCE is only perhaps a path
        return _from_callable(source)
    raise ConfigError(f"{source}: is not a model's .toml, nor package.module:callable")


def _from_config(path: str) -> Source:
    config = load_config(path)
    spec, weights = config.spec, config.weights
    try:
        check_memory(spec)
    except ConfigError as error:
        raise ConfigError(f"{path}: [lstm] {error}") from error
    if weights.file is None:
        state = seeded_state(spec, weights.seed or 0)
    else:
        where = (
            f"{weights.file} (prefix {weights.prefix!r}, for {path})"
            if weights.prefix
            else f"{weights.file} (for {path})"
        )
        state = fitted(spec, load_state_dict(weights.file, weights.prefix), where=where)
    return Source(path, spec, state, config.options)


def _from_callable(source: str) -> Source:
    module_name, _, attribute = source.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ExportError(f"{source}: is not package.module:callable")
    # As `python -m` does: a module in the folder where the command is run can be named.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for our own results
            value: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ExportError(f"{source}: {module_name} cannot be imported: {reason}") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ExportError(f"{source}: {module_name} has no {attribute!r}")
        value = getattr(value, part)
    if not callable(value):
        raise ExportError(
            f"{source}: {attribute} is a {type(value).__name__}; it must be a callable that gives an nn.LSTM"
        )
    made = _call(value, source)
    spec = spec_of(made)
    return Source(source, spec, state_of(made, spec), ExportOptions())  # type: ignore[arg-type]


def _call(factory: object, source: str) -> object:
    nn = import_torch(f"{source} needs it").nn
    if isinstance(factory, nn.Module):
        return factory  # a module is callable too, but it is what was asked for
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return factory()  # type: ignore[operator]
    except LSTMOnnxError:
        raise
    except (Exception, SystemExit) as error:
        raise ExportError(f"{source}: the callable raised {type(error).__name__}: {error}") from error
