"""The rules on the file itself: external data, operators that are known, what training left behind."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from onnx import TensorProto

from ...onnxgraph import Tensor, attributes_of, is_default, typed
from ...runtime.providers import operator_versions
from ..context import Subject, input_of, label, stored
from ..report import Finding, failed, skipped

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_MOST_NAMES = 5
_LARGEST_FOLDED = 64
"""An initializer of so many bytes is worth no word."""


def external_data(subject: Subject) -> Iterator[Finding]:
    """Weights beside the model: in its folder, plain files, and long enough."""
    told: set[str] = set()
    for name, tensor in stored(subject.model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        keys = {entry.key: entry.value for entry in tensor.external_data}
        location = str(keys.get("location", ""))
        if location in told:
            continue
        problem = external_problem(subject.file, keys)
        if problem:
            told.add(location)
            yield failed("external-data", name, f"its data at {location!r} {problem}")


def external_problem(file: str, keys: Mapping[str, str]) -> str:
    """What is wrong with the place of a tensor's data outside of `file`, or ""."""
    folder, location = Path(file).resolve().parent, str(keys.get("location", ""))
    if not location or "\0" in location:
        return "is no path"
    beside = Path(location)
    if not beside.parts:
        return "is no regular file"
    if beside.is_absolute() or ".." in beside.parts or "\\" in location or ":" in beside.parts[0]:
        return "leads outside the model's folder"
    path = folder / beside
    try:
        found = path.stat()
    except (OSError, ValueError):
        return "is missing"
    if path.is_symlink():
        return "is a symbolic link"
    if not path.resolve().is_relative_to(folder):
        return "leads outside the model's folder, by a link"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    try:
        end = int(keys.get("offset") or 0) + int(keys.get("length") or 0)
    except ValueError:
        return "has an offset or a length that is no number"
    if end > found.st_size or "-" in f"{keys.get('offset')}{keys.get('length')}":
        return f"ends at byte {end}, and the file has {found.st_size}"
    return ""


def unknown_operator(subject: Subject) -> Iterator[Finding]:
    """Operators that ONNX Runtime has never heard of, or not in this opset."""
    known = operator_versions()
    if not known:
        yield skipped("unknown-operator", "this build of ONNX Runtime does not tell which operators it has")
    told = {(str(item.domain), str(item.name)) for item in subject.model.functions}
    for _, node in subject.nodes if known else ():
        domain = "" if is_default(node.domain) else str(node.domain)
        kind = (domain, str(node.op_type))
        if kind in told:
            continue
        told.add(kind)
        versions = known.get(kind)
        shown = f"{domain}.{node.op_type}" if domain else str(node.op_type)
        if versions is None:
            whose = f"the custom domain {domain}" if domain not in {place for place, _ in known} else "its domain"
            yield failed("unknown-operator", label(node), f"{shown} of {whose} is unknown to ONNX Runtime")
        elif 0 < subject.opset(domain) < min(versions):
            yield failed(
                "unknown-operator",
                label(node),
                f"{shown} came with opset {min(versions)}, and the file asks for opset {subject.opset(domain)}",
            )


def contrib_operator(subject: Subject) -> Iterator[Finding]:
    """Operators that only ONNX Runtime has."""
    known = operator_versions()
    own = [node for _, node in subject.nodes if not is_default(node.domain) and (node.domain, node.op_type) in known]
    if own:
        kinds = ", ".join(dict.fromkeys(f"{node.domain}.{node.op_type}" for node in own))
        yield failed("contrib-operator", label(own[0]), f"{kinds}: no other runtime has them")


def initializer_input(subject: Subject) -> Iterator[Finding]:
    """Weights that a caller could replace."""
    graph = subject.model.graph
    large = {tensor.name for tensor in graph.initializer if Tensor.of(tensor).num_bytes > _LARGEST_FOLDED}
    names = [str(item.name) for item in graph.input if item.name in large]
    if names:
        shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        yield failed("initializer-input", names[0], f"{len(names)} initializers are inputs as well: {shown}")


def training_mode(subject: Subject) -> Iterator[Finding]:
    """Operators that still behave as in training."""
    for scope, node in subject.nodes:
        if not is_default(node.domain):
            continue
        if node.op_type == "Dropout" and (flag := subject.constant(scope, input_of(node, 2))) is not None:
            ratio = subject.constant(scope, input_of(node, 1))
            if flag.any() and (ratio is None or ratio.any()):
                yield failed("training-mode", label(node), "Dropout is in training mode: it zeroes at random")
        if node.op_type == "BatchNormalization" and typed(attributes_of(node), "training_mode", int):
            message = "BatchNormalization is in training mode: it takes the statistics of each batch"
            yield failed("training-mode", label(node), message)


def random_operator(subject: Subject) -> Iterator[Finding]:
    """Generators within the graph."""
    for _, node in subject.nodes:
        if node.op_type in _RANDOM and is_default(node.domain):
            yield failed("random-operator", label(node), f"{node.op_type} draws other numbers at each run")
