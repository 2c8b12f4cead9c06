"""`verify` as it is exported from `lstm_onnx`: importing it does not import torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..atomic_io import require_path
from ..errors import ConfigError
from ..tracebacks import short_tracebacks

if TYPE_CHECKING:
    from torch import nn

    from ..runtime import Model
    from .report import ParityReport


@short_tracebacks
def verify(
    module: nn.Module | str | os.PathLike[str],
    path: str | os.PathLike[str] | Model | None = None,
    *,
    example_inputs: Any = None,
    provider: str = "auto",
    runtime: str = "onnxruntime",
    threads: int | None = None,
    seed: int = 0,
    mutants: str = "quick",
    data: Sequence[Mapping[str, Any]] = (),
    max_drift: float | None = None,
    golden: str | os.PathLike[str] | None = None,
) -> ParityReport:
    """Compare an exported file with the PyTorch model that it came from.

    The file runs at many sizes of every named axis, with explicit states and without, with varied lengths where it
    takes them, on extreme values, and in chunks through the streaming runtime; `parity.criterion` defines when an
    output is right.  For a module that is more than an nn.LSTM, random inputs are in the ranges of the file's
    metadata.  For a file that is not in parity the report says where it first differs and why; a file that is in
    parity is tested with mutants, wrong copies of it that the comparison must reject.

    For a file in int8 or float16, the float32 export of `module` is compared in this way.  The file must then have
    exactly the numbers and the graph that conversion of that export to its precision makes, its int8 layers must
    compute what their arithmetic defines, and each row must have the same bits alone, step by step and in a batch.  The
    report's `drift` says how much the smaller weights change the outputs.  Without a PyTorch model, such a file is
    compared with the float32 file, from any tool, that it was made from; the drift is then relative to that file.

    Args:
        module: an nn.Module, which is not changed, whatever its mode and device; or a configured model: the path of a
            .toml, or ``package.module:callable``; or, for a file in int8 or float16, the path of its float32 .onnx
            file, which needs no torch.
        path: the .onnx file, or the result of `load`, which keeps its own provider and threads; by default a fresh
            export of `module`.
        example_inputs: for an nn.Module, as in `export`: needed if the file is not from lstm-onnx, or if its metadata
            cannot hold the arguments of the export; the error says so.
        provider: the execution provider: "auto", "cpu" or "cuda".
        runtime: the engine that runs the file: "onnxruntime", "openvino", "onnxruntime-web" or "tract"; except for the
            first, `path` must be a path, and the engine must be installed.
        threads: the number of ONNX Runtime's threads.
        seed: the seed of the random inputs and states.
        mutants: how many mutants to try: "none", "quick" (one of each kind) or "all".
        data: inputs to compare in addition to the random ones, each by the file's input names.
        max_drift: the largest accepted difference of an output from the float64 module, relative to the output, as
            root mean square over all random inputs, and over `data`; by default it is only reported.
        golden: where to store the cases for `verify_golden`, if the file passes; must end in .npz.

    Returns:
        A report, truthy if the file is in parity and no mutant survived.

    Raises:
        MissingDependencyError: torch or the engine is not installed.
        ConfigError: `mutants`, `seed`, `data`, `max_drift` or `runtime` is not valid, `module` is not a model, or the
            file's inputs are not those of the module.
        ExportError: the module cannot be run with the file's inputs and states.
        FileError, ModelError, ProviderError: the file cannot be opened; for a file that opens but fails to run a case,
            the report fails instead.
    """
    from ..runtime import Model
    from .golden_file import require_name, write

    if golden is not None:
        require_name(golden)
    if path is not None and not isinstance(path, Model):
        if is_onnx_path(module) and not isinstance(path, (str, os.PathLike)):
            raise ConfigError("the PyTorch model comes first, and then the file", hint="exchange the two")
        require_path(path, "an .onnx file")
    options: dict[str, Any] = {"threads": threads, "seed": seed, "mutants": mutants, "data": data}
    options["max_drift"] = max_drift
    if is_onnx_path(module):
        from .converted.source_file import verify_source_file

        if runtime != "onnxruntime":
            raise ConfigError(f"{path}: is compared with {module} in ONNX Runtime; leave runtime out")
        file = _file_of(module, path, example_inputs)
        report, cases = verify_source_file(module, file, provider=provider, **options)  # type: ignore[arg-type]
    else:
        from ..exporter.dependencies import import_torch

        import_torch("lstm_onnx.verify compares with it")
        from .mutants.self_test import require_level
        from .user_data import require_drawing
        from .verification import verify_all

        require_drawing(seed, data)
        require_level(mutants)
        chosen: dict[str, Any] = {"providers": (provider,), "runtimes": (runtime,), "golden": golden is not None}
        (verified,) = verify_all(module, path, example_inputs=example_inputs, **chosen, **options)
        report, cases = verified.report, verified.golden
    if golden is not None and report:
        write(golden, cases)
    return report


def is_onnx_path(source: object) -> bool:
    """Whether a source is the path of an .onnx file (FileError: an os.PathLike that is not a path)."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    require_path(source, "an .onnx file or a PyTorch model")
    return str(os.fspath(source)).lower().endswith(".onnx")


def _file_of(source: Any, file: Any, example_inputs: Any) -> Any:
    """The file to compare with the float32 file `source`."""
    if example_inputs is not None:
        raise ConfigError(f"{os.fspath(source)}: is an .onnx file; give data= instead of example_inputs")
    if file is None:
        raise ConfigError(
            f"{os.fspath(source)}: is an .onnx file, which cannot be exported; give the int8 or float16 file that was "
            "made of it, or a PyTorch model"
        )
    return file
