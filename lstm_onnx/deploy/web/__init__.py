"""Writes a folder for browsers and Node: the model, a module that streams it, and a page that verifies it there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_io import require_apart, require_path
from ...errors import FileError, InputError, ModelError
from ...metadata import Metadata
from ...onnxgraph import graphs_of, load_inlined, load_model
from ...onnxgraph.write import embedded
from ...parity.golden import verify_golden
from ...parity.golden_file import read
from ...runtime import Model, ValueInfo, load
from ...runtime.arguments import integer
from ...runtime.batch_axes import TIME
from ...runtime.providers import onnxruntime
from ...runtime.run import complete_feeds
from ...runtime.streamable import found_chunks, is_proven, is_streamable, rows_mix, stream_inputs
from ...runtime.unchanged import of_one_file
from ..folder import files_together
from .cases import WebCase, from_file, from_golden
from .golden import golden_files
from .onnxruntime_web import from_cdn, from_package

_MODULES = ("lstm-onnx.mjs", "lstm-onnx.d.mts", "golden.mjs", "golden.d.mts")
_COMMON = ("index.html", "README.md", "model.onnx")
"""The files whose names other people's files may have."""
_SETTINGS = b"__SETTINGS__"
_AUDIO_NAMES = ("audio", "pcm", "samples", "signal", "sound", "speech", "wav", "wave", "waveform")
_AUDIO_RATE = 16_000
_ROUNDING = ("MatMulInteger", "MatMulNBits")
"""Operators that round activations, in addition to those with Quant in their names."""
_RATES = (8_000, 192_000)
_CHANGED = "another tool has changed it since it was written"


