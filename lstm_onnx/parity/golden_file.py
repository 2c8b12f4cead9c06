"""Writes and reads golden files: a verification's cases, stored for a machine without PyTorch.

A golden file is a plain .npz without pickles.  Its array ``golden`` holds the bytes of a JSON object: the version of
this format, where the numbers come from, and the cases with the places of their arrays, such as ``0.1.feeds.input``,
``0.1.own.output`` (PyTorch in its native precision) and ``0.1.reference.output`` (in float64) of case 0, call 1; see
`golden_arrays`.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import data
from ..atomic_io import readable_file, require_path
from ..errors import ConfigError, FileError, reason
from .expected import Arrays, Call, Expected, as_float64, fits
from .golden_arrays import Store, Stored, taken
from .report import ParityReport
from .results import RUNS
from .tolerances import EPSILON

if TYPE_CHECKING:
    from .comparison import Verification

VERSION = 3
"""The version of the format; others are refused."""
_HEADER = "golden"
_FLOAT32 = "float32_model"
_RECREATE = "recreate it with lstm-onnx verify SOURCE --golden"


@dataclass(frozen=True)
class Golden:
    """The cases of a verification.

    Attributes:
        source: the report's name of the PyTorch model.
        cases: inputs, states, and what PyTorch gives for them in its native precision and in float64.
        digest: the digest of the weights from the verified file's metadata; None if it has none.
        versions: the versions of the packages that computed the numbers.
        notes: the report's notes.
        float32: for a file with smaller weights, the float32 file from which it was made, and to which cases belong.
        reference: where the outputs come from: "PyTorch", or "float32" for the float32 file.
    """

    source: str
    cases: tuple[Expected, ...]
    digest: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    float32: bytes | None = None
    reference: str = "PyTorch"

    @classmethod
    def of(cls, report: ParityReport, verification: Verification, *, near_ties: bool = True) -> Golden:
        """The cases of `verification`, whose report is `report`.

        With `near_ties`, PyTorch runs again to find out which integers rounding may change.
        """
        digest = verification.model.metadata.digest
        expected = [verification.with_near_ties(one) if near_ties else one for one in verification.expected]
        # On another machine, a module that rounds may jump elsewhere.
        calm = [(one, tuple(call for call in one.calls if not call.jumps)) for one in expected]
        cases = tuple(replace(one, calls=tuple(map(_with_ties, calls))) for one, calls in calm if calls)
        return cls(report.source, cases, digest, report.versions, report.notes)


def _with_ties(call: Call) -> Call:
    """The call with, as PyTorch's own integers, those of runs with other roundings, since either may be right."""
    native = dict(call.native)
    for name, ties in call.ties.items():
        differ = ties != call.reference[name]
        other = np.take_along_axis(ties, differ.argmax(axis=0)[None], axis=0)[0]
        native[name] = np.where(differ.any(axis=0), other, native[name])
    return replace(call, native=native)


