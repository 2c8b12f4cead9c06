"""The pytest plugin: parity checks as tests.

pytest loads it by itself; ``-p no:lstm_onnx`` keeps it out.  The fixture `lstm_onnx_parity` is
`lstm_onnx.testing.assert_parity` under the options of the command line::

    def test_net(lstm_onnx_parity):
        lstm_onnx_parity(net, "net.onnx")

The marker of the same name makes one test of each configured model, and the fixture then knows which::

    @pytest.mark.lstm_onnx_parity("models/*.toml", mutants="quick")
    def test_models(lstm_onnx_parity):
        lstm_onnx_parity()

Its arguments are patterns of files, from pytest's root folder on, and ``package.module:callable``.
``file="build/{stem}.onnx"`` names the files to compare, by the source's own name; without it each
source is exported afresh.  What else `assert_parity` takes is an option of the marker, so without torch it
is ``lstm_onnx_parity("build/*.onnx", golden="golden/{stem}.npz")``.

It is imported in every run of pytest, wanted or not, so it imports nothing heavy.
"""

from __future__ import annotations

import glob
import hashlib
import inspect
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .testing import ParityError, assert_parity

if TYPE_CHECKING:
    from .parity import ParityReport

_NAME = "lstm_onnx_parity"
_OPTIONS = tuple(inspect.getfullargspec(assert_parity).kwonlyargs)


@dataclass
class ParityCheck:
    """`assert_parity` in one test, with the options of the command line and of the test's marker.

    `source` and `file` are the marker's, None where there is no marker.
    """

    source: str | None = None
    file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    called: bool = False

    def __call__(self, source: Any = None, file: Any = None, **options: Any) -> ParityReport:
        """Assert that `file` gives what `source` gives; what is left out is the marker's.

        Args:
            source: as in `assert_parity`.
            file: as in `assert_parity`.
            options: the keyword arguments of `assert_parity`.

        Returns:
            The report, which is truthy.

        Raises:
            ParityError, LSTMOnnxError: see `assert_parity`.
        """
        __tracebackhide__ = True
        self.called = True
        if source is None:
            if self.source is None:
                pytest.fail(f"{_NAME}() needs a source here: only the marker {_NAME} gives one")
            source, file = _from_here(self.source), _from_here(self.file) if file is None else file
        options = {**self.options, **options}
        if "golden" in options:
            options["golden"] = _from_here(options["golden"])
        return assert_parity(source, file, **options)


@pytest.fixture
def lstm_onnx_parity(request: pytest.FixtureRequest) -> ParityCheck:
    """`lstm_onnx.testing.assert_parity`, with the options of the command line and of the marker lstm_onnx_parity."""
    given = {name: request.config.getoption(f"lstm_onnx_{name}") for name in ("provider", "mutants")}
    given = {name: value for name, value in given.items() if value is not None}
    marked: ParityCheck = getattr(request, "param", ParityCheck())
    return ParityCheck(marked.source, marked.file, {**given, **marked.options})


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, which are for checks that do not say otherwise themselves."""
    group = parser.getgroup("lstm-onnx", "parity of ONNX files with PyTorch")
    group.addoption(
        "--lstm-onnx-provider",
        choices=("auto", "cpu", "cuda"),
        help=f"Where {_NAME} runs files, unless a test says it; cuda means CUDA or an error.",
    )
    group.addoption(
        "--lstm-onnx-mutants",
        choices=("none", "quick", "all"),
        help=f"How many wrong copies of a file {_NAME} tries, unless a test says it; quick is one of each kind.",
    )
    group.addoption(
        "--lstm-onnx-html",
        metavar="DIR",
        help="Write the report of each failed parity check to this folder, as a page to look at.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{_NAME}(*sources, file=None, **options): one test of each configured model; sources are patterns of .toml "
        "files and package.module:callable, {stem} in file is the source's name, and options are assert_parity's.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each source that the markers name."""
    test = metafunc.definition
    checks: list[tuple[str, ParityCheck]] = []
    for marker in test.iter_markers(_NAME):
        if _NAME not in metafunc.fixturenames:
            raise pytest.Collector.CollectError(
                f"{test.nodeid}: is marked {_NAME}, so it must call the fixture {_NAME}; add it to its arguments"
            )
        try:
            checks += _checks(marker, metafunc.config.rootpath)
        except (TypeError, ValueError) as error:
            raise pytest.Collector.CollectError(f"{test.nodeid}: the marker {_NAME} {error}") from error
    if checks:
        names, values = zip(*checks, strict=True)
        metafunc.parametrize(_NAME, values, ids=names, indirect=True)


