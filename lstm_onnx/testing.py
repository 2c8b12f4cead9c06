"""Parity as an assertion, for any test runner; pytest has a fixture and a marker for it, see `pytest_plugin`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, LSTMOnnxError

if TYPE_CHECKING:
    from torch import nn

    from .parity import ParityReport
    from .runtime import Model

__all__ = ["ParityError", "assert_parity"]


class ParityError(AssertionError):
    """A file is not in parity, or a mutant survived: the message is the report as a table."""

    def __init__(self, report: ParityReport) -> None:
        super().__init__(report)
        self.report = report


def assert_parity(
    source: nn.Module | str | os.PathLike[str] | Model,
    file: str | os.PathLike[str] | Model | None = None,
    *,
    golden: str | os.PathLike[str] | None = None,
    example_inputs: Any = None,
    provider: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    mutants: str | None = None,
    data: Sequence[Mapping[str, Any]] = (),
) -> ParityReport:
    """Assert that a file gives what PyTorch gives; see `lstm_onnx.verify` for how they are compared.

    ::

        assert_parity(net, "net.onnx")  # an nn.Module and its file
        assert_parity("models/net.toml")  # a configured model, exported afresh
        assert_parity("net.onnx", golden="net.npz")  # without torch

    Args:
        source: an nn.Module, the path of a configured model's .toml, or ``package.module:callable``; with
            `golden`, in whose place those numbers stand, it is the file itself.
        file: the .onnx file, or what `load` made of it, which then has its own provider and threads;
            None is a fresh export of `source`.
        golden: a golden file, as ``lstm-onnx verify SOURCE --golden`` writes it.
        example_inputs: for an nn.Module that is more than an nn.LSTM, as in `export`.
        provider: where the file runs: "auto", "cpu" or "cuda".
        threads: ONNX Runtime's threads.
        seed: for the inputs and states that are drawn.
        mutants: how many wrong copies are tried: "none", "quick" or "all".  None is "quick", and "none" with
            `golden`.
        data: inputs to be compared on beside those that are drawn, each by the file's input names.

    Returns:
        The report, which is truthy.

    Raises:
        ParityError: an AssertionError: the file is not in parity, or a mutant survived.
        LSTMOnnxError: there was nothing to compare: a file is missing or no model, an option is not
            possible, torch is needed and not installed.  The traceback ends here.
    """
    __tracebackhide__ = True
    opening = {"provider": provider, "threads": threads}
    drawing = {"seed": seed, "data": data}
    try:
        from .parity.options import require_drawing

        require_drawing(seed, data)
        if golden is not None:
            if file is not None or example_inputs is not None or seed or data:
                raise ConfigError(f"{golden}: holds its own inputs and outputs; give it with the .onnx file alone")
            report = _against_golden(source, golden, opening, "none" if mutants is None else mutants)
        else:
            report = _against_torch(
                source, file, example_inputs, opening, drawing, "quick" if mutants is None else mutants
            )
    except LSTMOnnxError as error:
        # Its one line says it all, and the frames on the way to it are not the reader's.
        raise error.with_traceback(None) from None
    if not report:
        raise ParityError(report)
    return report


def _against_golden(
    file: Any, golden: str | os.PathLike[str], opening: Mapping[str, Any], mutants: str
) -> ParityReport:
    from .parity.golden import verify_golden

    return verify_golden(file, golden, mutants=mutants, **opening)


def _against_torch(
    source: Any,
    file: str | os.PathLike[str] | Model | None,
    example_inputs: Any,
    opening: Mapping[str, Any],
    drawing: Mapping[str, Any],
    mutants: str,
) -> ParityReport:
    import contextlib
    from dataclasses import replace

    from .atomic_io import require_path, temporary_folder
    from .exporter import export
    from .exporter.dependencies import import_torch
    from .exporter.sources.source import load_source
    from .runtime import Model, load

    import_torch("assert_parity compares with it")
    from .parity import verify
    from .parity.sources import report_on_source, verification_of_source

    made = None
    if isinstance(source, (str, os.PathLike)):
        require_path(source, "a model's .toml, or package.module:callable")
        made = load_source(os.fspath(source))
    if made is not None and example_inputs is not None:
        raise ConfigError(f"{source}: says itself what it is called with; leave example_inputs out")
    with contextlib.ExitStack() as stack:
        path = file
        if path is None:
            path = stack.enter_context(temporary_folder()) / "model.onnx"
            if made is None:
                export(source, path, example_inputs=example_inputs, check=False)
            else:
                made.export(path, check=False)
        model = path if isinstance(path, Model) else stack.enter_context(load(path, trial=None, **opening))
        if made is None:
            report = verify(source, model, example_inputs=example_inputs, mutants=mutants, **drawing)
        else:
            verification = verification_of_source(made, model, **drawing)
            report = report_on_source(made, verification, verification.results(), mutants=mutants)
    return report if file is not None else replace(report, file="a fresh export")
