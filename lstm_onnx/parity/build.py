"""Builds a report from results, with or without PyTorch: interface problems, ranges, the self-test, versions.

A report's ranges are the sizes and values that the file was compared at: a verdict covers no others.
"""

from __future__ import annotations

import datetime as dt
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..runtime import Model
from ..runtime.providers import onnxruntime
from ..runtime.tensor_info import axis_sizes
from ..symbolic_dims import size_of
from ..version import __version__
from .expected import Arrays, Call, Expected
from .own_states import file_only
from .replay import replay
from .report import ParityReport
from .results import CaseResult, Range
from .runtimes import engine_of, note_of
from .stream_counts import stream_problems

if TYPE_CHECKING:
    from .mutants.self_test import Target

INTERFACE = "inputs and outputs"
"""The label of the case on the file's interface."""
STREAMS = "streams as the metadata describe them"
"""The label of the case on the metadata of streams; see `stream_counts`."""


def build_report(
    model: Model,
    source: str,
    results: Iterable[CaseResult],
    pairs: Sequence[tuple[Expected, CaseResult]],
    notes: Iterable[str],
    *,
    file: str | None = None,
    torch_versions: Mapping[str, str] | None = None,
) -> ParityReport:
    """A report on results, without causes and self-test.

    Args:
        model: the file, open.
        source: the name of the PyTorch module in the report.
        results: of every case.
        pairs: the cases of the file as it is, and their results.
        notes: the report's notes.
        file: the name of the file in the report; its path by default.
        torch_versions: the versions of torch and other packages that computed the numbers.
    """
    results, notes = list(results), list(notes)
    problems = list(_interface_problems(model, [expected for expected, _ in pairs]))
    if problems and model.metadata.versions:
        # Files from lstm-onnx have exactly the module's inputs and outputs.
        results.append(CaseResult(INTERFACE, error="; ".join(problems), kind="described"))
    else:
        notes += problems
    results += [CaseResult(STREAMS, error=problem, kind="described") for problem in stream_problems(model)]
    versions = {
        "lstm-onnx": __version__,
        **(torch_versions or {}),
        "onnxruntime": str(onnxruntime().__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    engine = engine_of(model)
    if engine is not None:
        versions = {"lstm-onnx": __version__, engine.title: engine.version, **versions}
        notes += [note_of(model)] if note_of(model) else []
    return ParityReport(
        file or model.path,
        source,
        model.provider,
        tuple(results),
        tuple(notes),
        versions=versions,
        ranges=ranges_of(model, pairs),
        digest=model.metadata.digest,
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        commit=git_commit(),
        runtime=f"{engine.title} {engine.version}" if engine is not None else "",
    )


def with_mutants(
    report: ParityReport,
    model: Model,
    expected: Sequence[Expected],
    level: str,
    seed: int = 0,
    *,
    amplified: Target | None = None,
    harder: Iterable[Target] = (),
) -> ParityReport:
    """A passing report with the results of the self-test; see `mutants.self_test` for the arguments.

    The cases of `harder` are added to the report's.
    """
    from .mutants.self_test import self_test

    added: list[CaseResult] = []
    further = passed_targets(harder, added)
    results = tuple(self_test(model, expected, level, seed, amplified=amplified, harder=further, ranges=report.ranges))
    return replace(report, mutants=results, cases=(*report.cases, *added))


def passed_targets(targets: Iterable[Target], results: list[CaseResult]) -> Iterator[Target]:
    """The targets that have cases and whose file passes them; their results are added to `results`."""
    for target in targets:
        found = [replay(target.model, case) for case in target.expected]
        if found and all(result.passed for result in found):
            results += found
            yield target


def _interface_problems(model: Model, expected: Sequence[Expected]) -> Iterator[str]:
    """Inputs and outputs of the file that PyTorch does not have, and declared shapes that are not PyTorch's."""
    known = {name for case in expected for call in case.calls for name in call.reference}
    calls = [call for case in expected if not case.feature_steps for call in case.calls]
    extra = [name for name in model.outputs if name not in known | file_only(model.metadata)]
    if extra and known:
        yield f"the file also returns {', '.join(extra)}, which PyTorch does not"
    optional = [item.name for item in model.session.get_overridable_initializers()]
    if optional:
        yield f"the file also takes {', '.join(optional)}, which PyTorch does not, with a default"
    for name, info in model.outputs.items():
        shapes = ((call.reference[name].shape, _axis_sizes(model, call)) for call in calls if name in call.reference)
        wrong = min((shape for shape, sizes in shapes if not _fits(info.shape, shape, sizes)), default=None)
        if wrong is not None:
            declared = ", ".join("?" if dim is None else str(dim) for dim in info.shape)
            yield f"the file declares {name} as ({declared}), but PyTorch's may be {wrong}"


def _axis_sizes(model: Model, call: Call) -> dict[str, int]:
    """The sizes of the named axes in a call; empty for a file that streams, whose outputs come later than PyTorch's."""
    return {} if model.metadata.streaming is not None else axis_sizes(model.inputs, call.feeds)


def _fits(declared: Sequence[int | str | None], shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
    if not declared:  # no shape is declared
        return True
    known = [size_of(dim, sizes) if isinstance(dim, str) else dim for dim in declared]
    return len(known) == len(shape) and all(dim in (None, size) for dim, size in zip(known, shape, strict=True))


def git_commit() -> str:
    """The commit of the working directory's git repository; "" where there is none."""
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        # Unlike git status, this runs no program that the repository's configuration names.
        command = [git, "rev-parse", "--verify", "--short=12", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


_AT_SIZES = ("whole", "values", "data", "sweep")
"""Kinds of cases whose sizes are those of a whole call, not of chunks."""
_MOST_VALUES = 2**18
"""The most distinct integers of an input that are recorded."""


@dataclass
class _Found:
    sizes: dict[str, set[int]]
    integers: dict[str, set[int]]
    floats: dict[str, tuple[float, float]]


def ranges_of(model: Model, compared: Iterable[tuple[Expected, CaseResult]]) -> tuple[Range, ...]:
    """The sizes of each dynamic axis and the values of each input in the conclusive cases."""
    found = _Found({}, {}, {})
    for expected, result in compared:
        if result.inconclusive:
            continue
        for call in expected.calls:
            if expected.kind in _AT_SIZES:
                for axis, size in _sizes(model, expected, call.feeds):
                    found.sizes.setdefault(axis, set()).add(size)
            _note_values(found, call.feeds)
    return tuple(_ranges(found))


def _sizes(model: Model, expected: Expected, feeds: Arrays) -> Iterator[tuple[str, int]]:
    """The sizes of the dynamic axes, by the file's names, or by their roles where the file names none."""
    for name, array in feeds.items():
        info = model.inputs.get(name)
        for axis, dim in enumerate(() if info is None else info.shape[: array.ndim]):
            roles = {"batch": expected.batch_axes, "time": expected.time_axes}
            role = next((role for role, axes in roles.items() if axes.get(name) == axis), None)
            label = dim if isinstance(dim, str) and dim.isidentifier() else role if dim is None else None
            if label is not None:
                yield label, array.shape[axis]


def _note_values(found: _Found, feeds: Mapping[str, np.ndarray]) -> None:
    for name, array in feeds.items():
        if array.dtype.kind in "iu":
            integers = found.integers.setdefault(name, set())
            if len(integers) < _MOST_VALUES:
                integers.update(np.unique(array).tolist())
        elif array.dtype.kind == "f":
            finite = array[np.isfinite(array)].astype(np.float64)
            least, largest = found.floats.get(name, (np.inf, -np.inf))
            least, largest = min(least, finite.min(initial=np.inf)), max(largest, finite.max(initial=-np.inf))
            if least <= largest:
                found.floats[name] = float(least), float(largest)


def _ranges(found: _Found) -> Iterator[Range]:
    for kind, each in (("sizes", found.sizes), ("integers", found.integers)):
        for name, values in each.items():
            if values:
                yield Range(name, kind, min(values), max(values), tuple(sorted(values)))
    for name, (least, largest) in found.floats.items():
        yield Range(name, "numbers", least, largest)
