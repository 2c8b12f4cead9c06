"""Files for one engine: the form in which each layer runs right there, or the refusal if there is none.

The rules of `check` (``check --target``) say what each engine refuses or computes wrongly.  The forms below violate
none of them; the rules still find in the written file what these cannot fix.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper

from ..atomic_io import atomic_write, temporary_folder
from ..errors import ExportError, LSTMOnnxError, WeightsError
from ..onnxgraph import nodes_of
from ..spec import ExportOptions
from .result import ExportResult
from .weights import LayerWeights, fold_projection

if TYPE_CHECKING:
    from ..check import Finding


@dataclass(frozen=True)
class LayerForm:
    """How the layers of a stack are written.

    Attributes:
        fold: projections by the LSTM operator instead of a Scan.
        scan: layers without a projection as Scans, too.
        exact_sigmoid: in Scans, ``1 / (1 + exp(-x))`` instead of the operator Sigmoid.
        int64_steps: in Scans, lengths are compared with the numbers of steps as int64.
        copied_input: in a stack of Scans, the input is gathered step by step before it is multiplied by W.
        keeps_nan: what follows from a NaN is NaN, as in a Scan; ONNX Runtime's operators give numbers.
    """

    fold: bool = False
    scan: bool = False
    exact_sigmoid: bool = False
    int64_steps: bool = False
    copied_input: bool = False
    keeps_nan: bool = False


AS_OPERATORS = LayerForm()
"""The operators LSTM, GRU and RNN, and Scans for projections."""


def form_of(
    options: ExportOptions,
    layers: Sequence[LayerWeights],
    *,
    lengths: bool,
    repeated: Callable[[], bool] = lambda: False,
) -> LayerForm:
    """The form of a stack of layers for the target of `options`.

    OpenVINO ignores the operators' lengths and an LSTM's peepholes; a Scan is right.  tract ignores or refuses
    lengths, other activations and zero states of a dynamic batch, and its Sigmoid is approximate; a Scan has none of
    these, and takes named axes where their sizes stay int64.  ONNX Runtime has the operators in float64 on CUDA alone,
    and Scans everywhere.  QNN has the operator LSTM, and no Scan.

    Args:
        options: of the export.
        layers: the weights.
        lengths: whether the sequences have lengths.
        repeated: called for tract only: whether Expand or Tile repeats the input.  tract multiplies it before it
            repeats it, with errors or wrong numbers, unless another operator is between the two.
    """
    plain = LayerForm(fold=options.projection == "fold")
    if options.precision == "int8":
        return plain  # quantizing is for operators
    if options.target == "openvino" and (lengths or any(layer.P is not None for layer in layers)):
        return replace(plain, scan=not plain.fold)
    if options.target == "tract":
        return replace(plain, scan=not plain.fold, exact_sigmoid=True, int64_steps=True, copied_input=repeated())
    if options.target in (None, "web", "webgpu") and layers[0].W.dtype == np.float64:
        return replace(plain, scan=not plain.fold)
    if options.target == "qnn":
        return LayerForm(fold=_can_fold(layers))
    return plain


def _can_fold(layers: Sequence[LayerWeights]) -> bool:
    try:
        for index, layer in enumerate(layers):
            if layer.W_hr is not None:
                fold_projection(layer.R, layer.W_hr, layer=index)
    except WeightsError:
        return False
    return True


def fit_nodes(model: ModelProto, target: str | None) -> None:
    """Change other nodes of a model whose defaults the target reads differently from ONNX, as tract does for zeros."""
    if target != "tract":
        return
    for node in nodes_of(model.graph.node):
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
            node.attribute.append(helper.make_attribute("value", zero))


def written_for(
    target: str | None, write: Callable[[str | os.PathLike[str]], ExportResult], path: str | os.PathLike[str]
) -> ExportResult:
    """Write a file, and keep it only if the rules on `target` find no error in it.

    Args:
        target: one of `spec.TARGETS`, or None.
        write: writes the file to a path.
        path: the file.

    Returns:
        What `write` returns; warnings of the rules are among the notes.

    Raises:
        ExportError: the target cannot run the file, or computes it wrongly.
        LSTMOnnxError: as `write`.
    """
    if target is None:
        return write(path)
    from ..check.examine import target_findings

    with intermediate_file(Path(path).name, path) as trial:
        written = write(trial)
        found = target_findings(trial, target)
        if found and found[0].failed:
            raise ExportError(
                f"no form of this model gives right results on {target}: {_told(found[0])}", hint=found[0].fix
            )
        by_rule = {finding.rule: finding for finding in reversed(found)}  # the first of each
        notes = [f"{target}: {_told(finding)}; {finding.fix}" for finding in reversed(by_rule.values())]
        if written.external_data is None:
            with open(trial, "rb") as source, atomic_write(path) as stream:
                shutil.copyfileobj(source, stream)
            written = replace(written, path=os.fspath(path))
        else:
            written = write(path)
    return replace(written, notes=(*written.notes, *notes))


def _told(finding: Finding) -> str:
    at = f"{finding.where}: " if finding.where else ""
    return f"{finding.id} {finding.rule}: {at}{finding.message}"


@contextlib.contextmanager
def intermediate_file(name: str, path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a file in a temporary folder that another one is made of; errors about it name the other.

    Args:
        name: of the file.
        path: the file that is made of it.

    Raises:
        LSTMOnnxError: as within the context, about `path`.
    """
    with temporary_folder() as folder:
        file = folder / name
        try:
            yield file
        except LSTMOnnxError as error:
            old, new = os.fspath(file), os.fspath(path)
            data = error.data()
            if data["path"] == old:
                data["path"] = new
            raise type(error)(error.message.replace(old, new), **data) from error
