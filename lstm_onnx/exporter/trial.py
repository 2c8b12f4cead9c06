"""A file is tried out before it is kept: at shapes other than the example's, against the module.

This is no proof of parity, which is `verify`'s business: it is there so that nothing leaves the
exporter in which a size, a step or a state was frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError, InputError, MissingDependencyError, ProviderError, RunError
from ..runtime import Model, load
from ..runtime.axes import size_of
from ..story import Story
from .arguments import resized_tensor
from .prepared import FixedSizeError, Prepared, Tensors
from .stepwise import call_with_states

_TOLERANCE = 1e-2
"""Far above rounding and far below what a frozen size does, relative to the largest number of an output."""
_HALF = 5e-2


Edges = Mapping[tuple[str, int], tuple[int, ...]]


def try_out(path: Path, prepared: Prepared, story: Story, edges: Edges = MappingProxyType({})) -> tuple[str, ...]:
    """Run a file beside its module.

    Args:
        path: the file.
        prepared: the module.
        story: the file's.
        edges: further sizes to try, by input and axis.

    Returns:
        Notes: why it could not be tried.

    Raises:
        ExportError: it fails, or gives other shapes or clearly other numbers than the module.
        MissingDependencyError: there is no ONNX Runtime to try it with.
    """
    try:
        model = load(path, provider="cpu", threads=1)
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{error} (an exported file is tried out before it is kept; check=False leaves that out)"
        ) from error
    except ProviderError as error:
        return (f"the file was not tried out: {str(error).removeprefix(f'{path}: ')}",)
    tried = 0
    sizes_tried = list(_sizes(prepared, story, edges))
    for sizes in sizes_tried:
        rng = np.random.default_rng(tried)
        inputs, states = _example(prepared, story, model, sizes, rng)
        try:
            expected = call_with_states(prepared, story, inputs, states)
        except ExportError:
            continue  # the module itself does not run at these sizes, such as shorter than a kernel
        tried += 1
        _compare(model, prepared, inputs, states, expected, sizes)
        if tried == 1 and story.origins:
            # Without its explicit states, too: the file then starts as the module's own code does.
            own = {name: state for name, state in states.items() if name not in story.origins}
            _compare(model, prepared, inputs, own, call_with_states(prepared, story, inputs, own), sizes)
    if not tried and prepared.arguments.sizes:
        return ("the file was not tried out at other shapes: the module itself runs at none of those tried",)
    return ()


def _sizes(prepared: Prepared, story: Story, edges: Edges) -> Iterator[dict[str, int]]:
    """Sizes by axis name: each grown by its own amount, all alone, the example's, small and large swapped, `edges`."""
    names = list(dict.fromkeys(dim for spec in story.inputs for dim in spec.shape if isinstance(dim, str)))
    own = _own_sizes(prepared, story)
    yield {name: own[name] + 1 + index for index, name in enumerate(names)}
    yield dict.fromkeys(names, 1)
    yield {name: 2 * own[name] + 3 - index for index, name in enumerate(names)}
    yield own
    grown = sorted((own[name] + 2 + index for index, name in enumerate(names)), reverse=True)
    yield dict(zip(sorted(names, key=own.__getitem__), grown, strict=True))
    for spec in story.inputs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                yield from ({**own, dim: size} for size in edges.get((spec.name, axis), ()))


def _own_sizes(prepared: Prepared, story: Story) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for spec in story.inputs:
        for dim, size in zip(spec.shape, prepared.arguments.tensors[spec.name].shape, strict=True):
            if isinstance(dim, str):
                sizes.setdefault(dim, size)
    return sizes


def _example(
    prepared: Prepared, story: Story, model: Model, sizes: Mapping[str, int], rng: np.random.Generator
) -> tuple[Tensors, Tensors]:
    """The example inputs at these sizes, and random states.

    The inputs are those of the example, since only the user knows what else makes sense (a mask in
    which nothing is left, for one, does not); lengths stay within their sequences.
    """
    own = _axes_of(story)
    inputs: Tensors = {}
    for spec in story.inputs:
        tensor = resized_tensor(
            prepared.arguments.tensors[spec.name], {axis: sizes[label] for axis, label in own[spec.name].items()}
        )
        inputs[spec.name] = tensor.clamp(max=sizes[str(spec.high)]) if spec.high in sizes else tensor
    states: Tensors = {}
    for name in story.states:
        if name in inputs:
            continue
        info = model.inputs[name]
        shape = [size_of(dim, sizes) or 1 if isinstance(dim, str) else dim or 1 for dim in info.shape]
        values = np.asarray(np.tanh(rng.standard_normal(shape)), info.dtype or np.float32)
        states[name] = torch.from_numpy(values).to(next(iter(inputs.values())).device)
    return inputs, states


def _axes_of(story: Story) -> dict[str, dict[int, str]]:
    return {
        spec.name: {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in story.inputs
    }


def _compare(
    model: Model, prepared: Prepared, inputs: Tensors, states: Tensors, expected: Tensors, sizes: Mapping[str, int]
) -> None:
    at = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "its only shape"
    try:
        actual = model.run({name: tensor.cpu().numpy() for name, tensor in {**inputs, **states}.items()})
    except (InputError, RunError) as error:
        raise FixedSizeError(
            f"the exported file fails at {at}, where the module runs, so it was not kept; something in the module "
            f"freezes a size: {str(error).removeprefix(f'{model.path}: ')}"
        ) from error
    for name, tensor in expected.items():
        problem = _difference(actual[name], tensor, prepared)
        if problem:
            raise FixedSizeError(
                f"the exported file's {name} {problem} at {at}, so it was not kept; something in the module freezes "
                "a size or a value: a Python loop, a number in view or expand, or a tensor made of numbers"
            )


def _difference(actual: np.ndarray, expected: Tensor, prepared: Prepared) -> str:
    wanted = expected.detach().cpu().numpy()
    if actual.shape != wanted.shape:
        return f"has shape {actual.shape} where the module gives {wanted.shape}"
    if not np.issubdtype(wanted.dtype, np.floating):
        return ""  # an argmax may tip over by rounding
    finite = np.isfinite(wanted)
    if not finite.any():
        return ""
    scale = max(1.0, float(np.abs(wanted[finite]).max()))
    error = float(np.abs(actual.astype(np.float64)[finite] - wanted.astype(np.float64)[finite]).max())
    tolerance = _HALF if prepared.dtype == torch.float16 else _TOLERANCE
    return "" if error <= tolerance * scale else f"is off by {error:.3g}"
