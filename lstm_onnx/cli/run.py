"""``lstm-onnx run``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import click

from .options import json_option, note, progress, provider_options
from .streams import data_stdout, reader_left, say, stdout, stdout_is_closed

if TYPE_CHECKING:
    import numpy as np

    from ..data import Records
    from ..runtime import Model

    Arrays = dict[str, np.ndarray]

_SHOWN = 60
"""Arrays of more numbers than this are shown by their ends."""
_MOST_SHOWN = 10_000
"""Characters of what is no array."""
_COLUMNS_HINT = "; choose the features among a table's columns with --columns"


@click.command()
@click.argument("file")
@click.argument("data", required=False)
@click.option(
    "-o", "--output", metavar="FILE", help="Write the outputs here, in the format of its suffix; - is stdout."
)
@click.option("--format", "format_", metavar="NAME", help="Format of what is read from and written to -.")
@click.option("--columns", metavar="A,B,...", help="The columns of a .csv or .parquet table that are the features.")
@click.option("--size", multiple=True, metavar="AXIS=N", help="Without DATA: a named axis of the random input.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Without DATA: for the input.")
@click.option("--stream", is_flag=True, help="Feed the steps one by one, carrying the states.")
@click.option("--chunk", type=click.IntRange(min=1), metavar="N", help="Feed N steps at a time, carrying the states.")
@click.option(
    "--isolate/--no-isolate",
    default=None,
    help="Run in a child process, so that a FILE that ends or hangs it is an error of one line.  [default: unless "
    "lstm-onnx wrote FILE]",
)
@provider_options
@json_option
def run(
    file: str,
    data: str | None,
    output: str | None,
    format_: str | None,
    columns: str | None,
    size: tuple[str, ...],
    seed: int,
    stream: bool,
    chunk: int | None,
    isolate: bool | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run FILE on DATA, or on random input of the sizes asked for.

    DATA is .npz, .npy, .csv, .safetensors, .jsonl or .parquet, or - for stdin.  Arrays go by the
    model's input names; a .csv, .npy or bare .jsonl line is the first input.  A .jsonl line and a
    .parquet row with lists are one sequence each.  States that are absent are what the file starts
    them from, or zeros.

    FILE can end or hang the process that opens it.  Where its checksum does not say that lstm-onnx wrote
    it, it is run in a child process; opening it and running it once at the smallest sizes have a time limit.
    """
    from .. import data as files

    if data is not None and size:
        raise click.UsageError("--size goes with random input, not with DATA")
    if data is None and columns:
        raise click.UsageError("--columns goes with DATA that is a table")
    if format_ and "-" not in (data, output) and not as_json:
        raise click.UsageError("--format goes with -, the standard input or output")
    if as_json and output not in (None, "-"):
        raise click.UsageError("--json prints the outputs; with -o FILE they go there instead")
    target = "-" if as_json and output is None else output
    _check_target(target, file, data)
    model = _opened(file, provider, threads, isolate=isolate, limited=data is None and not size)
    if data is None:
        records = _random_records(model, _sizes(model, size), seed)
    else:
        chosen = [name.strip() for name in columns.split(",")] if columns else None
        source_format = format_ if data == "-" else None
        records = files.read(data, format=source_format, columns=chosen, name=next(iter(model.inputs), "input"))
    steps = chunk or (1 if stream else None)
    with (
        records,
        progress(records.rows, "running", records.count) as rows,
        contextlib.closing(
            _results(model, rows, records, steps=steps, hint="" if columns else _COLUMNS_HINT)
        ) as results,
    ):
        if target is None:
            for index, result in enumerate(results):
                _show(result, f"# {index}\n" if records.many else "")
                if data == "-" and reader_left():  # more may come for ever
                    return
            return
        if target == "-":
            form = format_ or ("jsonl" if as_json or records.format == "random" else records.format)
            left_out = _written_to_stdout(results, many=records.many, format=form, stops=data == "-")
        else:
            shapes: dict[str, tuple[int, ...]] = {}
            left_out = files.write(target, _noting(results, shapes), many=records.many)
            kept = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if name not in left_out)
            note(f"wrote {target}: {kept}{' in the last of its records' if records.many else ''}")
    if left_out:
        note(f"left out: {', '.join(left_out)} (this format holds one array; .npz and .safetensors hold them all)")


def _check_target(target: str | None, file: str, data: str | None) -> None:
    """Refuse what could not be written, before anything is computed.

    Raises:
        FileError: see `files.require_writable` and `files.require_apart`; or the suffix names no format.
    """
    from ..atomic_io import require_apart, require_writable
    from ..data import format_of

    if target is not None and target != "-":
        require_writable(target)
        format_of(target)
        require_apart([target], [file, data])


