"""Programs in several languages that stream one file with ONNX Runtime alone, and check the numbers that they get."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..data.random_input import run_on_drawn
from ..errors import InputError, ModelError
from ..runtime import Model, ValueInfo, load
from ..runtime.batch_axes import TIME, batch_name
from ..runtime.chunks import time_axis
from ..runtime.stream_states import stream_initial_state
from ..runtime.streamable import is_streamable
from ..runtime.tensor_info import require_known_names
from ..runtime.tuning import MAX_TRIAL_ELEMENTS
from ..runtime.unchanged import of_one_file

LANGUAGES = ("python", "javascript", "csharp", "java", "cpp", "rust")
"""In the order in which the command names them."""
_TYPES = {
    "csharp": {"float32": "float", "float64": "double", "int32": "int", "int64": "long"},
    "java": {"float32": "float", "float64": "double", "int32": "int", "int64": "long"},
    "cpp": {"float32": "float", "float64": "double", "int32": "std::int32_t", "int64": "std::int64_t"},
    "rust": {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64"},
    "javascript": {
        "float32": "Float32Array",
        "float64": "Float64Array",
        "int32": "Int32Array",
        "int64": "BigInt64Array",
    },
}
_DTYPES = ("float32", "float64", "int32", "int64")
_SUFFIXES = {
    "csharp": {"float32": "f", "int64": "L"},
    "java": {"float32": "f", "int64": "L"},
    "javascript": {"int64": "n"},
}
_CALLS = 3
_MOST_CALLS = 64
_STEPS = 2
_WHOLE_STEPS = 5
_COMPARED = 4
_MOST_INITIAL = 4096
_MOST_AXES = 64
_MANY_FLOATS = 11
_MOST_INTEGERS = 97
_EXACT = 2.0**53
"""Integers below it are exact in float64."""
_SHARE = 1e-4
_COARSE_SHARE = 0.05
"""How far results may be off, of the largest; of int8 files, whose kernels round activations, farther."""


@dataclass(frozen=True)
class _Input:
    """An input of every call: a constant; or numbers made up of the index, integers below `many` or floats."""

    info: ValueInfo
    shape: tuple[int, ...]
    constant: bool
    low: int
    many: int

    def numbers(self, call: int) -> np.ndarray:
        size = math.prod(self.shape)
        if self.constant:
            return np.full(self.shape, self.low, self.info.dtype)
        at = 7 * (call * size + np.arange(size).reshape(self.shape))
        values = at % self.many + self.low if self.many else at % _MANY_FLOATS / 10 - 0.5
        return np.asarray(values, self.info.dtype)


@of_one_file("run")
def program(
    path: str | os.PathLike[str],
    language: str,
    inputs: Mapping[str, np.ndarray] | None = None,
    states: Mapping[str, str] | None = None,
) -> str:
    """A complete program that runs the file at `path`, call after call with its states carried, and checks the result.

    Args:
        path: an .onnx file; it is run here to know what the program must get.
        language: one of `LANGUAGES`.
        inputs: numpy arrays by input name, whose shapes the program's inputs have, and whose integers where they are
            all the same; by default the smallest sizes.
        states: for a file of another tool, each state input and the output that feeds it, as in `load`.

    Raises:
        ModelError: the file cannot be run, or has dtypes, names or initial states that programs are not written for.
        InputError: no inputs can be made up for it, or there is no such language.
    """
    if language not in LANGUAGES:
        raise InputError(f"there are no programs in {language!r}", hint=f"choose one of {', '.join(LANGUAGES)}")
    import jinja2

    with load(path, "cpu", threads=1, states=states, trial=None) as model:
        values = _values(model, language, inputs or {})
    template = (resources.files(__package__) / "programs" / f"{language}.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(  # noqa: S701 - source code, no HTML: names are checked instead
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(template).render(values)


def _values(model: Model, language: str, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the templates are filled with."""
    file = Path(model.path).name
    infos = (*model.inputs.values(), *model.outputs.values())
    for name in (file, *(info.name for info in infos)):
        if not _is_plain(name) or set(name) & set('"{}%'):
            raise ModelError(f"the name {name!r} cannot be written into a program", path=model.path, name=name)
    for info in infos:
        if info.name in model.inputs or info.name in model.states.values():
            _require_dtype(model, info)
    streams = is_streamable(model)
    require_known_names(model.inputs, given)
    inputs = [_sized(each, given.get(each.info.name)) for each in _inputs(model, streams=streams)]
    start = model.completed({each.info.name: each.numbers(0) for each in inputs})
    states = {name: _start(model, name, start.get(name), given.get(name)) for name in model.states}
    written = [name for name, array in states.items() if np.any(array)]
    size = sum(states[name].size for name in written)
    if size > _MOST_INITIAL:  # of all together: Java has a limit for a method
        raise ModelError(
            f"the initial state of {' and '.join(written)} is {size} numbers, too many to be written into a program",
            path=model.path,
            hint="help without-lstm-onnx has a program that reads it from the file",
            name=written[0],
        )
    if not all(np.isfinite(array).all() for array in states.values()):
        raise ModelError("has initial states that are not finite", path=model.path)
    output, expected, calls = _expected(model, inputs, states, streams=streams)
    share = _SHARE if model.metadata.quantization is None else _COARSE_SHARE
    largest = float(np.abs(expected.astype(np.float64)).max())
    is_whole = expected.dtype.kind in "iu" and largest < _EXACT  # a token beside the right one is wrong
    tolerance = 0.5 if is_whole else share * max(1.0, largest)
    output_names = list(model.outputs)
    described = [_described(each.info, each.shape, language) | _made_up(each, language) for each in inputs]
    pairs = [
        _described(model.inputs[name], array.shape, language)
        | {
            "output": model.states[name],
            "output_index": output_names.index(model.states[name]),
            "initial": array.reshape(-1).tolist() if np.any(array) else [],
            "literal": [_literal(value, array.dtype.name, language) for value in array.reshape(-1)],
        }
        for name, array in states.items()
    ]
    dtypes = sorted({str(model.outputs[name].dtype) for name in (output, *model.states.values())})
    used = sorted({str(info.dtype) for info in model.inputs.values()} | set(dtypes))
    return {
        "what": "Streams" if streams else "Runs",
        "file": file,
        "inputs": described,
        "states": pairs,
        "input_names": [item["name"] for item in (*described, *pairs)],
        "output_names": output_names,
        "output": {"index": output_names.index(output), **_described(model.outputs[output], (), language)},
        "expected": [float(value if is_whole else f"{value:.9g}") for value in expected.astype(np.float64)],
        "tolerance": float(f"{tolerance:.2g}"),
        "calls": calls,
        "many_floats": _MANY_FLOATS,
        "types": [_type(dtype, language) for dtype in used],
        "result_types": [_type(dtype, language) for dtype in dtypes],
    }


