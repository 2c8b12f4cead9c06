"""`verify` as it is exported from `lstm_onnx`: importing it does not import torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from ..runtime import Model
    from .report import ParityReport


def verify(
    module: nn.Module,
    path: str | os.PathLike[str] | Model,
    *,
    example_inputs: Any = None,
    provider: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    mutants: str = "quick",
    data: Sequence[Mapping[str, Any]] = (),
    golden: str | os.PathLike[str] | None = None,
) -> ParityReport:
    """Compare an exported file with the module that it was exported from.

    Args:
        module: the nn.LSTM or the module; it is not changed, whatever its mode and device.
        path: the .onnx file, or a loaded model, which then keeps its own provider and threads.
        example_inputs: for a module, as in `export`: needed where its forward takes more than tensors in dicts and
            lists, or where the file is not from lstm-onnx.
        provider: where the file runs, as in `load`.
        threads: ONNX Runtime's threads.
        seed: of the random inputs and states.
        mutants: how many wrong copies of the file must be detected: "none", "quick" (one of each kind) or "all".
        data: further inputs to compare on, each a dict of arrays by the file's input names.
        golden: where to store what was compared once it has passed, for `verify_golden`; a name that ends in .npz.

    Returns:
        A report, truthy when the file is in parity and every mutant was detected or is proven equivalent.

    Raises:
        MissingDependencyError: torch is not installed.
        ConfigError: an argument is not possible, or the file's inputs are not those of the module.
        ExportError: the module cannot be run with the inputs of the file.
        FileError, ModelError, ProviderError: the file cannot be opened.
    """
    from ..exporter.dependencies import import_torch

    import_torch("lstm_onnx.verify compares with it")
    from .verification import verify as implementation

    return implementation(
        module,
        path,
        example_inputs=example_inputs,
        provider=provider,
        threads=threads,
        seed=seed,
        mutants=mutants,
        data=data,
        golden=golden,
    )
