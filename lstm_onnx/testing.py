"""Parity as an assertion, for any test runner; for pytest's fixture and marker see `pytest_plugin`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, LSTMOnnxError

if TYPE_CHECKING:
    from torch import nn

    from .parity.report import ParityReport
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
    max_drift: float | None = None,
) -> ParityReport:
    """Assert that a file gives what PyTorch gives; see `lstm_onnx.verify` for how they are compared.

    ::

        assert_parity(net, "net.onnx")  # an nn.Module and its file
        assert_parity("models/net.toml")  # a configured model, exported afresh
        assert_parity("net.onnx", golden="net.npz")  # without torch

    Args:
        source: an nn.Module, the path of a configured model's .toml, or ``package.module:callable``; of a `file` in
            int8 or float16 also its float32 .onnx file; with `golden`, which replaces it, the .onnx file.
        file: the .onnx file, or what `load` returned, which keeps its own provider and threads; None is a fresh
            export of `source`.
        golden: a golden file, as ``lstm-onnx verify SOURCE --golden`` writes it.
        example_inputs: for an nn.Module that is more than an nn.LSTM, as in `export`.
        provider: where the file runs: "auto", "cpu" or "cuda".
        threads: ONNX Runtime's threads.
        seed: for the random inputs and states.
        mutants: how many mutants are tried: "none", "quick" or "all".  None is "quick", and "none" with `golden`.
        data: inputs to compare in addition to the random ones, each by the file's input names.
        max_drift: the largest difference from the float64 model that passes, as in `lstm_onnx.verify`; what it is for
            are files in int8 and float16.

    Returns:
        The report, which is truthy.

    Raises:
        ParityError: an AssertionError: the file is not in parity, or a mutant survived.
        LSTMOnnxError: the comparison was not possible: a file is missing or not a model, an option is not possible,
            or torch is needed and not installed.  The traceback ends here.
    """
    __tracebackhide__ = True
    options: dict[str, Any] = {"provider": provider, "threads": threads, "max_drift": max_drift}
    try:
        if golden is not None:
            from .parity.golden import verify_golden
            from .parity.user_data import require_drawing

            require_drawing(seed, data)
            if file is not None or example_inputs is not None or seed or data:
                raise ConfigError(f"{golden}: holds its own inputs and outputs; give it with the .onnx file alone")
            level = "none" if mutants is None else mutants
            report = verify_golden(source, golden, mutants=level, **options)  # type: ignore[arg-type]
        else:
            from .parity.public import is_onnx_path, verify

            if not is_onnx_path(source):
                from .exporter.dependencies import import_torch

                import_torch("assert_parity compares with it")

            level = "quick" if mutants is None else mutants
            options |= {"example_inputs": example_inputs, "seed": seed, "mutants": level, "data": data}
            report = verify(source, file, **options)  # type: ignore[arg-type]  # a Model goes with a golden file
    except LSTMOnnxError as error:
        # The message is complete in one line; the frames below are not of interest to the caller.
        raise error.with_traceback(None) from None
    if not report:
        raise ParityError(report)
    return report