def _start(model: Model, name: str, completed: np.ndarray | None, given: np.ndarray | None) -> np.ndarray:
    """What a state starts from, also where none of its file's axes has a name by which its size is known."""
    if completed is not None:
        return completed
    info = model.inputs[name]
    if given is not None:
        return np.zeros(given.shape, info.dtype)
    return stream_initial_state(info, 1, model.metadata.initial.get(name))


def _require_dtype(model: Model, info: ValueInfo) -> None:
    if str(info.dtype) not in _DTYPES:
        raise ModelError(
            f"{info} is of a dtype that programs are not written for",
            path=model.path,
            hint=f"they are for {', '.join(_DTYPES)}",
            name=info.name,
        )


def _inputs(model: Model, *, streams: bool) -> list[_Input]:
    """The inputs that are not states, for one sequence and the fewest steps that always give an output."""
    sizes = {} if (batch := batch_name(model)) is None else {batch: 1}
    streaming = model.metadata.streaming_or_default
    try:
        axis = time_axis(model) if streams else TIME
    except InputError:
        axis = None  # each call is one step
    if axis is not None:
        hop = math.lcm(streaming.hop, streaming.chunk)
        least = model.metadata.axis_limits.get(axis, (1, None))[0]
        sizes[axis] = max(_STEPS if streams else _WHOLE_STEPS, least) if hop == 1 else hop
    ranges = {spec.name: spec for spec in model.metadata.inputs}
    found = []
    for name, info in model.inputs.items():
        if name in model.states:
            continue
        shape = tuple(info.smallest_shape(sizes))
        if len(shape) > _MOST_AXES or math.prod(shape) > MAX_TRIAL_ELEMENTS:
            raise InputError(f"{name} is too large for a program", path=model.path, name=name)
        spec = ranges.get(name)
        low = int(spec.low) if spec is not None and isinstance(spec.low, int) else 0
        many = 0
        constant = False
        if name == streaming.last:
            constant, low = True, 0 if streams else 1
        elif name in model.counts:
            counted = sizes.get(model.counts[name].axis)
            constant, low = True, max(low, model.counts[name].low) if counted is None else counted
        elif info.dtype is not None and info.dtype.kind in "iu":
            high = spec.high if spec is not None and isinstance(spec.high, int) else low
            many = min(high - low + 1, _MOST_INTEGERS)
            constant = many == 1
        found.append(_Input(info, shape, constant, low, many))
    return found