@dataclass(frozen=True)
class WebResult:
    """The result of `deploy_web`.

    Attributes:
        folder: the folder.
        files: all files, relative to it.
        streams: whether the model can be streamed.
        cases: how many cases the page compares.
        compared_with: the source of the expected numbers.
        uncompared: the outputs that no case compares, since roundings change them by as much as any other number
            would, or change their size.
        microphone: the sample rate at which the page streams the microphone; None for models that do not take
            audio.
        onnxruntime_web: the version that the page loads, and whether it is in the folder.
    """

    folder: str
    files: tuple[str, ...]
    streams: bool
    cases: int
    compared_with: str
    microphone: int | None
    onnxruntime_web: str
    uncompared: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The folder, its files, and what the page does."""
        how = "streams" if self.streams else "runs whole sequences"
        cases = "1 case" if self.cases == 1 else f"{self.cases} cases"
        lines = [
            f"{self.folder}: {', '.join(self.files)}",
            f"{how}; the page compares {cases} with {self.compared_with}, on {self.onnxruntime_web}",
        ]
        if self.uncompared:
            lines.append(f"the page does not compare {', '.join(self.uncompared)}, which roundings change too much")
        if self.microphone is not None:
            lines.append(f"the page streams the microphone at {self.microphone} Hz")
        return "\n".join([*lines, f"see it: python -m http.server -d {self.folder}"])


@of_one_file("deployed")
def deploy_web(
    file: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    golden: str | os.PathLike[str] | None = None,
    ort: str | os.PathLike[str] | None = None,
    sample_rate: int | None = None,
    states: Mapping[str, str] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> WebResult:
    """Write a folder that any web server can serve: the model, ``lstm-onnx.mjs``, and a page that verifies the model.

    Args:
        file: the .onnx file.
        folder: the folder, which is created if it does not exist.  The files of an earlier call are replaced.
        golden: the model's golden file, with which the page compares; `file` must pass it.  None to compare with the
            outputs of `file` in Python.
        ort: the npm package onnxruntime-web, which is copied; None for a page that loads it from a CDN.
        sample_rate: in Hz, of the audio that `file` takes, for the page to stream the microphone; None for 16 kHz
            if the model's only input has a name such as audio or waveform.
        states: for a file from another tool, each state input and the output that feeds it, which are written into
            the copy.
        inputs: NumPy arrays by input name on which `file` is run for the comparison; random by default.

    Raises:
        FileError: a file cannot be read or written, `ort` is not onnxruntime-web, or `folder` has files of the same
            names that no earlier call wrote.
        ModelError: `file` cannot be run, does not pass `golden`, or has more weights than a browser can load.
        InputError: an argument is not valid.
    """
    require_path(folder, "a folder")
    if ort is not None:
        require_path(ort, "the npm package onnxruntime-web")
    place = Path(folder)
    require_apart([place / "index.html"], [file, golden])
    _require_own(place)
    runtime = from_cdn() if ort is None else from_package(os.fspath(ort))
    with load(file, "cpu", threads=1, states=states, trial=None) as model:
        streams = is_streamable(model)
        audio = _audio(model, sample_rate)
        cases, header = _cases(model, golden, inputs)
        compared = {name for case in cases for call in case.calls for name in call.expected}
        uncompared = tuple(name for name in model.outputs if name not in compared)
        if not compared:
            raise ModelError("has no output that a page can compare: roundings change them too much", path=model.path)
        content = _content(model, file, states)
    settings = {"name": Path(file).stem, "onnxruntime": runtime.to_dict(), "audio": audio}
    index, numbers = golden_files(cases, header)
    files: dict[str, bytes] = {"model.onnx": content, "golden.json": index, "golden.bin": numbers}
    files |= {name: _packaged(name) for name in _MODULES}
    files["README.md"] = _packaged("README.md").replace(b"__NAME__", Path(file).stem.encode())
    script = json.dumps(settings).replace("<", "\\u003c")  # since it is put into an HTML script element
    files["index.html"] = _packaged("index.html").replace(_SETTINGS, script.encode())
    with files_together(place, {**runtime.files, **files}):  # the page last
        pass
    return WebResult(
        os.fspath(folder),
        (*files, *runtime.files),
        streams,
        len(cases),
        header["source"],
        None if audio is None else audio["rate"],
        f"onnxruntime-web {runtime.version}" + (", which is in the folder" if runtime.files else " from a CDN"),
        uncompared,
    )


def _require_own(folder: Path) -> None:
    """A page or a README that somebody wrote must not be lost, as in the root of a website."""
    for name in () if (folder / _MODULES[0]).exists() else _COMMON:
        if (folder / name).exists():
            raise FileError(f"has a file {name} of its own, which would be replaced; name a new folder", path=folder)


def _cases(
    model: Model, golden: str | os.PathLike[str] | None, inputs: Mapping[str, Any] | None
) -> tuple[list[WebCase], dict[str, Any]]:
    """The cases, and the source of their expected numbers."""
    if golden is not None and inputs is not None:
        raise InputError("golden and inputs were both given", hint="pass one of them", name="inputs")
    nodes = (node for graph in graphs_of(load_inlined(model.path).graph) for node in graph.node)
    coarse = any("Quant" in node.op_type or node.op_type in _ROUNDING for node in nodes)
    versions = {"onnxruntime": onnxruntime().__version__, "numpy": np.__version__}
    if golden is None:
        source = f"ONNX Runtime {onnxruntime().__version__} in Python"
        given = None if inputs is None else complete_feeds(model, inputs)
        cases = from_file(model, [] if given is None else [("data", given)], chunk=given, coarse=coarse)
        return cases, {"source": source, "versions": versions}
    report = verify_golden(model, golden)
    if not report:
        raise ModelError(
            f"does not pass {os.fspath(golden)}",
            path=model.path,
            hint=f"lstm-onnx verify {model.path} --golden {os.fspath(golden)} says where",
        )
    stored = read(golden)
    if stored.float32 is None:
        torch = stored.versions.get("torch", "")
        source = f"PyTorch {torch} in float64" if torch else "PyTorch in float64"
        return from_golden(stored.cases), {"source": source, "versions": dict(stored.versions)}
    feeds = [(case.label, case.calls[0].feeds) for case in stored.cases if case.kind in ("whole", "values")]
    source = f"ONNX Runtime {onnxruntime().__version__} in Python, which is compared with PyTorch"
    return from_file(model, feeds, coarse=coarse), {"source": source, "versions": {**stored.versions, **versions}}


def _audio(model: Model, sample_rate: int | None) -> dict[str, Any] | None:
    """The input that takes audio samples, and their rate; None for a model that does not take audio.

    Raises:
        InputError: a rate was given, but the model does not have one input, of samples.
    """
    if sample_rate is not None:
        sample_rate = integer("sample_rate", sample_rate, *_RATES, "in Hz")
    inputs = list(stream_inputs(model).values())
    fits = len(inputs) == 1 and _takes_samples(model, inputs[0]) and is_streamable(model)
    if sample_rate is None and not (fits and inputs[0].name.lower() in _AUDIO_NAMES):
        return None
    if not fits:
        raise InputError(
            f"{model.path} does not take only audio: its inputs are {'; '.join(map(str, inputs))}",
            hint="leave sample_rate (--sample-rate) out",
            name="sample_rate",
        )
    return {"input": inputs[0].name, "rate": sample_rate or _AUDIO_RATE}


def _takes_samples(model: Model, info: ValueInfo) -> bool:
    """Whether an input is float32 with one number for each step: all axes but batch and time have size 1."""
    names = model.metadata.time_axes or (TIME, "samples")
    axis = next((at for at, dim in enumerate(info.shape) if dim in names), len(info.shape) - 1)
    if model.metadata.streaming is not None:
        axis = model.metadata.streaming.time.get(info.name, -1)
    others = [dim for at, dim in enumerate(info.shape) if at != axis]
    return info.dtype == np.float32 and axis >= 0 and all(dim == 1 or isinstance(dim, str) for dim in others)


def _content(model: Model, file: str | os.PathLike[str], states: Mapping[str, str] | None) -> bytes:
    """The model's bytes, with external weights embedded, and with the given states or why it cannot be streamed."""
    proto = load_model(file)
    streams, compared, changed = is_streamable(model), found_chunks(model), not is_proven(model)
    why = compared.why if compared is not None else (model.metadata.not_streamable or _CHANGED) if changed else ""
    dims = [model.inputs[name].shape[axis] for name, axis in compared.inputs.items()] if compared and streams else []
    times = tuple(dict.fromkeys(dim for dim in dims if isinstance(dim, str)))
    mixes = rows_mix(model) if changed else None
    reason = "" if streams else why or None
    metadata = Metadata(states=model.states, not_streamable=reason, time_axes=times, batch_mixes=mixes)
    entries = metadata.to_metadata()
    if states is None or dict(model.metadata.states) == model.states:
        # What a changed file says was found before the change, and its copy would be taken for an unchanged one.
        found = ("not_streamable", "batch_mixes") if compared is not None or changed else ()
        entries = {key: value for name in found for key, value in metadata.to_metadata_entry(name).items()}
    return embedded(proto, file, entries)


def _packaged(name: str) -> bytes:
    return (resources.files(__package__) / "files" / name).read_bytes()


__all__ = ["WebResult", "deploy_web"]
