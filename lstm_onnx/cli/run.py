"""``lstm-onnx run``."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .child import needs_child, run_in_child
from .options import detail, is_given, json_option, note, progress, provider_options, seed_option, state_option
from .params import FILE, by_name, column_names, option
from .streams import data_stdout, reader_left, say, stdout_is_closed

if TYPE_CHECKING:
    import numpy as np

    from ..data import Records
    from ..runtime import Model

    Arrays = dict[str, np.ndarray]

_SHOWN_NUMBERS = 60
"""The most elements of an array that is printed in full; larger ones are abbreviated."""
_SHOWN_CHARACTERS = 10_000
"""The most characters of a value that is not an array."""
_COLUMNS_HINT = "; select the feature columns of a table with --columns"


@click.command()
@click.argument("file", type=FILE)
@click.argument("data", required=False, type=FILE)
@option("-o", "--output", type=FILE, help="Write the outputs to FILE, in the format of its suffix; - is stdout.")
@option("--format", "format_", metavar="NAME", help="Format of DATA or FILE if that is -.")
@option(
    "--columns",
    metavar="A,B,...",
    callback=column_names,
    help="Feature columns of a .csv or .parquet table; a name with a comma goes in double quotes.  [default: all]",
)
@option("--size", multiple=True, metavar="AXIS=N", help="Size of a named axis of random input; may be repeated.")
@seed_option
@option("--stream", is_flag=True, help="Run one time step per call and carry the states.")
@option("--chunk", type=click.IntRange(min=1), metavar="N", help="Run N time steps per call and carry the states.")
@state_option(by_name)
@option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray: run a folder of Parquet files on a Ray cluster, and write a folder.",
)
@option(
    "--address",
    metavar="ADDRESS",
    help="Address of the Ray cluster.  [default: RAY_ADDRESS, or a cluster on this machine only]",
)
@option(
    "--isolate/--no-isolate",
    default=None,
    help="Run in a child process, so that a FILE that crashes or hangs is an error.  "
    "[default: unless lstm-onnx wrote FILE]",
)
@provider_options
@json_option
def run(
    file: str,
    data: str | None,
    output: str | None,
    format_: str | None,
    columns: list[str] | None,
    size: tuple[str, ...],
    seed: int,
    stream: bool,
    chunk: int | None,
    states: dict[str, str],
    engine: str,
    address: str | None,
    isolate: bool | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run FILE on DATA, or on random input.

    DATA is .npz, .npy, .csv, .safetensors, .jsonl or .parquet, or - for stdin.  Arrays are matched
    with the model's inputs by name; a .csv, a .npy and a bare .jsonl list are the first input.  A
    .jsonl line and a .parquet row with lists are one sequence each.  States that DATA lacks start
    from the values stored in FILE, or from zeros.

    A file can crash or hang the process that opens it.  If its checksum does not show that
    lstm-onnx wrote it, FILE is run in a child process, with a time limit for opening it and for
    a first run at the smallest sizes.

    With --engine ray DATA is a .parquet file or a folder of them, and -o a folder: one Parquet file per few thousand
    rows.  Both may be URIs such as s3://bucket/folder.  Running the same command again continues with the missing
    files.  --threads applies to each worker; the default is 1.
    """
    steps = _steps(stream, chunk)
    if engine == "ray":
        from .run_on_ray import run_on_ray

        absent = {"--format": format_, "--size": size, "--seed": is_given("seed"), "--json": as_json}
        _require_absent("ray", {**absent, "--isolate": isolate is not None})
        run_on_ray(file, data, output, address, columns, steps, states, provider, threads)
        return
    _require_absent("local", {"--address": address})
    from dataclasses import replace

    from .. import data as data_files
    from ..data.run import run_records

    _require_fitting(data, output, {"--size": size, "--seed": is_given("seed")}, columns, format_, as_json=as_json)
    target = "-" if as_json and output is None else output
    _check_target(target, file, data)
    model = _load(file, provider, threads, states or None, isolate=isolate, limited=data is None and not size)
    detail(lambda: f"{file} runs on {model.provider}")
    if data is None:
        records = _random_input(model, size, seed)
    else:
        source_format = format_ if data == "-" else None
        records = data_files.read(data, format=source_format, columns=columns, name=next(iter(model.inputs), "input"))
    warnings.filterwarnings("ignore", ".* has a NaN", RuntimeWarning)  # a note says this, and for infinities too
    with records, progress(records.rows, "running", records.count) as rows:
        outputs = run_records(
            model, replace(records, rows=rows), chunk=steps, on_note=lambda text: note(f"note: {text}")
        )
        with contextlib.closing(outputs), _columns_hint(records, [*model.inputs], selected=bool(columns)):
            if target is None:
                for index, arrays in enumerate(outputs):
                    _show(arrays, f"# {index}\n" if records.many else "")
                    if data == "-" and reader_left():  # stdin may never end
                        return
                return
            if target == "-":
                form = format_ or ("jsonl" if as_json or records.format == "random" else records.format)
                left_out = _write_to_stdout(outputs, many=records.many, format=form, stops=data == "-")
            else:
                shapes: dict[str, tuple[int, ...]] = {}
                numbered = itertools.count(1)
                left_out = data_files.write(target, _recording_shapes(outputs, shapes, numbered), many=records.many)
                written = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if name not in left_out)
                last = f"{next(numbered) - 1} records, the last " if records.many else ""
                note(f"wrote {target}: {last}{written}")
    if left_out:
        note(f"not written: {', '.join(left_out)} (this format stores a single array; use .npz or .safetensors)")


