"""The pytest plugin: parity checks as tests.

pytest loads it automatically; ``-p no:lstm_onnx`` disables it.  The fixture `lstm_onnx_parity` is
`lstm_onnx.testing.assert_parity` with the options of the command line::

    def test_net(lstm_onnx_parity):
        lstm_onnx_parity(net, "net.onnx")

The marker of the same name runs the test once for each configured model, which the fixture then uses::

    @pytest.mark.lstm_onnx_parity("models/*.toml", mutants="quick")
    def test_models(lstm_onnx_parity):
        lstm_onnx_parity()

Its arguments are file patterns, relative to pytest's root folder, and ``package.module:callable``.
``file="build/{stem}.onnx"`` names the files to compare, by the source's name; without it each source is exported
afresh.  The other arguments of `assert_parity` are options of the marker, so without torch it is
``lstm_onnx_parity("build/*.onnx", golden="golden/{stem}.npz")``.  A pattern without files is a test that fails.

Every run of pytest imports it, so it imports nothing heavy.
"""

from __future__ import annotations

import glob
import hashlib
import inspect
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .testing import ParityError, assert_parity

if TYPE_CHECKING:
    from .parity.report import ParityReport

_NAME = "lstm_onnx_parity"
_PAGES = pytest.StashKey[int]()
"""How many pages a test has so far."""
_OPTIONS = tuple(inspect.getfullargspec(assert_parity).kwonlyargs)


