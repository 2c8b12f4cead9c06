"""``lstm-onnx verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..spec import PRECISIONS
from .options import is_given, json_option, note, progress, seed_option, threads_option, warn
from .params import FILE, NumberRange, ProviderName, column_names, option
from .reports import check_files, file_options, show

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from ..parity.golden_file import Golden
    from ..parity.report import ParityReport
    from ..parity.user_data import UserData

_WITH_SOURCE = {"precisions": "--precision", "data": "--data", "columns": "--columns", "seed": "--seed"}
"""Parameters that need a SOURCE, and are errors with a golden file: parameter names and options."""


@click.command()
@click.argument("source", type=FILE)
@click.argument("file", required=False, type=FILE)
@option(
    "--provider",
    "providers",
    type=ProviderName(),
    multiple=True,
    default=("auto",),
    help="Execution provider, as in run; may be repeated.",
)
@option(
    "--runtime",
    "runtimes",
    type=click.Choice(["onnxruntime", "openvino", "onnxruntime-web", "tract"]),
    multiple=True,
    default=("onnxruntime",),
    help="Engine that runs the file; all but onnxruntime run on the CPU only; may be repeated.",
)
@threads_option
@option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Precision of the fresh export, as in export; may be repeated.  [default: that of SOURCE]",
)
@option(
    "--mutants",
    type=click.Choice(["none", "quick", "all"]),
    default="quick",
    help="How many mutants of the file to try; each must be rejected.",
)
@option(
    "--max-drift",
    metavar="SHARE",
    type=NumberRange(min=0),
    help="For int8 and float16: fail if an output differs from float64 by more than this share of it (0.01 is 1 %).",
)
@option("--data", metavar="DATA", type=FILE, help="Also compare on these inputs, in any format that run reads.")
@option(
    "--columns",
    metavar="A,B,...",
    callback=column_names,
    help="Feature columns of a --data table; a name with a comma goes in double quotes.  [default: all]",
)
@option(
    "--golden",
    metavar="OUT.npz",
    type=FILE,
    help="Write a golden file, or replace it, if the comparison passes; with only a FILE, compare FILE with it, "
    "without PyTorch.",
)
@seed_option
@file_options
@json_option
def verify(
    source: str,
    file: str | None,
    providers: tuple[str, ...],
    runtimes: tuple[str, ...],
    precisions: tuple[str, ...],
    data: str | None,
    columns: list[str] | None,
    golden: str | None,
    junit: str | None,
    html: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Compare FILE with the PyTorch model SOURCE.

    SOURCE is that of export.  Without FILE, a fresh export of it is compared.  Each provider, runtime and precision
    is compared in turn, with its own report.  With several of them, --json prints an object with the key "reports".

    With only a FILE and --golden, FILE is compared with a golden file of an earlier run.

    For a FILE in int8 or float16, SOURCE may be the float32 .onnx file that it was made from; then PyTorch is not
    needed.
    """
    from dataclasses import replace

    from ..atomic_io import require_apart
    from ..errors import EXIT_FAILED, ConfigError

    check_files(junit, html)
    if file is not None and file.lower().endswith(".toml"):
        raise click.UsageError(f"{file} is a SOURCE, which comes before FILE: lstm-onnx verify {file} {source}")
    require_apart([junit, html], [source, file, data, golden])
    to_store: Golden | None = None
    if source.lower().endswith(".onnx") and file is not None:
        if set(runtimes) != {"onnxruntime"}:
            raise ConfigError(f"{file}: is compared with {source} in ONNX Runtime; leave --runtime out")
        if precisions:
            raise click.UsageError(f"--precision is for fresh exports of a PyTorch model, but {source} is a file")
        _check_golden(golden)
        reports, to_store = _with_float32(source, file, providers, _data(data, columns), settings)
    elif source.lower().endswith(".onnx"):
        reports = _against_golden(source, golden, providers, runtimes, settings)
    else:
        from ..exporter.sources.source import source_files

        user_data = _data(data, columns)
        _check_golden(golden, [*source_files(source), file, data], precisions)
        require_apart([junit, html], source_files(source))
        if file is not None and precisions:
            raise ConfigError(f"--precision is for fresh exports, but {file} was given; leave one of them out")
        reports, to_store = _with_pytorch(
            source, file, providers, runtimes, precisions, user_data, {**settings, "golden": golden is not None}
        )
    reports = [replace(report, command=_command_line()) for report in reports]

    def store() -> None:
        if golden is not None and to_store is not None:
            _store(golden, to_store, passed=all(reports))

    show(reports, as_json=as_json, junit=junit, html=html, more=store)
    return 0 if all(reports) else EXIT_FAILED


