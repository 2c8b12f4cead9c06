"""Golden files: what a file must give, kept for a machine that has no PyTorch.

A golden file is a plain .npz without pickles.  Its array ``golden`` holds the bytes of a JSON object:
the version of this format, where the numbers come from, and the cases with the names of their arrays, as
in ``0.1.feeds.input``, ``0.1.own.output`` and ``0.1.reference.output`` of case 0, call 1.  Arrays that are
equal are kept once; of one that is the leading block of the largest of its case, such as its first steps,
only the shape is kept, as in ``["0.9.feeds.input", [3, 1, 4]]``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, data
from ..atomic_io import readable_file, require_path
from ..data.formats import one_line
from ..errors import ConfigError, FileError, shown
from ..runtime import Model, load
from ..runtime.providers import onnxruntime
from .criterion import EPSILON
from .expected import Arrays, Call, Expected, first_difference
from .interface import interface_case, interface_problems
from .ranges import ranges_of
from .replay import replay
from .report import KINDS, ParityReport

if TYPE_CHECKING:
    from .lstm import LSTMVerification
    from .modules import ModuleVerification

VERSION = 2
"""Of the format; a reader refuses what is newer than itself."""
_HEADER = "golden"
_ANEW = "make it anew with lstm-onnx verify SOURCE --golden"


@dataclass(frozen=True)
class Golden:
    """What a verification compared a file with.

    Attributes:
        source: the PyTorch model that the numbers are of, by the name that its report gave it.
        cases: inputs, states, and what PyTorch gives for them in its own precision and in float64.
        digest: of the weights, as in the file that was verified; None where that did not say.
        versions: of the packages that made it.
        notes: of its report.
    """

    source: str
    cases: tuple[Expected, ...]
    digest: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: ParityReport, verification: LSTMVerification | ModuleVerification) -> Golden:
        """What `verification` compared for `report`."""
        digest = verification.model.metadata.digest
        return cls(report.source, tuple(verification.expected), digest, report.versions, report.notes)


def write(path: str | os.PathLike[str], golden: Golden) -> None:
    """Write `golden`, whole or not at all; equal ones are equal bytes.

    Raises:
        FileError: the path does not end in .npz, or cannot be written.
    """
    place = require_name(path)
    kept = _Kept({}, {})
    header = {
        "version": VERSION,
        "source": golden.source,
        "digest": golden.digest,
        "versions": dict(golden.versions),
        "notes": list(golden.notes),
        "cases": [_described(case, str(at), kept) for at, case in enumerate(golden.cases)],
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    data.write(place, [{_HEADER: text, **kept.arrays}], many=False, format="npz", compressed=True)


@dataclass(frozen=True)
class _Kept:
    """The arrays of a golden file, by name, and the names by what they hold."""

    arrays: dict[str, np.ndarray]
    names: dict[tuple[str, tuple[int, ...], bytes], str]

    def add(self, name: str, array: np.ndarray) -> str:
        """Keep an array; the name that it is kept under."""
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self.names:
            self.names[key] = name
            self.arrays[name] = array
        return self.names[key]

    def add_block(self, name: str, array: np.ndarray, largest: str) -> str | list[Any]:
        """The same, where it may be the leading block of one that is kept."""
        whole = self.arrays[largest]
        if array.shape != whole.shape and array.dtype == whole.dtype and _is_leading_block(array, whole):
            return [largest, list(array.shape)]
        return self.add(name, array)


def _is_leading_block(array: np.ndarray, whole: np.ndarray) -> bool:
    if array.ndim != whole.ndim or any(mine > theirs for mine, theirs in zip(array.shape, whole.shape, strict=True)):
        return False
    return bool(np.array_equal(array, whole[_block(array.shape)], equal_nan=array.dtype.kind == "f"))


def _block(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(map(slice, shape))


def require_name(path: str | os.PathLike[str]) -> str:
    """`path`, once it is known to end in .npz, so that no model is overwritten by its golden file.

    Raises:
        FileError: it does not.
    """
    require_path(path, "a name for a golden file")
    place = os.fspath(path)
    if not place.lower().endswith(".npz"):
        raise FileError(f"{place}: is no name for a golden file, which is an npz; name one that ends in .npz")
    return place


def _described(case: Expected, prefix: str, kept: _Kept) -> dict[str, Any]:
    """A case in the header, whose arrays are kept."""
    calls = [
        {"feeds": call.feeds, "own": _narrowed(call.own), "reference": _narrowed(call.reference)} for call in case.calls
    ]
    described: list[dict[str, Any]] = [{part: dict.fromkeys(held) for part, held in call.items()} for call in calls]
    for part, name in ((part, name) for part, held in calls[0].items() for name in held):
        # The largest first, since the others may be blocks of it.
        sizes = [call[part][name].size for call in calls]
        order = sorted(range(len(calls)), key=sizes.__getitem__, reverse=True)
        first = f"{prefix}.{order[0]}.{part}.{name}"
        largest = kept.add(first, calls[order[0]][part][name])
        for turn in order:
            described[turn][part][name] = kept.add_block(
                f"{prefix}.{turn}.{part}.{name}", calls[turn][part][name], largest
            )
    return {
        "label": case.label,
        "kind": case.kind,
        "dtype": case.dtype,
        "scale": case.scale,
        "chunkings": case.chunkings,
        "time_axes": dict(case.time_axes),
        "batch_axes": dict(case.batch_axes),
        "least": dict(case.least),
        "scales": dict(case.scales),
        "dtypes": dict(case.dtypes),
        "every": dict(case.every),
        "calls": [
            {**parts, "label": call.label, "least": dict(call.least)}
            for parts, call in zip(described, case.calls, strict=True)
        ],
    }


def _narrowed(arrays: Arrays) -> Arrays:
    return {name: _narrow(array) for name, array in arrays.items()}


def _narrow(array: np.ndarray) -> np.ndarray:
    """float64 in the smallest dtype that holds every number: PyTorch's own outputs were float32 or less."""
    if array.dtype == np.float64:
        for dtype in (np.float16, np.float32):
            with np.errstate(over="ignore"):
                small = array.astype(dtype)
            if np.array_equal(small, array, equal_nan=True):
                return small
    return array


