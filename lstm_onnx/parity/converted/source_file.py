"""Verifies a file with smaller weights against the float32 file from which it was made, without torch.

For a file of any origin: what `verify` does for an export in int8 or float16, without the comparison with PyTorch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from ...data.random_input import default_sizes
from ...errors import ConfigError, LSTMOnnxError, ModelError, RunError
from ...quantization.int8_file import quantized_model
from ...quantization.probe import Probe
from ...quantization.proof import layer_errors, positive_inputs, proof_inputs
from ...quantization.rewrite import Rewritten
from ...runtime import Model, load
from ...runtime.run import complete_feeds
from ...runtime.unchanged import unchanged
from ..build import build_report, ranges_of
from ..expected import Call, Expected, as_float64
from ..golden_file import Golden
from ..mutants.self_test import require_level
from ..report import ParityReport
from ..results import CaseResult
from ..user_data import UserData, require_drawing
from .drift import precision_of, require_drift
from .results import converted_report

REFERENCE = "float32"
"""`ParityReport.reference` of these reports."""
LIMIT = "the drift from float32"
"""The label of the case on the user's limit."""
_SMALL, _OTHER = 3, 4
"""Two sizes of a named axis, which reveal its role."""
_TIME = 12
"""Steps of random inputs."""


def verify_source_file(
    source: str | os.PathLike[str],
    file: str | os.PathLike[str] | Model,
    *,
    provider: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    mutants: str = "quick",
    data: Sequence[Mapping[str, Any]] | UserData = (),
    max_drift: float | None = None,
) -> tuple[ParityReport, Golden]:
    """Compare a file in int8 or float16 with the conversion of a float32 file to that precision.

    Args:
        source: the float32 file.
        file: the file, or what `load` returned.
        provider, threads, seed, mutants, data, max_drift: as in `verify`; the drift is that from `source`.

    Returns:
        The report, and its cases for a golden file.

    Raises:
        ConfigError: an argument is not possible, or `file` is in neither precision.
        ModelError: `source` is not a float32 model, or fails on random inputs.
        FileError, InputError, ProviderError: see `verify`.
    """
    started = time.perf_counter()
    require_level(mutants)
    require_drift(max_drift)
    if not isinstance(data, UserData):
        require_drawing(seed, data)
    with unchanged(file, "verified"), unchanged(source, "verified"):
        model = file if isinstance(file, Model) else load(file, provider=provider, threads=threads, trial=None)
        report, golden = _verified(source, model, seed, mutants, data, max_drift)
    return replace(report, seconds=time.perf_counter() - started), golden


def _verified(
    source: str | os.PathLike[str],
    model: Model,
    seed: int,
    mutants: str,
    data: Sequence[Mapping[str, Any]] | UserData,
    max_drift: float | None,
) -> tuple[ParityReport, Golden]:
    if not precision_of(model):
        with load(source, provider=model.provider, threads=1, trial=None) as other:
            exchanged = bool(precision_of(other))
        hint = f"only such a file is compared with a file like {os.fspath(source)}; give the PyTorch model as SOURCE"
        raise ConfigError(
            f"{model.path}: its metadata do not say that it is int8 or float16, as lstm-onnx quantize and export do",
            hint=f"{os.fspath(source)} is {precision_of(other)}: exchange the two" if exchanged else hint,
        )
    with load(source, provider=model.provider, threads=1, trial=None) as float32:
        if precision_of(float32):
            raise ModelError(f"{os.fspath(source)}: is {precision_of(float32)} itself; give the float32 file")
        records, notes = data.feeds(float32) if isinstance(data, UserData) else (data, [])
        cases, remarks = _cases(_Drawn(float32, _form(source, model), seed), records)
        versions = {"onnx": onnx.__version__}
        report = build_report(float32, os.fspath(source), [], [], [*notes, *remarks], torch_versions=versions)
        ranges = ranges_of(float32, [(case, CaseResult(case.label)) for case in cases])
    report = replace(report, ranges=ranges, reference=REFERENCE)
    options: dict[str, Any] = {"mutants": mutants, "max_drift": max_drift, "drift_label": LIMIT}
    report = converted_report(report, source, model, cases, **options)
    kept = report.digest, report.versions, report.notes, _bytes_of(source), REFERENCE
    return report, Golden(report.source, tuple(cases), *kept)


def _form(source: str | os.PathLike[str], model: Model) -> Rewritten:
    """The int8 form of the source, or an empty one of float16, for which random inputs are made."""
    quantization = model.metadata.quantization
    return Rewritten(ModelProto()) if quantization is None else quantized_model(source, **asdict(quantization))