def _checks(marker: pytest.Mark, root: Path) -> Iterator[tuple[str, ParityCheck]]:
    """What a marker asks for, and the sources' names.

    Raises:
        TypeError, ValueError: the marker is not possible.
    """
    options = dict(marker.kwargs)
    file = options.pop("file", None)
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ValueError(f"has no option {unknown[0]}; options are file, {', '.join(_OPTIONS)}")
    if not marker.args:
        raise ValueError('names no source; write one, such as "models/*.toml"')
    sources = {name: place for pattern in marker.args for name, place in _sources(pattern, root)}
    if file is not None and len(sources) > 1 and "{stem}" not in os.fspath(file):
        raise ValueError(f"has file={file!r} for {len(sources)} sources; put {{stem}} in it, the source's own name")
    for name, place in sources.items():
        beside = {"file": file, "golden": options.get("golden")}
        own = {key: _beside(path, name, root) for key, path in beside.items() if path is not None}
        yield name, ParityCheck(place, own.pop("file", None), {**options, **own})


def _sources(pattern: Any, root: Path) -> Iterator[tuple[str, str]]:
    """The name and the place of each source; names are the same on every machine and in every worker."""
    if not isinstance(pattern, (str, os.PathLike)):
        kind = type(pattern).__name__
        raise TypeError(f"takes patterns of files and package.module:callable, and not a {kind}; call {_NAME} with it")
    text = os.fspath(pattern)
    if re.fullmatch(r"[\w.]+:[\w.]+", text):
        yield text, text
        return
    # Path.glob refuses a pattern that starts at the root of a drive.
    found = sorted(glob.glob(text, root_dir=root, recursive=True))  # noqa: PTH207
    if not found:
        raise ValueError(f"names {text}, and there is no such file in {root}")
    for path in found:
        yield Path(path).as_posix(), str(root / path)


def _beside(path: str | os.PathLike[str], source: str, root: Path) -> str:
    """The place of what goes with a source."""
    return str(root / os.fspath(path).replace("{stem}", Path(source.rpartition(":")[2]).stem))


def _from_here(path: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """`path` as a person in this folder would write it, since reports and errors show it."""
    here = Path.cwd()
    return Path(path).relative_to(here) if path is not None and Path(path).is_relative_to(here) else path


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A marked test that checks nothing must not pass."""
    result = yield
    check = pyfuncitem.funcargs.get(_NAME)
    if isinstance(check, ParityCheck) and check.source is not None and not check.called:
        pytest.fail(f"it is marked {_NAME} and never called the fixture: {_NAME}()", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the page of a failed check, where a folder for it was named."""
    result = yield
    folder = item.config.getoption("lstm_onnx_html")
    if folder is not None and call.excinfo is not None and isinstance(call.excinfo.value, ParityError):
        # Test names hold what file names cannot, and may be longer.
        name = re.sub(r"[^\w.-]+", "-", item.nodeid)[:80].strip("-")
        digest = hashlib.sha256(item.nodeid.encode()).hexdigest()[:8]
        path = item.config.invocation_params.dir / folder / f"{name}-{digest}.html"
        result.sections.append(("lstm-onnx", _written(call.excinfo.value.report, path)))
    return result


def _written(report: ParityReport, path: Path) -> str:
    from .atomic_io import atomic_write
    from .errors import LSTMOnnxError
    from .parity.reports.page import page
    from .terminal_text import MOST_MESSAGE, one_line

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream:
            stream.write(page([report]).encode())
    except (LSTMOnnxError, OSError) as error:
        return one_line(f"no report was written: {error}", MOST_MESSAGE)
    return one_line(f"report: {path}", MOST_MESSAGE)