def read(path: str | os.PathLike[str]) -> Golden:
    """Read what `write` wrote.

    Raises:
        FileError: it is missing, is not a golden file, is damaged, or is of a later version of this format.
    """
    readable_file(path, "a golden file, as lstm-onnx verify SOURCE --golden writes it")
    place = os.fspath(path)
    arrays = next(data.read(place, format="npz").rows)
    text = arrays.pop(_HEADER, None)
    if text is None or text.dtype != np.uint8 or text.ndim != 1:
        raise FileError(f"{place}: is not a golden file: it holds no array {_HEADER!r} of bytes; {_ANEW}")
    try:
        header = json.loads(text.tobytes())
        version = _typed(header, "version", int)
        if version > VERSION:
            raise FileError(
                f"{place}: is a golden file of version {version}, and this lstm-onnx reads up to {VERSION}; upgrade it"
            )
        digest = header.get("digest")
        return Golden(
            source=_typed(header, "source", str),
            cases=tuple(_case(item, arrays) for item in _filled(_typed(header, "cases", list), "cases")),
            digest=None if digest is None else _typed(header, "digest", str),
            versions=_mapping(header, "versions", str),
            notes=tuple(_each(header, "notes", str)),
        )
    except (ValueError, RecursionError) as error:
        raise FileError(f"{place}: is not a whole golden file: {one_line(error)}; {_ANEW}") from error