def _written_to_stdout(results: Iterator[Arrays], *, many: bool, format: str, stops: bool) -> tuple[str, ...]:
    """What was left out; with `stops`, a reader who leaves is the end of the data as well."""
    from ..data import write

    if stdout_is_closed():
        note("stdout is closed, so the outputs go nowhere; name a file with -o")
    try:
        return write("-", results, many=many, format=format, stdout=data_stdout(stops=stops))
    except BrokenPipeError:
        return ()


def _opened(file: str, provider: str, threads: int | None, *, isolate: bool | None, limited: bool) -> Model:
    """The model; where it is better opened in a child process, this one does no more than wait for that one.

    `limited` is whether the time limit is for all of the run.
    """
    from ..atomic_io import require_readable
    from ..checksum import is_intact
    from ..isolation.stages import inside, stage, unlimited

    require_readable(file, "an .onnx file")
    apart = not inside() and (isolate or (isolate is None and not is_intact(file)))
    if apart and os.name == "posix":  # Windows hands a child no further pipe to tell its stages with
        click.get_current_context().exit(_code_of_child(file))
    from ..runtime import load

    stage("session creation")
    model = load(file, provider=provider, threads=threads, trial=apart)
    if inside():
        from ..runtime.trial import first_run

        first_run(model)
        stage("the run")
        if not limited:
            unlimited()
    return model


def _code_of_child(file: str) -> int:
    """The exit code of this very command in a child process.

    Raises:
        ModelError: the child did not end by itself.
    """
    import sys

    from ..errors import ModelError
    from ..isolation.limits import Limits
    from ..isolation.process import EndedError
    from ..isolation.supervision import supervised

    given = click.get_current_context().obj
    arguments = sys.argv[1:] if given is None else given
    try:
        return supervised("lstm_onnx.cli.main:main", {"arguments": arguments}, Limits.of(file), stdout=stdout())
    except EndedError as ended:
        raise ModelError(f"{file}: a child process that ran it {ended}; lstm-onnx check tells more") from ended


def _results(
    model: Model, rows: Iterator[Arrays], records: Records, *, steps: int | None, hint: str
) -> Generator[Arrays, None, None]:
    from itertools import groupby

    from ..data.fitting import cast, is_one_sequence
    from ..runtime.chunks import run_chunks

    said: set[str] = set()

    def fitting(numbered: tuple[int, Arrays]) -> tuple[int, Arrays]:
        index, row = numbered
        with _placed(records, index, hint):
            feeds, remarks = cast(model.inputs, row, typed=records.typed)
        for remark in sorted(remarks - said):
            note(f"note: {remark}")
        said.update(remarks)
        return index, feeds

    def alone(item: tuple[int, Arrays]) -> bool:
        return records.many and not steps and is_one_sequence(model.inputs, item[1])

    for together, items in groupby(map(fitting, enumerate(rows)), key=alone):
        if together:
            yield from _mapped(model, items)
            continue
        for index, feeds in items:
            with _placed(records, index, hint):
                if steps:
                    result = run_chunks(model, feeds, steps)
                else:
                    result = _run_rows(model, feeds) if _has_many_rows(model, feeds) else _run_whole(model, feeds)
            yield result


@contextlib.contextmanager
def _placed(records: Records, index: int, hint: str) -> Iterator[None]:
    """Say which record an error is of."""
    from ..errors import InputError

    try:
        yield
    except InputError as error:
        place = f"record {index}: " if records.many else ""
        table = records.format in ("csv", "parquet") and not records.many
        raise InputError(f"{place}{error}{hint if table else ''}") from error


def _mapped(model: Model, items: Iterator[tuple[int, Arrays]]) -> Iterator[Arrays]:
    """Records that are one sequence each, many of them at a time."""
    from ..errors import InputError, RunError

    numbers: list[int] = []

    def taken() -> Iterator[Arrays]:
        for index, feeds in items:
            numbers.append(index)
            yield feeds

    try:
        yield from model.map(taken())
    except (InputError, RunError) as error:
        # What map calls a sequence, counted from where it began, is a record of the data here.
        if not isinstance(error.index, int) or error.__cause__ is None:
            raise
        number = numbers[error.index]
        raise type(error)(f"record {number}: {error.__cause__}", name=error.name, index=number) from error


_MANY_ROWS = 64


def _has_many_rows(model: Model, feeds: Arrays) -> bool:
    """Whether a batch is so large that it is better run in parts, on every core."""
    spec = model.spec
    if spec is None or "input" not in feeds or set(feeds) - {"input", "lengths"} or feeds["input"].ndim != 3:
        return False
    return feeds["input"].shape[0 if spec.batch_first else 1] >= _MANY_ROWS and "lengths" in model.inputs