@dataclass
class ParityCheck:
    """`assert_parity` in one test, with the options of the command line and of the test's marker.

    `source` and `file` are the marker's, None where there is no marker; `problem` is what is wrong with the marker,
    which fails the test.
    """

    source: str | None = None
    file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    called: bool = False

    def __call__(self, source: Any = None, file: Any = None, **options: Any) -> ParityReport:
        """Assert that `file` gives what `source` gives; arguments that are left out are the marker's.

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
        if self.problem:
            pytest.fail(self.problem, pytrace=False)
        if source is None:
            if self.source is None:
                pytest.fail(f"{_NAME}() needs a source here: only the marker {_NAME} gives one")
            source = _relative(self.source)
        file = _relative(self.file) if file is None else file
        options = {**self.options, **options}
        if "golden" in options:
            options["golden"] = _relative(options["golden"])
        return assert_parity(source, file, **options)


@pytest.fixture
def lstm_onnx_parity(request: pytest.FixtureRequest) -> ParityCheck:
    """`lstm_onnx.testing.assert_parity`, with the options of the command line and of the marker lstm_onnx_parity."""
    options = {name: request.config.getoption(f"lstm_onnx_{name}") for name in ("provider", "mutants")}
    options = {name: value for name, value in options.items() if value is not None}
    marked: ParityCheck = getattr(request, "param", ParityCheck())
    return ParityCheck(marked.source, marked.file, {**options, **marked.options}, marked.problem)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, which are defaults of the checks."""
    group = parser.getgroup("lstm-onnx", "parity of ONNX files with PyTorch")
    group.addoption(
        "--lstm-onnx-provider",
        choices=("auto", "cpu", "cuda"),
        help=f"The default provider of {_NAME}; cuda means CUDA or an error.",
    )
    group.addoption(
        "--lstm-onnx-mutants",
        choices=("none", "quick", "all"),
        help=f"The default number of mutants (wrong copies of a file) of {_NAME}; quick is one of each kind.",
    )
    group.addoption(
        "--lstm-onnx-html",
        metavar="DIR",
        help="Write the report of each failed parity check to this folder, as an HTML page.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{_NAME}(*sources, file=None, **options): run the test once for each configured model; sources are patterns "
        "of .toml files and package.module:callable, {stem} in file is the source's name, options are assert_parity's.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the test once for each source of its markers; a wrong marker is one test that fails."""
    test = metafunc.definition
    checks: list[tuple[str, ParityCheck]] = []
    if _NAME not in metafunc.fixturenames:
        return  # see `pytest_runtest_call`
    for marker in test.iter_markers(_NAME):
        try:
            checks += list(_checks(marker, metafunc.config.rootpath))
        except (TypeError, ValueError) as error:
            checks.append(("wrong marker", ParityCheck(problem=f"the marker {_NAME} {error}")))
    if checks:
        names, values = zip(*checks, strict=True)
        metafunc.parametrize(_NAME, values, ids=names, indirect=True)


def _checks(marker: pytest.Mark, root: Path) -> Iterator[tuple[str, ParityCheck]]:
    """The checks of a marker, by the sources' names.

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
    sources: dict[str, str] = {}
    for pattern in marker.args:
        found = dict(_sources(pattern, root))
        if not found:
            problem = f"the marker {_NAME} names {pattern}, and there is no such file in {root}"
            yield os.fspath(pattern), ParityCheck(problem=problem)
        sources |= found
    if file is not None and len(sources) > 1 and "{stem}" not in os.fspath(file):
        raise ValueError(f"has file={file!r} for {len(sources)} sources; put {{stem}} in it, the source's own name")
    for name, place in sources.items():
        beside = {"file": file, "golden": options.get("golden")}
        paths = {key: _beside(path, name, root) for key, path in beside.items() if path is not None}
        yield name, ParityCheck(place, paths.pop("file", None), {**options, **paths})


def _sources(pattern: Any, root: Path) -> Iterator[tuple[str, str]]:
    """The name and the path of each source; names are the same on every machine and in every worker."""
    if not isinstance(pattern, (str, os.PathLike)):
        kind = type(pattern).__name__
        raise TypeError(f"takes patterns of files and package.module:callable, and not a {kind}; call {_NAME} with it")
    text = os.fspath(pattern)
    if re.fullmatch(r"[\w.]+:[\w.]+", text):
        yield text, text
        return
    # Path.glob refuses a pattern that starts at the root of a drive.
    for path in sorted(glob.glob(text, root_dir=root, recursive=True)):  # noqa: PTH207
        yield Path(path).as_posix(), str(root / path)


def _beside(path: str | os.PathLike[str], source: str, root: Path) -> str:
    """The path of a file that belongs to a source."""
    return str(root / os.fspath(path).replace("{stem}", Path(source.rpartition(":")[2]).stem))


def _relative(path: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """`path` relative to the working directory where it is inside, for reports and errors."""
    here = Path.cwd()
    return Path(path).relative_to(here) if path is not None and Path(path).is_relative_to(here) else path


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test, also a method of a unittest.TestCase, that is marked and does not take the fixture."""
    if isinstance(item, pytest.Function) and item.get_closest_marker(_NAME) and _NAME not in item.fixturenames:
        advice = "add it to its arguments (a unittest.TestCase takes no fixtures: use a function)"
        pytest.fail(f"it is marked {_NAME}, and does not take the fixture {_NAME}; {advice}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test whose marker is wrong, or that never calls the fixture."""
    check = pyfuncitem.funcargs.get(_NAME)
    if isinstance(check, ParityCheck) and check.problem:
        pytest.fail(check.problem, pytrace=False)
    result = yield
    if isinstance(check, ParityCheck) and check.source is not None and not check.called:
        pytest.fail(f"it is marked {_NAME} and never called the fixture: {_NAME}()", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the page of a failed check to the folder of --lstm-onnx-html."""
    result = yield
    folder = item.config.getoption("lstm_onnx_html")
    if folder is not None and call.excinfo is not None and isinstance(call.excinfo.value, ParityError):
        # Test names may have characters that file names cannot, and be longer.
        name = re.sub(r"[^\w.-]+", "-", item.nodeid)[:80].strip("-")
        digest = hashlib.sha256(item.nodeid.encode()).hexdigest()[:8]
        number = item.stash[_PAGES] = item.stash.get(_PAGES, 0) + 1  # a test with subtests has several
        path = item.config.invocation_params.dir / folder / f"{name}-{digest}{f'-{number}' if number > 1 else ''}.html"
        result.sections.append(("lstm-onnx", _write_page(call.excinfo.value.report, item.nodeid, path)))
    return result


def _write_page(report: ParityReport, test: str, path: Path) -> str:
    import shlex

    from .atomic_io import atomic_write
    from .errors import LSTMOnnxError
    from .parity.reports.page import page
    from .terminal_text import MOST_MESSAGE, one_line

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream:
            stream.write(page([replace(report, command=shlex.join(["pytest", test]))]).encode())
    except (LSTMOnnxError, OSError) as error:
        return one_line(f"no report was written: {error}", MOST_MESSAGE)
    return one_line(f"report: {path}", MOST_MESSAGE)