def write(path: str | os.PathLike[str], golden: Golden) -> None:
    """Write `golden` atomically; equal ones give equal bytes.

    Raises:
        ConfigError: it has no cases, like that of a generating file with smaller weights.
        FileError: the path does not end in .npz, or cannot be written.
    """
    place = require_name(path)
    if not golden.cases:
        raise ConfigError(
            f"{os.fspath(path)}: a golden file cannot hold the verification of a generating file with float16 or int8 "
            "weights",
            hint="store one of the step's own file",
        )
    store = Store()
    header = {
        "version": VERSION,
        "source": golden.source,
        "digest": golden.digest,
        "versions": dict(golden.versions),
        "notes": list(golden.notes),
        **({} if golden.reference == "PyTorch" else {"reference": golden.reference}),
        "cases": [_described(case, str(at), store) for at, case in enumerate(golden.cases)],
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    model = {} if golden.float32 is None else {_FLOAT32: np.frombuffer(golden.float32, np.uint8)}
    data.write(place, [{_HEADER: text, **model, **store.arrays}], many=False, format="npz", compressed=True)


def require_name(path: str | os.PathLike[str]) -> str:
    """`path` as a str, if it ends in .npz: a golden file must not overwrite its model.

    Raises:
        FileError: it does not.
    """
    require_path(path, "a name for a golden file")
    place = os.fspath(path)
    if not place.lower().endswith(".npz"):
        raise FileError(f"{place}: golden files must end in .npz")
    return place


def require_golden_or_none(path: str | os.PathLike[str]) -> None:
    """Refuse a path at which there is a file other than a golden one, such as data, since it would be replaced.

    Raises:
        FileError: there is such a file.
    """
    place = Path(path)
    if not place.is_file() or not place.stat().st_size:
        return
    try:
        with zipfile.ZipFile(place) as archive:
            found = f"{_HEADER}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        found = False
    if not found:
        raise FileError("exists and is not a golden file, so it is not replaced", hint="name another file", path=path)


def _described(case: Expected, prefix: str, store: Store) -> dict[str, Any]:
    """A case for the header; its arrays are stored."""
    calls = [
        {"feeds": call.feeds, "own": _narrowed(call.native), "reference": _narrowed(call.reference)}
        for call in case.calls
    ]
    described: list[dict[str, Any]] = [{part: dict.fromkeys(arrays) for part, arrays in call.items()} for call in calls]
    stored: dict[tuple[int, str], list[Stored]] = {}
    parts = dict.fromkeys((part, name) for call in calls for part, arrays in call.items() for name in arrays)
    for part, name in parts:
        # A stream gets states only in its first call.
        given = {at: call[part][name] for at, call in enumerate(calls) if name in call[part]}
        alike = len({array.shape for array in given.values()}) == 1
        largest: list[Stored] = []
        # The largest array first, since the others may be blocks of it.
        for at in sorted(given, key=lambda at: given[at].size, reverse=True):
            beside = stored.setdefault((at, part), [])
            one = store.add(f"{prefix}.{at}.{part}.{name}", given[at], (*largest, *beside), join=alike)
            largest = largest or [one]
            beside.append(one)
            described[at][part][name] = one.place
    return {
        **{name: getattr(case, name) for name in ("label", "kind", "dtype", "scale", "chunkings")},
        **{name: dict(getattr(case, name)) for name in ("time_axes", "batch_axes", "least", "scales", "dtypes")},
        "units": {name: unit.tolist() for name, unit in case.units.items()},
        "every": dict(case.feature_steps),
        "calls": [
            {**arrays, "label": call.label, "least": dict(call.least), "ties": sorted(call.ties)}
            for arrays, call in zip(described, case.calls, strict=True)
        ],
    }


def _narrowed(arrays: Arrays) -> Arrays:
    """float64 as the smallest dtype that represents every number: PyTorch's native outputs were float32 or less."""
    narrowed = dict(arrays)
    for name, array in arrays.items():
        for dtype in (np.float32, np.float16) if array.dtype == np.float64 else ():
            with np.errstate(over="ignore"):
                small = array.astype(dtype)
            if np.array_equal(small, array, equal_nan=True):
                narrowed[name] = small
    return narrowed


def read(path: str | os.PathLike[str]) -> Golden:
    """Read a golden file.

    Raises:
        FileError: it is missing, is not a golden file, is damaged, or has another version of the format.
    """
    readable_file(path, "a golden file, as lstm-onnx verify SOURCE --golden writes it")
    place = os.fspath(path)
    arrays = next(data.read(place, format="npz").rows)
    text = arrays.pop(_HEADER, None)
    model = arrays.pop(_FLOAT32, None)
    if text is None or text.dtype != np.uint8 or text.ndim != 1:
        raise FileError(f"{place}: is not a golden file: it holds no array {_HEADER!r} of bytes; {_RECREATE}")
    try:
        header = json.loads(text.tobytes())
        version = _typed(header, "version", int)
        if version != VERSION:
            advice = "upgrade it" if version > VERSION else _RECREATE
            raise FileError(
                f"{place}: is a golden file of version {version}, and this lstm-onnx reads version {VERSION}; {advice}"
            )
        _require(model is None or (model.dtype == np.uint8 and model.ndim == 1), "its float32 model is not bytes")
        digest = header.get("digest")
        return Golden(
            source=_typed(header, "source", str),
            cases=tuple(_case(item, arrays) for item in _filled(_typed(header, "cases", list), "cases")),
            digest=None if digest is None else _typed(header, "digest", str),
            versions=_mapping(header, "versions", str),
            notes=tuple(_each(header, "notes", str)),
            float32=None if model is None else model.tobytes(),
            reference=_one_of(header, "reference", ("PyTorch", "float32")) if "reference" in header else "PyTorch",
        )
    except (ValueError, RecursionError) as error:
        raise FileError(f"{place}: is a damaged golden file: {reason(error)}; {_RECREATE}") from error


def _case(item: Any, arrays: Arrays) -> Expected:
    """A case of the header, checked so that `replay` cannot fail on it."""
    calls = tuple(_call(call, arrays) for call in _filled(_typed(item, "calls", list), "calls"))
    scale = _typed(item, "scale", float)
    case = Expected(
        label=_typed(item, "label", str),
        calls=calls,
        dtype=_one_of(item, "dtype", tuple(EPSILON)),
        scale=scale,
        kind=_one_of(item, "kind", RUNS),
        chunkings=tuple(
            tuple(_each({"chunkings": sizes}, "chunkings", int)) for sizes in _typed(item, "chunkings", list)
        ),
        time_axes=_axes(item, "time_axes", calls),
        batch_axes=_axes(item, "batch_axes", calls),
        least=_mapping(item, "least", float),
        scales=_mapping(item, "scales", float),
        units=_units(item, calls) if "units" in item else {},
        dtypes=_mapping(item, "dtypes", str) if "dtypes" in item else {},
        feature_steps=_mapping(item, "every", int) if "every" in item else {},
    )
    sizes = [scale, *case.least.values(), *case.scales.values()]
    _require(all(size >= 0 for size in sizes), "a scale is negative or not a number")
    _require(all(step > 0 for step in case.feature_steps.values()), "a step through features is not positive")
    # A stream carries its states after the first call; the calls of any other case have the same inputs.
    first = calls[0].feeds.keys()
    alike = all(call.feeds.keys() == first or (case.kind == "chunks" and call.feeds.keys() < first) for call in calls)
    _require(alike, "calls of one case differ in inputs")
    apart = all(case.batch_axes.get(name) != axis for name, axis in case.time_axes.items())
    _require(apart, "an axis is time and batch at once")
    times, batches = _sizes(calls, case.time_axes), _sizes(calls, case.batch_axes)
    if case.chunkings:
        fits = all(min(sizes, default=-1) >= 0 and {sum(sizes)} == times for sizes in case.chunkings)
        _require(len(calls) == 1 and fits, "the chunks do not add up to the time steps")
    if case.kind == "pool":
        batched = {*calls[0].feeds, *calls[0].reference} <= case.batch_axes.keys() and len(batches) == 1
        timed = len(calls) > 1 or len(times) == 1
        _require(batched and timed, "the rows of a pool have no batch or time axis in common")
    return case


def _units(item: Any, calls: tuple[Call, ...]) -> dict[str, np.ndarray]:
    """The units of features: a number, a list of one for each feature of an output, or lists of lists for more axes."""
    found = {}
    for name, unit in _typed(item, "units", dict).items():
        array = np.array(unit)
        _require(array.dtype.kind in "if", f"the units of {name!r} are not numbers")
        fitting = all(fits(array, call.reference[name]) for call in calls if name in call.reference)
        _require(fitting, f"the units of {name!r} do not fit its features")
        _require(bool((array > 0).all()), "a unit is not positive")
        found[name] = array.astype(np.float64)
    return found


def _sizes(calls: tuple[Call, ...], axes: Mapping[str, int]) -> set[int]:
    """The sizes of the inputs along these axes."""
    return {array.shape[axes[name]] for call in calls for name, array in call.feeds.items() if name in axes}


def _call(item: Any, arrays: Arrays) -> Call:
    feeds, native, reference = (_named(item, key, arrays) for key in ("feeds", "own", "reference"))
    _require(bool(feeds), "a call has no inputs")
    same = native.keys() == reference.keys() and all(
        native[name].shape == array.shape and native[name].dtype.kind == array.dtype.kind
        for name, array in reference.items()
    )
    _require(same and bool(reference), "PyTorch's outputs and their references do not fit each other")
    label = _typed(item, "label", str) if "label" in item else ""
    least = _mapping(item, "least", float) if "least" in item else {}
    _require(all(size >= 0 for size in least.values()), "a least error is negative or not a number")
    call = Call(feeds, as_float64(native), as_float64(reference), label, least)
    # An integer that rounding may change differs between `own` and the reference; any other has no second value.
    known = call.integers & {*_each(item, "ties", str)} if "ties" in item else set()
    return replace(call, ties={name: reference[name][None] for name in known})


def _named(item: Any, key: str, arrays: Arrays) -> Arrays:
    return {name: taken(arrays, place) for name, place in _typed(item, key, dict).items()}


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
    """A value of the header; an integer is accepted as a float, a float is never truncated to an integer."""
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
    _require(value in allowed, f"its {key!r} is not one of {', '.join(allowed)}")
    return value


def _each(item: Any, key: str, kind: type) -> list[Any]:
    return [_typed({key: value}, key, kind) for value in _typed(item, key, list)]


def _mapping(item: Any, key: str, kind: type) -> dict[str, Any]:
    return {name: _typed({key: value}, key, kind) for name, value in _typed(item, key, dict).items()}