def _steps(stream: bool, chunk: int | None) -> int | None:
    if stream and chunk is not None:
        raise click.UsageError("--stream and --chunk were both given; pass one of them")
    return 1 if stream else chunk


def _require_fitting(
    data: str | None,
    output: str | None,
    of_random_input: dict[str, Any],
    columns: list[str] | None,
    format_: str | None,
    *,
    as_json: bool,
) -> None:
    """Refuse options that would have no effect (click.UsageError)."""
    for name, given in of_random_input.items():
        if data is not None and given:
            raise click.UsageError(f"{name} is for random input, but DATA was given")
    if data is None and columns:
        raise click.UsageError("--columns is for a table, but no DATA was given")
    if format_ and "-" not in (data, output) and not as_json:
        raise click.UsageError("--format is for stdin and stdout, but neither DATA nor -o is -")
    if as_json and output not in (None, "-"):
        raise click.UsageError("--json prints the outputs to stdout; leave out --json or -o")


def _require_absent(engine: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value:
            raise click.UsageError(f"{name} is not for --engine {engine}; leave it out")


def _check_target(target: str | None, file: str, data: str | None) -> None:
    """Check that the target can be written, before anything is computed.

    Raises:
        FileError: see `require_writable` and `require_apart`; or the suffix is unknown, or stdout is closed.
    """
    from ..atomic_io import require_apart, require_writable
    from ..data import format_of
    from ..errors import FileError

    if target == "-" and stdout_is_closed():
        raise FileError("is closed, so the outputs would be lost", hint="name a file with -o", path="stdout")
    if target is not None and target != "-":
        require_writable(target)
        format_of(target)
        require_apart([target], [file, data])


@contextlib.contextmanager
def _columns_hint(records: Records, inputs: list[str], *, selected: bool) -> Iterator[None]:
    """A context that adds a hint at --columns to an error about a table, the first of `inputs`, or a wrong column."""
    from ..errors import InputError

    try:
        yield
    except InputError as error:
        if not selected and records.is_table and error.name in (None, *inputs[:1]):
            raise InputError(f"{error}{_COLUMNS_HINT}") from error
        if not selected and records.format == "parquet" and error.name not in (None, *inputs):
            raise InputError(f"{error}; select the columns that are inputs with --columns") from error
        raise


def _write_to_stdout(outputs: Iterator[Arrays], *, many: bool, format: str, stops: bool) -> tuple[str, ...]:
    """Write the outputs, and return the names left out; with `stops`, end when the reader closes stdout."""
    from ..data import write

    try:
        return write("-", outputs, many=many, format=format, stdout=data_stdout(stops=stops))
    except BrokenPipeError:
        return ()


def _load(
    file: str, provider: str, threads: int | None, states: dict[str, str] | None, *, isolate: bool | None, limited: bool
) -> Model:
    """Load the model, or run this command in a child process and exit with its exit code.

    `limited` is whether the time limit is for the complete run.
    """
    from ..atomic_io import require_readable
    from ..isolation.stages import inside, stage, unlimited

    require_readable(file, "an .onnx file")
    isolated = needs_child(file, isolate)
    if isolated and os.name == "posix":  # on Windows a child process does not inherit another pipe for its stages
        click.get_current_context().exit(run_in_child(file))
    from ..runtime import load

    stage("session creation")
    model = load(file, provider=provider, threads=threads, states=states, trial=isolated)
    if inside():
        from ..runtime.trial import first_run

        first_run(model)
        stage("the run")
        if not limited:
            unlimited()
    return model


def _random_input(model: Model, size: tuple[str, ...], seed: int) -> Records:
    """One record of random input with the sizes given by --size."""
    from ..data.random_input import default_sizes, random_record

    sizes = {axis: model.metadata.nearest_size(axis, number) for axis, number in default_sizes(model).items()}
    for item in size:
        axis, _, number = item.partition("=")
        if sum(other.partition("=")[0] == axis for other in size) > 1:
            raise click.UsageError(f"--size was given twice for {axis}; give it once")
        if axis not in sizes:
            raise click.UsageError(f"--size {item}: the model's named axes are {', '.join(sorted(sizes)) or 'none'}")
        if not number.isascii() or not number.isdecimal() or not 1 <= int(number) < 2**31:
            raise click.UsageError(f"--size {item}: write {axis}=N, with N an integer of 1 or more")
        sizes[axis] = int(number)
    return random_record(model, sizes, seed)


def _recording_shapes(
    outputs: Iterator[Arrays], shapes: dict[str, tuple[int, ...]], numbered: Iterator[int]
) -> Iterator[Arrays]:
    """Yield the outputs; put the shapes of the last record into `shapes`, and advance `numbered` with each record."""
    for arrays, _ in zip(outputs, numbered, strict=False):
        # An output that is an ONNX sequence or map has no shape, and the writer refuses it.
        shapes.update({name: getattr(array, "shape", ()) for name, array in arrays.items()})
        yield arrays


def _show(arrays: dict[str, Any], heading: str) -> None:
    import numpy as np

    from ..terminal_text import one_line

    lines = []
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            lines.append(f"{one_line(name)} {one_line(repr(array), _SHOWN_CHARACTERS)}")  # an ONNX sequence or map
            continue
        lines.append(f"{one_line(name)} {array.dtype} {array.shape}")
        lines.append(
            np.array2string(array, precision=4, suppress_small=True, threshold=_SHOWN_NUMBERS, max_line_width=100)
        )
    say(heading + "\n".join(lines))
