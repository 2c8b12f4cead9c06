"""`check` itself: every rule on one file, in turn."""

from __future__ import annotations

import os
from collections.abc import Callable

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from ..errors import ConfigError, FileError, ModelError, ProviderError
from ..files import readable_file
from ..runtime.providers import PROVIDERS, cuda_unavailable
from ..story import Story
from .dynamic import on_provider
from .graph import ONNX_ERRORS, Graph, inferred
from .report import REEXPORT, CheckReport, Finding, failed, words
from .static import dynamic_axes, metadata, states_paired, valid_onnx


def check(path: str | os.PathLike[str], *, provider: str = "auto") -> CheckReport:
    """Check an ONNX file: ours by what its metadata promises, others by what their graph shows.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda", strictly; or "auto", CUDA where a GPU can be used and else CPU.

    Raises:
        FileError: the file is missing, empty, a folder or otherwise unreadable.
        ModelError: its content is not an ONNX model at all.
        ProviderError: the provider is unknown or is not there.
        MissingDependencyError: no usable ONNX Runtime is installed.
    """
    _require_provider(provider)
    model = _read(path)
    file = os.fspath(path)
    findings = [valid_onnx(file)]
    story: Story | None = None
    try:
        story = Story.from_metadata({entry.key: entry.value for entry in model.metadata_props})
        findings.append(metadata(story, model.producer_name))
    except ConfigError as error:
        findings.append(failed("metadata", "", str(error)))
    try:
        graph = Graph(inferred(model))
    except ONNX_ERRORS as error:
        findings.append(failed("dynamic-axes", "", f"shapes cannot be inferred: {words(error)}"))
        graph = Graph(model)
    else:
        findings += _guarded("dynamic-axes", lambda: dynamic_axes(graph, story or Story()))
    findings += _guarded("states-paired", lambda: states_paired(graph, story))
    ran_on, dynamic = on_provider(file, provider)
    return CheckReport(file, ran_on, (*findings, *dynamic))


def _guarded(rule: str, findings: Callable[[], list[Finding]]) -> list[Finding]:
    """A static rule's findings; a graph too damaged to walk (names that are not text) fails it."""
    try:
        return findings()
    except ONNX_ERRORS as error:
        return [failed(rule, "", f"the graph is damaged: {words(error)}")]


def _require_provider(provider: str) -> None:
    if provider not in PROVIDERS:
        raise ProviderError(f'provider "{provider}" is unknown; it must be one of {", ".join(PROVIDERS)}')
    reason = cuda_unavailable() if provider == "cuda" else None
    if reason is not None:
        raise ProviderError(f"CUDA cannot be used: {reason}")


def _read(path: str | os.PathLike[str]) -> ModelProto:
    """The model without its external data."""
    found = readable_file(path, "an .onnx file")
    if not found.is_file():
        raise FileError(f"{path}: is no regular file; expected an .onnx file")
    try:
        model = onnx.load_model(str(found), format="protobuf", load_external_data=False)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: is not an ONNX model, or only a part of one: {words(error)}") from error
    # protobuf reads many a random byte as fields it does not know.
    if not model.graph.node or not model.opset_import:
        lacking = "nodes" if not model.graph.node else "operator set (opset_import)"
        raise ModelError(f"{path}: is not an ONNX model that can run: it has no {lacking}; {REEXPORT}")
    return model