@dataclass(frozen=True)
class _Drawn:
    """The float32 file, open, its int8 form, and the seed of random inputs."""

    model: Model
    form: Rewritten
    seed: int

    def feeds(self, number: int, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
        """Inputs with states and lengths."""
        feeds = proof_inputs(self.model, self.form, self.seed + number, sizes)
        return dict(complete_feeds(self.model, positive_inputs(self.model, feeds) if self._positive else feeds))

    @cached_property
    def _positive(self) -> bool:
        """Whether more int8 layers have finite numbers if no random number is below 0, such as before a square root."""
        if not self.form.quantized:
            return False
        feeds = proof_inputs(self.model, self.form, self.seed)
        try:
            probe = Probe(self.form, self.model.path, self.model.provider)
            missing = [
                sum(
                    layer.error is None
                    for layer in layer_errors(self.form, probe.values(complete_feeds(self.model, one)))
                )
                for one in (feeds, positive_inputs(self.model, feeds))
            ]
        except LSTMOnnxError:
            return False
        return missing[1] < missing[0]

    def axes(self) -> list[dict[str, int]]:
        """The batch and the time axis of each input that has one: those that change the axes of x of a layer.

        None for a file without recurrent int8 layers.
        """
        names = [axis for axis in default_sizes(self.model) if axis.isidentifier()]
        layer = next((layer for layer in self.form.layers if not layer.caller), None)
        found: list[dict[str, int]] = [{}, {}]
        if layer is None:
            return found
        try:
            probe = Probe(self.form, self.model.path, self.model.provider)
            small = dict.fromkeys(names, _SMALL)
            usual = probe.values(self.feeds(0, small))[layer.x].shape
            for name in names:
                shape = probe.values(self.feeds(0, {**small, name: _OTHER}))[layer.x].shape
                for axes, at in zip(found, (1, 0), strict=True):
                    if shape[at] != usual[at]:
                        inputs = self.model.inputs.items()
                        axes |= {each: info.shape.index(name) for each, info in inputs if name in info.shape}
        except LSTMOnnxError:
            return [{}, {}]  # its axes depend on each other; rows alone are not compared
        return found


def _cases(drawn: _Drawn, records: Sequence[Mapping[str, Any]]) -> tuple[list[Expected], list[str]]:
    """What the float32 file gives for random inputs and for the user's, and notes."""
    batch, steps = drawn.axes()
    usual = {str(drawn.model.inputs[name].shape[axis]): _TIME for name, axis in steps.items()}
    ones = dict.fromkeys((axis for axis in default_sizes(drawn.model) if axis.isidentifier()), 1)
    cases, notes = [], []
    for label, number, sizes in (
        ("random inputs", 0, usual),
        ("other random inputs", 1, usual),
        ("sizes of 1", 2, ones),
    ):
        try:
            cases.append(_case(drawn.model, label, drawn.feeds(number, sizes), batch, steps))
        except RunError as error:
            if not records and not cases and sizes is ones:
                raise ModelError(
                    f"{drawn.model.path}: fails on random inputs: {error.message}",
                    hint="pass inputs that it accepts: --data, or data= in Python",
                ) from error
            notes.append(f"the float32 file fails on {label}: {error.message}")
    for number, record in enumerate(records):
        feeds = complete_feeds(drawn.model, record)
        cases.append(_case(drawn.model, f"data {number}", feeds, batch, steps, kind="data"))
    return cases, notes


def _case(
    model: Model,
    label: str,
    feeds: Mapping[str, np.ndarray],
    batch: Mapping[str, int],
    steps: Mapping[str, int],
    kind: str = "whole",
) -> Expected:
    outputs = as_float64(model.run(feeds))
    symbols = {model.inputs[name].shape[axis] for name, axis in steps.items()}
    named = [(name, axis, dim) for name in outputs for axis, dim in enumerate(model.outputs[name].shape)]
    times = {**steps, **{name: axis for name, axis, dim in named if isinstance(dim, str) and dim in symbols}}
    call = Call(dict(feeds), outputs, outputs)
    return Expected(label, (call,), "float32", 1.0, kind=kind, time_axes=times, batch_axes=dict(batch))


def _bytes_of(source: str | os.PathLike[str]) -> bytes | None:
    """The file's bytes for a golden file; None if its weights are in other files."""
    model = onnx.load(source, load_external_data=False)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        return None
    return Path(source).read_bytes()