def _sized(each: _Input, given: np.ndarray | None) -> _Input:
    """An input with the sizes of a given one, and its integer where it has but one."""
    if given is None:
        return each
    if given.dtype.kind in "iu" and given.size and (given == given.flat[0]).all():
        return replace(each, shape=given.shape, constant=True, low=int(given.flat[0]))
    return replace(each, shape=given.shape)


def _expected(
    model: Model, inputs: list[_Input], states: Mapping[str, np.ndarray], *, streams: bool
) -> tuple[str, np.ndarray, int]:
    """An output, its first numbers in the last call, and how many calls that are."""
    ends = set(model.states.values())
    names = [name for name, info in model.outputs.items() if str(info.dtype) in _DTYPES]
    output = next((name for name in names if name not in ends), names[0] if names else None)
    if output is None:
        raise ModelError("has no output of numbers that programs are written for", path=model.path)
    carried = dict(states)
    for call in range(_MOST_CALLS if streams else 1):
        results = run_on_drawn(model, {**{each.info.name: each.numbers(call) for each in inputs}, **carried})
        carried = {name: results[model.states[name]] for name in carried}
        if results[output].size and (call + 1 >= _CALLS or not streams):
            expected = results[output].reshape(-1)[:_COMPARED]
            if not np.isfinite(expected).all():
                raise ModelError(
                    f"gives NaN or infinity in {output} for the inputs that a program makes up, which are floats from "
                    "-0.5 to 0.5 and the smallest integers",
                    path=model.path,
                    hint="help without-lstm-onnx has a program to which you give your own inputs",
                    name=output,
                )
            return output, expected, call + 1
    raise ModelError(f"gives no step of {output} in {_MOST_CALLS} calls", path=model.path, name=output)


def _described(info: ValueInfo, shape: tuple[int, ...], language: str) -> dict[str, Any]:
    dtype = str(info.dtype)
    return {
        "name": info.name,
        "dtype": dtype,
        "type": _type(dtype, language),
        "shape": shape,
        "size": math.prod(shape),
        "axes": f"({', '.join(str(dim) if _is_plain(str(dim)) and dim else '?' for dim in info.shape)})",
        "zero": _literal(0, dtype, language),
    }


def _is_plain(text: str) -> bool:
    """Whether it is one line in each language, also in a comment: Java reads what a backslash stands for there, too."""
    return text.isascii() and text.isprintable() and "\\" not in text


def _made_up(each: _Input, language: str) -> dict[str, Any]:
    kind = "constant" if each.constant else "numbers"
    literal = _literal(each.low, str(each.info.dtype), language)
    return {"kind": kind, "low": each.low, "many": each.many, "literal": literal}


def _literal(value: Any, dtype: str, language: str) -> str:
    text = repr(float(f"{float(value):.9g}")) if dtype == "float32" else repr(np.dtype(dtype).type(value).item())
    return text + _SUFFIXES.get(language, {}).get(dtype, "")


def _type(dtype: str, language: str) -> str:
    """The language's type of numbers; in JavaScript, of an array of them."""
    return _TYPES.get(language, {}).get(dtype, dtype)