def _run_rows(model: Model, feeds: Arrays) -> Arrays:
    """A large batch row by row through `Model.map`, and put together again."""
    import numpy as np

    from ..runtime.tensor_info import validated_feeds, validated_lengths

    spec = model.spec
    assert spec is not None  # noqa: S101 - the caller's condition
    x = validated_feeds({"input": model.inputs["input"]}, {"input": feeds["input"]})["input"]
    rows = x if spec.batch_first else np.swapaxes(x, 0, 1)
    batch, time = rows.shape[:2]
    lengths = validated_lengths(feeds.get("lengths"), batch, time)
    output = np.zeros((batch, time, spec.output_size), x.dtype)
    hn, cn = np.empty(spec.h_shape(batch), x.dtype), np.empty(spec.c_shape(batch), x.dtype)
    given = (row[:length] for row, length in zip(rows, lengths, strict=True))
    for index, (y, (h, c)) in enumerate(model.map(given)):
        output[index, : len(y)], hn[:, index], cn[:, index] = y, h, c
    return {"output": output if spec.batch_first else np.swapaxes(output, 0, 1), "hn": hn, "cn": cn}


def _run_whole(model: Model, feeds: Arrays) -> Arrays:
    import numpy as np

    from ..runtime.tensor_info import require_known_names

    if model.spec is None or "input" not in feeds:
        return model.run(feeds)
    require_known_names(model.inputs, feeds)
    states = None
    if "h0" in feeds or "c0" in feeds:
        given = feeds["h0"] if "h0" in feeds else feeds["c0"]
        axes = given.shape[:-1]  # layers and batch, or layers alone beside one sequence
        zeros = {"h0": (*axes, model.spec.state_size), "c0": (*axes, model.spec.hidden_size)}
        absent = {name: np.zeros(shape, given.dtype) for name, shape in zeros.items() if name not in feeds}
        states = (feeds.get("h0", absent.get("h0")), feeds.get("c0", absent.get("c0")))
    output, (hn, cn) = model(feeds["input"], states, lengths=feeds.get("lengths"))
    return {"output": output, "hn": hn, "cn": cn}


def _sizes(model: Model, given: tuple[str, ...]) -> dict[str, int]:
    """The named axes' sizes: 1, and 10 for times, where --size says nothing."""
    from ..input_spec import axes as axes_of
    from ..runtime.symbolic_dims import size_of

    axes = {dim for info in model.inputs.values() for dim in info.shape if isinstance(dim, str)}
    axes |= set(axes_of(model.metadata.inputs))
    # The size of an axis such as 4*batch follows from the others.
    plain = dict.fromkeys((axis for axis in axes if axis.isidentifier()), 1)
    axes = {axis for axis in axes if axis in plain or size_of(axis, plain) is None}
    sizes = {axis: 10 if axis == "time" or axis.endswith("_time") else 1 for axis in axes}
    for item in given:
        axis, _, number = item.partition("=")
        if axis not in axes:
            raise click.UsageError(f"--size {item}: the model's axes are {', '.join(sorted(axes)) or 'all fixed'}")
        if not number.isascii() or not number.isdecimal() or not 1 <= int(number) < 2**31:
            raise click.UsageError(f"--size {item}: write it as {axis}=N, N an integer of 1 or more")
        sizes[axis] = int(number)
    return sizes


def _random_records(model: Model, sizes: dict[str, int], seed: int) -> Records:
    """One record: what the file says of its inputs, standard normal numbers for others; no states, no lengths."""
    import numpy as np

    from ..data import Records
    from ..errors import InputError
    from ..input_spec import draw
    from ..runtime.symbolic_dims import size_of

    rng = np.random.default_rng(seed)
    specs = [spec for spec in model.metadata.inputs if spec.name not in model.states]
    record: Arrays = draw(specs, sizes, rng)
    for name, info in model.inputs.items():
        if name in record or name in model.states or (name == "lengths" and model.spec is not None):
            continue
        if info.dtype is None or not np.issubdtype(info.dtype, np.floating):
            raise InputError(f"random input is made of real numbers, and {info} is not; give DATA")
        shape = [size_of(dim, sizes) if isinstance(dim, str) else dim or 1 for dim in info.shape]
        try:
            record[name] = rng.standard_normal([size or 0 for size in shape]).astype(info.dtype)
        except (ValueError, OverflowError) as error:
            raise InputError(f"random input cannot be made for {info}: {error}; give DATA") from error
    return Records(format="random", many=False, rows=iter([record]), typed=True, count=1)


def _noting(results: Iterator[Arrays], shapes: dict[str, tuple[int, ...]]) -> Iterator[Arrays]:
    for result in results:
        # A sequence or a map has none, and whoever writes it refuses it.
        shapes.update({name: getattr(array, "shape", ()) for name, array in result.items()})
        yield result


def _show(result: dict[str, Any], heading: str) -> None:
    import numpy as np

    from ..terminal_text import one_line

    lines = []
    for name, array in result.items():
        if not isinstance(array, np.ndarray):
            lines.append(f"{one_line(name)} {one_line(repr(array), _MOST_SHOWN)}")  # a sequence or a map of tensors
            continue
        lines.append(f"{one_line(name)} {array.dtype} {array.shape}")
        lines.append(np.array2string(array, precision=4, suppress_small=True, threshold=_SHOWN, max_line_width=100))
    say(heading + "\n".join(lines))