def _data(path: str | None, columns: list[str] | None) -> UserData | None:
    if path is None:
        if columns:
            raise click.UsageError("--columns is for a --data table, but no --data was given")
        return None
    import warnings

    from ..parity.user_data import read

    warnings.filterwarnings("ignore", ".* has a NaN", RuntimeWarning)  # the report says where the results differ
    return read(path, columns=columns)


def _check_golden(
    path: str | None, read: Sequence[str | os.PathLike[str] | None] = (), precisions: tuple[str, ...] = ()
) -> None:
    """Check that the golden file, if one was asked for, can be written, and is not one of the files that are read."""
    from ..atomic_io import require_apart, require_writable
    from ..parity.golden_file import require_golden_or_none, require_name

    if path is None:
        return
    if len(precisions) > 1:
        raise click.UsageError("--golden stores one comparison; pass --precision once")
    require_writable(require_name(path))
    require_apart([path], read)
    require_golden_or_none(path)


def _store(path: str, golden: Golden, *, passed: bool) -> None:
    import os

    from ..parity.golden_file import write

    if passed:
        done = "replaced" if os.path.exists(path) else "wrote"  # noqa: PTH110 - it accepts names of any length
        write(path, golden)
        note(f"{done} {path}: {len(golden.cases)} cases")
    else:
        warn(f"{path} was not written, because the comparison failed")


def _with_pytorch(
    source: str,
    file: str | None,
    providers: tuple[str, ...],
    runtimes: tuple[str, ...],
    precisions: tuple[str, ...],
    user_data: UserData | None,
    settings: dict[str, Any],
) -> tuple[list[ParityReport], Golden]:
    """Compare FILE, or fresh exports, with the PyTorch model; `settings` are --threads, --mutants and so on."""
    from ..exporter.dependencies import import_torch
    from ..exporter.sources.source import load_source

    model = load_source(source)
    import_torch("verify compares with it")
    from ..parity.verification import verify_all

    verified = verify_all(
        model,
        file,
        providers=providers,
        runtimes=runtimes,
        precisions=precisions,
        data=user_data or (),
        progress=progress,
        **settings,
    )
    return [done.report for done in verified], verified[0].golden


def _with_float32(
    source: str, file: str, providers: tuple[str, ...], user_data: UserData | None, settings: dict[str, Any]
) -> tuple[list[ParityReport], Golden]:
    """Compare FILE, in int8 or float16, with its float32 file on each provider."""
    from ..parity.converted.source_file import verify_source_file

    found = [
        verify_source_file(source, file, provider=provider, data=user_data or (), **settings) for provider in providers
    ]
    return [report for report, _ in found], found[0][1]


def _against_golden(
    path: str, golden: str | None, providers: tuple[str, ...], runtimes: tuple[str, ...], settings: dict[str, Any]
) -> list[ParityReport]:
    if golden is None:
        raise click.UsageError(f"{path} is a FILE; put the SOURCE to compare it with before it, or pass --golden")
    for parameter, name in _WITH_SOURCE.items():
        if is_given(parameter):
            raise click.UsageError(f"{name} needs a SOURCE, but {path} is compared with {golden}")
    from ..parity.golden import verify_golden

    # By default there are no mutants here, since they need onnx, which running a model does not.
    chosen = {**settings, "mutants": settings["mutants"] if is_given("mutants") else "none"}
    del chosen["seed"]
    return [
        verify_golden(path, golden, provider=provider, runtime=runtime, **chosen)
        for runtime in runtimes
        for provider in providers
    ]


def _command_line() -> str:
    """The command line, quoted for a shell."""
    import shlex

    return shlex.join(["lstm-onnx", *(click.get_current_context().obj or [])])
