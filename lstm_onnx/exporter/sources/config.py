"""models/*.toml: a configured nn.LSTM or module, where its weights are, and how it is exported.

An ``[lstm]`` is a bare nn.LSTM.  A ``[module]`` is what a callable returns, with one table
``[inputs.NAME]`` for each argument of its forward; a ``[generate]`` repeats it.
"""

from __future__ import annotations

import dataclasses
import difflib
import keyword
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ...atomic_io import readable_file
from ...errors import ConfigError, one_of
from ...generation_spec import Generation
from ...input_spec import InputSpec, is_name
from ...spec import ExportOptions, LSTMSpec, allowed_values
from ..module_options import STATES, ModuleOptions
from .toml_file import read_toml, require_no_escape

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar", ".th", ".pkl", ".index.json")
_MODULE_KEYS = ("factory", "args", "states", "max_delay", "chunk", "outputs")
_TABLES = ("lstm", "module", "inputs", "weights", "export", "generate")
_INPUT_KEYS = ("shape", "dtype", "range", "limits")
_SEED_LIMIT = 2**63
_LARGEST_BITS = 64
_DEEPEST = 50
T = TypeVar("T", LSTMSpec, ExportOptions)
Inputs: TypeAlias = "Mapping[str, InputSpec | Inputs]"
"""The forward's inputs by its arguments' names, in order.

An argument that is a dict or a tuple is itself a mapping; a tuple's keys are "0", "1", ...
"""
Limits: TypeAlias = dict[str, tuple[int, int | None]]
"""The least and the largest size of an axis, by its name; None where there is no largest."""
_LARGEST_SIZE = 2**31 - 1


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights come from: exactly one of `seed` and `file`.

    Attributes:
        seed: for torch.manual_seed.
        file: a file with one of `WEIGHT_SUFFIXES`.
        prefix: what the parameters' names start with in `file`, such as "encoder.lstm.".
    """

    seed: int | None = None
    file: Path | None = None
    prefix: str = ""


@dataclass(frozen=True)
class LSTMConfig:
    """A models/*.toml with an [lstm], validated."""

    path: Path
    spec: LSTMSpec
    weights: WeightsSource
    options: ExportOptions


@dataclass(frozen=True)
class ModuleConfig:
    """A models/*.toml with a [module], validated.

    Attributes:
        path: the .toml.
        factory: as written there.
        file: the Python file that has the callable; None where it is in `package`.
        package: the importable module that has the callable; None where it is in `file`.
        callable: the callable's name, with dots where it is an attribute of an object.
        args: its keyword arguments.
        inputs: the forward's inputs.
        weights: None where the callable sets them itself.
        options: how it is exported.
        limits: the sizes that axes may have, where the [inputs.NAME] limit them.
    """

    path: Path
    factory: str
    file: Path | None
    package: str | None
    callable: str
    args: Mapping[str, Any]
    inputs: Inputs
    weights: WeightsSource | None
    options: ModuleOptions
    limits: Mapping[str, tuple[int, int | None]] = dataclasses.field(default_factory=dict)


def load_config(path: str | os.PathLike[str]) -> LSTMConfig | ModuleConfig:
    """Read a configured model.

    Raises:
        FileError: the file cannot be read.
        ConfigError: it is not TOML, or holds an unknown key, a wrong type or an impossible value;
            the message names the file, the key and what is allowed.
    """
    found = readable_file(path, "a model's .toml")
    tables = read_toml(path, found)
    try:
        return _config(found, tables)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _config(path: Path, tables: dict[str, object]) -> LSTMConfig | ModuleConfig:
    _bounded(tables)
    _known_keys("", tables, _TABLES)
    if "module" in tables or "inputs" in tables:
        return _module_config(path, tables)
    if "generate" in tables:
        raise ConfigError("[generate] goes with [module]; a bare nn.LSTM's output cannot be its next input")
    if "lstm" not in tables:
        raise ConfigError("the table [lstm] is missing (or [module], for a model that is more than an LSTM)")
    if "weights" not in tables:
        raise ConfigError("the table [weights] is missing", hint='write it with file = "..." or seed = 0')
    return LSTMConfig(
        path=path,
        spec=_table("lstm", tables["lstm"], LSTMSpec),
        weights=_weights(tables["weights"], path.parent),
        options=_table("export", tables.get("export", {}), ExportOptions),
    )


def flat_inputs(inputs: Inputs) -> tuple[InputSpec, ...]:
    """The inputs as one sequence, with those of a dict argument in its place."""
    flat: list[InputSpec] = []
    for value in inputs.values():
        flat += [value] if isinstance(value, InputSpec) else flat_inputs(value)
    return tuple(flat)


def _module_config(path: Path, tables: Mapping[str, object]) -> ModuleConfig:
    if "module" not in tables:
        reason = "those of an [lstm] follow from its sizes" if "lstm" in tables else "the table [module] is missing"
        raise ConfigError(f"[inputs] goes with [module]; {reason}")
    if "lstm" in tables:
        raise ConfigError(
            "[lstm] and [module] exclude each other; [lstm] is for a bare nn.LSTM, "
            "[module] with [inputs] for any other model"
        )
    if "inputs" not in tables:
        raise ConfigError("the table [inputs] is missing; [module] needs an [inputs.NAME] for each argument")
    module = _mapping("module", tables["module"])
    _known_keys("module", module, _MODULE_KEYS)
    file, package, attribute = _factory(module, path.parent)
    generation = _generation(tables["generate"]) if "generate" in tables else None
    states = module.get("states", STATES[0] if generation is None else STATES[1])
    if states not in STATES:
        raise _impossible("module", "states", states, one_of(STATES))
    for key, least in (("max_delay", 0), ("chunk", 1)):
        steps = module.get(key, least)
        if type(steps) is not int or steps < least:
            raise _impossible("module", key, steps, f"a number of steps, {least} or more")
    limits: Limits = {}
    inputs = _inputs("inputs", _mapping("inputs", tables["inputs"]), limits)
    _known_axes(flat_inputs(inputs))
    args = _arguments(module.get("args", {}))
    outputs = _outputs(module.get("outputs"), flat_inputs(inputs))
    return ModuleConfig(
        path=path,
        factory=module["factory"],
        file=file,
        package=package,
        callable=attribute,
        args=args,
        inputs=inputs,
        weights=_weights(tables["weights"], path.parent) if "weights" in tables else None,
        options=ModuleOptions(
            _module_options(tables.get("export", {})),
            states,
            outputs,
            max_delay=module.get("max_delay", 0),
            chunk=module.get("chunk"),
            generation=generation,
        ),
        limits=limits,
    )


def _generation(table: object) -> Generation:
    values = _mapping("generate", table)
    _known_keys("generate", values, tuple(item.name for item in dataclasses.fields(Generation)))
    try:
        return Generation.of(values)
    except ConfigError as error:
        raise ConfigError(f"[generate] {error}") from None


def _factory(module: Mapping[str, object], folder: Path) -> tuple[Path | None, str | None, str]:
    allowed = '"file.py:callable", the file beside this one, or "package.module:callable"'
    if "factory" not in module:
        raise ConfigError(f"[module] lacks factory; it must be {allowed}")
    factory = module["factory"]
    if isinstance(factory, str):
        require_no_escape("module", "factory", factory)
    # The last colon: a path on Windows has one of its own.
    place, _, attribute = factory.rpartition(":") if isinstance(factory, str) else ("", "", "")
    if _is_dotted(attribute):
        if Path(place).suffix.lower() == ".py" and place.isprintable():
            return folder / place, None, attribute
        if _is_dotted(place):
            return None, place, attribute
    raise _impossible("module", "factory", factory, allowed)


def _arguments(table: object) -> dict[str, Any]:
    values = _mapping("module.args", table)
    for key in values:
        if not key.isidentifier():
            raise ConfigError(f"[module.args] {key!r} is not possible; it must be the name of an argument")
    return values


def _outputs(outputs: object, inputs: tuple[InputSpec, ...]) -> tuple[str, ...] | None:
    if outputs is None:
        return None
    taken = {spec.name for spec in inputs}
    named = isinstance(outputs, list) and all(is_name(name) and name not in taken for name in outputs)
    if not isinstance(outputs, list) or not named or not 0 < len(outputs) == len(set(outputs)):
        allowed = "a list of names without spaces, each its own and none an input's"
        raise _impossible("module", "outputs", outputs, allowed)
    return tuple(outputs)


def _inputs(table: str, values: Mapping[str, object], limits: Limits, prefix: str = "") -> Inputs:
    """The tables in `values`, at [`table`], as inputs whose names start with `prefix`; their limits go to `limits`."""
    if not values:
        raise ConfigError(f"[{table}] is empty; it needs an [{table}.NAME] with shape for each input")
    inputs: dict[str, InputSpec | Inputs] = {}
    for key, value in values.items():
        # An argument of forward is a Python identifier; a dict's key is any name without dots, which separate keys.
        if not (_is_word(key) if not prefix else is_name(key) and "." not in key):
            kind = "a key without spaces and dots" if prefix else "the name of an argument of forward"
            raise ConfigError(f"[{table}] {key!r} is not possible; it must be {kind}")
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        entries = _mapping(f"{table}.{key}", value)
        if "shape" not in entries and entries and all(isinstance(entry, dict) for entry in entries.values()):
            inputs[key] = _inputs(f"{table}.{key}", entries, limits, f"{prefix}{key}.")
        else:
            spec = inputs[key] = _input(f"{table}.{key}", entries, prefix + key)
            _add_limits(f"{table}.{key}", entries.get("limits", {}), spec, limits)
    return inputs


def _input(table: str, values: Mapping[str, Any], name: str) -> InputSpec:
    _known_keys(table, values, _INPUT_KEYS)
    if "shape" not in values:
        raise ConfigError(f'[{table}] lacks shape; it must be a list of sizes and axis names, such as ["batch", 4]')
    shape, limits = values["shape"], values.get("range", [None, None])
    if not isinstance(limits, list) or len(limits) != 2:
        raise _impossible(table, "range", limits, '[low, high], such as [0, 64] or [1, "time"]')
    try:
        return InputSpec(
            name=name,
            shape=tuple(shape) if isinstance(shape, list) else shape,
            dtype=values.get("dtype", "float32"),
            low=limits[0],
            high=limits[1],
        )
    except ConfigError as error:
        raise ConfigError(f"[{table}] {error}") from None


def _add_limits(table: str, asked: object, spec: InputSpec, limits: Limits) -> None:
    """``limits = { time = [7, 512] }`` of an input; ``[7]`` leaves the size open above."""
    allowed = (
        "a table of axis names in shape to [least, largest] or [least], sizes of 1 or more, such as { time = [7, 512] }"
    )
    if not isinstance(asked, dict):
        raise _impossible(table, "limits", asked, allowed)
    for axis, ends in asked.items():
        right = isinstance(ends, list) and 1 <= len(ends) <= 2 and all(map(_is_size, ends)) and ends == sorted(ends)
        if axis not in spec.shape or not right:
            raise _impossible(table, "limits", asked, allowed)
        found = (ends[0], ends[1] if len(ends) == 2 else None)
        if limits.setdefault(axis, found) != found:
            raise ConfigError(f"[{table}] limits of {axis} differ from those of another input; write them once")


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_SIZE


def _known_axes(inputs: tuple[InputSpec, ...]) -> None:
    """Refuse a range up to an axis that no input has, which would never have a size."""
    known = tuple(dict.fromkeys(dim for spec in inputs for dim in spec.shape if isinstance(dim, str)))
    for spec in inputs:
        if isinstance(spec.high, str) and spec.high not in known:
            axes = f"the axes are {', '.join(known)}" if known else "there are none"
            raise ConfigError(
                f"[inputs.{spec.name}] range = {[spec.low, spec.high]!r} is not possible; "
                f"{spec.high} is not an axis of any input; {_hint(spec.high, known)}{axes}"
            )


def _module_options(table: object) -> ExportOptions:
    values = _mapping("export", table)
    if "lengths" in values:
        raise ConfigError(
            "[export] lengths goes with [lstm]; the lengths of a module are an input of its own, such as "
            '[inputs.lengths] with shape = ["batch"], dtype = "int64", range = [1, "time"]'
        )
    for key in values:
        if key in _MODULE_KEYS:
            raise ConfigError(f"[export] {key} belongs in [module]")
    _known_keys("export", values, tuple(name for name in allowed_values(ExportOptions) if name != "lengths"))
    return _table("export", values, ExportOptions)


def _table(name: str, table: object, cls: type[T]) -> T:
    values = _mapping(name, table)
    allowed = allowed_values(cls)
    _known_keys(name, values, tuple(allowed))
    for item in dataclasses.fields(cls):
        if item.default is dataclasses.MISSING and item.name not in values:
            raise ConfigError(f"[{name}] lacks {item.name}; it must be {allowed[item.name]}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"[{name}] {error}") from None


def _weights(table: object, folder: Path) -> WeightsSource:
    values = _mapping("weights", table)
    _known_keys("weights", values, ("seed", "file", "prefix"))
    if ("seed" in values) == ("file" in values):
        raise ConfigError("[weights] needs exactly one of seed and file")
    if "seed" in values:
        seed = values["seed"]
        if type(seed) is not int or not 0 <= seed < _SEED_LIMIT:
            raise _impossible("weights", "seed", seed, "an integer of 0 or more")
        if "prefix" in values:
            raise ConfigError("[weights] prefix goes with file, not with seed")
        return WeightsSource(seed=seed)
    file, prefix = values["file"], values.get("prefix", "")
    if not isinstance(file, str) or not file.lower().endswith(WEIGHT_SUFFIXES):
        allowed = f"a path ending in {', '.join(WEIGHT_SUFFIXES[:-1])} or {WEIGHT_SUFFIXES[-1]}"
        raise _impossible("weights", "file", file, allowed)
    require_no_escape("weights", "file", file)
    if not isinstance(prefix, str):
        raise _impossible("weights", "prefix", prefix, "a string")
    return WeightsSource(file=folder / file, prefix=prefix)


def _mapping(name: str, table: object) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{name} = {reprlib.repr(table)} is not possible; it must be a table, [{name}]")
    return table


def _known_keys(table: str, values: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            place = f"[{table}] {key} is not a key" if table else f"[{key}] is not a table"
            raise ConfigError(f"{place} of a model; {_hint(key, known)}allowed are {', '.join(known)}")


def _hint(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def _impossible(table: str, key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"[{table}] {key} = {value!r} is not possible; it must be {allowed}")


def _bounded(tables: object) -> None:
    """Refuse huge integers and deeply nested tables, which Python cannot print."""
    todo = [(tables, 0)]
    while todo:
        value, depth = todo.pop()
        if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
            raise ConfigError(f"is not valid TOML: an integer in it has more than {_LARGEST_BITS} bits")
        if isinstance(value, (dict, list)):
            if depth > _DEEPEST:
                raise ConfigError(f"has tables or lists nested more than {_DEEPEST} deep")
            todo += [(entry, depth + 1) for entry in (value.values() if isinstance(value, dict) else value)]


def _is_word(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _is_dotted(name: str) -> bool:
    return all(_is_word(part) for part in name.split("."))