def verify_golden(
    path: str | os.PathLike[str] | Model,
    golden: str | os.PathLike[str],
    *,
    provider: str = "auto",
    threads: int | None = None,
    mutants: str = "none",
) -> ParityReport:
    """Compare a file with the golden file of its model; PyTorch is not needed.

    Args:
        path: the .onnx file, or what `load` made of it, which then has its own provider and threads.
        golden: what `verify` stored.
        provider: where the file runs: "auto", "cpu" or "cuda".
        threads: ONNX Runtime's threads.
        mutants: how many wrong copies of the file are tried, as in `verify`; they need onnx.

    Returns:
        A report like that of `verify`, of the same cases by the same criterion.

    Raises:
        ConfigError: the file has other inputs or outputs than the golden's model, or `mutants` is no level.
        FileError: a file is missing, or the golden one is not whole or is of a later version.
        ModelError, ProviderError: the file cannot be opened.
    """
    began = time.perf_counter()
    if not isinstance(mutants, str):
        raise ConfigError(f'mutants = {shown(mutants)} is not possible; it must be a level, such as "none"')
    kept = read(golden)
    model = path if isinstance(path, Model) else load(path, provider=provider, threads=threads, trial=None)
    _check_names(model, kept, golden)
    notes = list(kept.notes)
    if kept.digest is not None and model.metadata.digest not in (None, kept.digest):
        notes.append("the file was exported from other weights than the golden file's (its digest differs)")
    results = tuple(replay(model, case) for case in kept.cases)
    pairs = list(zip(kept.cases, results, strict=True))
    problems = list(interface_problems(model, kept.cases))
    if problems and model.metadata.versions:
        results = (*results, interface_case(problems))
    else:
        notes += problems
    wrong = [(case, result) for case, result in pairs if not result.inconclusive and not result.passed]
    done = ParityReport(
        model.path,
        f"{kept.source} (golden file {os.fspath(golden)})",
        model.provider,
        results,
        tuple(notes),
        location=first_difference(wrong),
        versions={
            **{name: version for name, version in kept.versions.items() if name == "torch"},
            "lstm-onnx": __version__,
            "onnxruntime": str(onnxruntime().__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        ranges=ranges_of(model, pairs),
    )
    if mutants != "none":
        from .mutants import require_level, self_test

        require_level(mutants)
        if done.in_parity:
            done = replace(done, mutants=tuple(self_test(model, kept.cases, mutants, ranges=done.ranges)))
    return replace(done, seconds=time.perf_counter() - began)


def _check_names(model: Model, golden: Golden, place: str | os.PathLike[str]) -> None:
    fed = {name for case in golden.cases for call in case.calls for name in call.feeds}
    given = {name for case in golden.cases for call in case.calls for name in call.reference}
    optional = {*model.states, *(["lengths"] if model.spec is not None else [])}
    if not set(model.inputs) - optional <= fed <= set(model.inputs) or not given <= set(model.outputs):
        raise ConfigError(
            f"{model.path}: has inputs {', '.join(model.inputs)} and outputs {', '.join(model.outputs)}, and {place} "
            f"is of a model with inputs {', '.join(sorted(fed))} and outputs {', '.join(sorted(given))}; "
            "is it this file's golden file?"
        )


def _case(item: Any, arrays: Arrays) -> Expected:
    """A case of the header, of which nothing may surprise `replay`."""
    calls = tuple(_call(call, arrays) for call in _filled(_typed(item, "calls", list), "calls"))
    scale = _typed(item, "scale", float)
    case = Expected(
        label=_typed(item, "label", str),
        calls=calls,
        dtype=_one_of(item, "dtype", tuple(EPSILON)),
        scale=scale,
        kind=_one_of(item, "kind", KINDS),
        chunkings=tuple(
            tuple(_each({"chunkings": sizes}, "chunkings", int)) for sizes in _typed(item, "chunkings", list)
        ),
        time_axes=_axes(item, "time_axes", calls),
        batch_axes=_axes(item, "batch_axes", calls),
        least=_mapping(item, "least", float),
        scales=_mapping(item, "scales", float),
        dtypes=_mapping(item, "dtypes", str) if "dtypes" in item else {},
        every=_mapping(item, "every", int) if "every" in item else {},
    )
    sizes = [scale, *case.least.values(), *case.scales.values()]
    _require(all(size >= 0 for size in sizes), "a scale is negative or not a number")
    _require(all(step > 0 for step in case.every.values()), "a step through features is not positive")
    _require(all(call.feeds.keys() == calls[0].feeds.keys() for call in calls), "calls of one case differ in inputs")
    apart = all(case.batch_axes.get(name) != axis for name, axis in case.time_axes.items())
    _require(apart, "an axis is time and batch at once")
    times, batches = _sizes(calls, case.time_axes), _sizes(calls, case.batch_axes)
    if case.chunkings:
        fits = all(min(sizes, default=0) > 0 and {sum(sizes)} == times for sizes in case.chunkings)
        _require(len(calls) == 1 and fits, "the chunks do not add up to the time steps")
    if case.kind == "pool":
        batched = {*calls[0].feeds, *calls[0].reference} <= case.batch_axes.keys() and len(batches) == 1
        timed = len(calls) > 1 or len(times) == 1
        _require(batched and timed, "the rows of a pool have no batch or time axis in common")
    return case


def _sizes(calls: tuple[Call, ...], axes: Mapping[str, int]) -> set[int]:
    """How long the inputs are along such axes."""
    return {array.shape[axes[name]] for call in calls for name, array in call.feeds.items() if name in axes}


def _call(item: Any, arrays: Arrays) -> Call:
    feeds, own, reference = (_named(item, key, arrays) for key in ("feeds", "own", "reference"))
    _require(bool(feeds), "a call has no inputs")
    same = own.keys() == reference.keys() and all(
        own[name].shape == array.shape and own[name].dtype.kind == array.dtype.kind for name, array in reference.items()
    )
    _require(same and bool(reference), "PyTorch's outputs and their references do not fit each other")
    label = _typed(item, "label", str) if "label" in item else ""
    least = _mapping(item, "least", float) if "least" in item else {}
    _require(all(size >= 0 for size in least.values()), "a least error is negative or not a number")
    return Call(feeds, _widened(own), _widened(reference), label, least)


def _widened(arrays: Arrays) -> Arrays:
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def _named(item: Any, key: str, arrays: Arrays) -> Arrays:
    found = {}
    for name, member in _typed(item, key, dict).items():
        where, shape = member if isinstance(member, list) and len(member) == 2 else (member, None)
        _require(isinstance(where, str) and where in arrays, f"its array {where!r} is missing")
        array = arrays[where]
        if shape is not None:
            sizes = [type(size) is int and size >= 0 for size in shape] if isinstance(shape, list) else [False]
            _require(all(sizes) and len(sizes) == array.ndim, f"a block of its array {where!r} has no shape")
            array = array[_block(shape)]
            _require(list(array.shape) == shape, f"a block of its array {where!r} is larger than it")
        found[name] = array
    return found


def _axes(item: Any, key: str, calls: tuple[Call, ...]) -> Mapping[str, int]:
    axes: Mapping[str, int] = _mapping(item, key, int)
    for call in calls:
        for name, array in [*call.feeds.items(), *call.reference.items()]:
            _require(0 <= axes.get(name, 0) < array.ndim or name not in axes, f"{name!r} has no such axis in {key}")
    return axes


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _typed(item: Any, key: str, kind: type) -> Any:
    """A value of the header; a whole number is a float as well, and a float is never cut to one."""
    _require(isinstance(item, dict), f"there is no object with {key!r} where one must be")
    value = item.get(key)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**53 else math.nan
    _require(type(value) is kind, f"its {key!r} is not of the type {kind.__name__}")
    return value


def _filled(items: list[Any], key: str) -> list[Any]:
    _require(bool(items), f"its {key!r} are empty")
    return items


def _one_of(item: Any, key: str, allowed: tuple[str, ...]) -> str:
    value: str = _typed(item, key, str)
    _require(value in allowed, f"its {key!r} is none of {', '.join(allowed)}")
    return value


def _each(item: Any, key: str, kind: type) -> list[Any]:
    return [_typed({key: value}, key, kind) for value in _typed(item, key, list)]


def _mapping(item: Any, key: str, kind: type) -> dict[str, Any]:
    return {name: _typed({key: value}, key, kind) for name, value in _typed(item, key, dict).items()}
