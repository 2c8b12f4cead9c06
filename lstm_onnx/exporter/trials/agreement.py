"""Whether a file's outputs equal the module's, up to rounding.

An output is compared relative to its largest absolute value.  Where it differs by more than rounding does in most
models, the effect of rounding in this module is measured: it runs again with the last bits of its parameters and
inputs changed, and again with those of every operator's result changed, since PyTorch may add up a long sum in double
where ONNX Runtime does not.  So a module that amplifies rounding errors is not refused, and small outputs are compared
as strictly as large ones.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..functional.functional_module import FunctionalModule, Tensors
from ..functional.operator_roundings import OperatorRoundings

HALF_ROUNDING = "which is the rounding of float16"
UNSTABLE_SHAPE = "and rounding changes that shape"
OTHER_DTYPE = "has dtype"
_RELATIVE = {torch.float16: 1e-2}
_OTHERWISE = 1e-5
"""Differences that are always allowed, relative to an output's largest absolute value: rounding in most models."""
_SMALLEST = 2.0**-40
"""Smaller differences are ignored: a closed gate gives 1e-17 in PyTorch and 0 in ONNX Runtime."""
_TIMES_ROUNDING = 64
"""The largest allowed multiple of the difference that a change of the last bits makes."""
_TIMES_OPERATORS = 4
"""The same for one rounding of every operator's result, relative to what it adds up."""
_REPEATS = 3
_FLOOR_BITS = 32
"""The largest allowed difference where an output is all zeros, in units of epsilon."""
_HALF_UNITS = 2
"""Of an output in float16, the difference that is one of rounding, in units of its epsilon."""
_FLIPPED = 0.01
"""The share of an output's integers that may differ, since rounding can change an argmax."""
_FLIP_BITS, _JUMP = 64, 2.0
"""The last bits to change to find discontinuities, and the allowed multiple of the jump there."""


def first_difference(
    functional: FunctionalModule,
    inputs: Tensors,
    run: Callable[[Tensors], Tensors],
    expected: Tensors,
    actual: Mapping[str, np.ndarray],
) -> str | None:
    """The first output that differs from the module's, and how: ``output is off by 0.3``; None if all agree.

    Args:
        functional: the module.
        inputs: the inputs of the run.
        run: calls the module with other inputs and the same states.
        expected: the module's outputs.
        actual: the file's outputs.
    """
    doubtful: dict[str, np.ndarray] = {}
    for name, wanted in _arrays(expected).items():
        problem = _form(actual[name], wanted)
        if problem:
            changed = [] if problem.startswith(OTHER_DTYPE) else _roundings(functional, inputs, run)
            unstable = any(name in other and other[name].shape != wanted.shape for other in changed)
            return f"{name} {problem}{f', {UNSTABLE_SHAPE}' if unstable else ''}"
        if not _close(actual[name], wanted, functional.dtype):
            doubtful[name] = wanted
    if not doubtful:
        return None
    # Only where needed: it runs the module again.
    roundings = _roundings(functional, inputs, run)
    operators = [_arrays(_rounded(functional, inputs, run, seed)) for seed in range(_REPEATS)]
    for name, wanted in doubtful.items():
        others = [other[name] for other in roundings if name in other]
        moved = max((_error(other[name], wanted) for other in operators if _is_like(other[name], wanted)), default=0.0)
        problem = _difference(actual[name], wanted, others, functional.dtype, _TIMES_OPERATORS * moved)
        if problem:
            return f"{name} {problem}"
    return None


def _roundings(
    functional: FunctionalModule, inputs: Tensors, run: Callable[[Tensors], Tensors]
) -> list[dict[str, np.ndarray]]:
    """The module's outputs with last bits changed: first by `_REPEATS` draws of one bit."""
    draws = itertools.product((1, _FLIP_BITS), range(_REPEATS))
    return [_arrays(_perturbed(functional, inputs, run, bits, seed)) for bits, seed in draws]


def _arrays(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _form(actual: np.ndarray, wanted: np.ndarray) -> str:
    if actual.shape != wanted.shape:
        return f"has shape {actual.shape} where the module gives {wanted.shape}"
    if actual.dtype != wanted.dtype:
        return f"{OTHER_DTYPE} {actual.dtype} where the module gives {wanted.dtype}"
    return ""


def _close(actual: np.ndarray, wanted: np.ndarray, dtype: torch.dtype) -> bool:
    if wanted.dtype.kind not in "fc":
        return bool(np.array_equal(actual, wanted))
    error, scale = _error(actual, wanted), _scale(wanted)
    return error <= max(_SMALLEST, _RELATIVE.get(dtype, _OTHERWISE) * scale)


def _error(actual: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference where the module's output is finite; infinite where infinities differ."""
    finite, infinite = np.isfinite(wanted), np.isinf(wanted)
    if not np.array_equal(actual[infinite], wanted[infinite]):
        return float("inf")
    if not finite.any():
        return 0.0
    error = float(np.abs(_double(actual)[finite] - _double(wanted)[finite]).max())
    return error if np.isfinite(error) else float("inf")


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _scale(wanted: np.ndarray) -> float:
    finite = np.isfinite(wanted)
    return float(np.abs(_double(wanted)[finite]).max()) if finite.any() else 0.0


def _is_like(other: np.ndarray, wanted: np.ndarray) -> bool:
    return other.shape == wanted.shape and wanted.dtype.kind in "fc"


def _difference(
    actual: np.ndarray, wanted: np.ndarray, others: list[np.ndarray], dtype: torch.dtype, least: float
) -> str:
    """How an output differs; "" where rounding explains it.

    `others` are the module's outputs with last bits changed; a difference up to `least` is always allowed.
    """
    alike = [other for other in others if other.shape == wanted.shape]
    if wanted.dtype.kind not in "fc":
        unstable = np.zeros(wanted.shape, np.bool_)
        for other in alike:
            unstable |= other != wanted
        wrong = int(((actual != wanted) & ~unstable).sum())
        return f"differs in {wrong} of {wanted.size} numbers" if wrong > _FLIPPED * wanted.size else ""
    error, scale = _error(actual, wanted), _scale(wanted)
    epsilon = float(torch.finfo(dtype).eps)
    rounding = max((_error(other, wanted) for other in alike[:_REPEATS]), default=0.0)
    allowed = max(_TIMES_ROUNDING * rounding, least, 0.0 if scale else _FLOOR_BITS * epsilon)
    if error <= allowed or _jumped(actual, wanted, alike, allowed):
        return ""
    relative = f", where its largest number is {scale:.3g}" if 0 < scale < 1 else ""
    half = wanted.dtype == np.float16 != np.dtype(str(dtype).removeprefix("torch."))
    rounded = f", {HALF_ROUNDING}" if half and error <= _HALF_UNITS * np.finfo(np.float16).eps * scale else ""
    return f"is off by {error:.3g}{relative}{rounded}"


def _jumped(actual: np.ndarray, wanted: np.ndarray, others: list[np.ndarray], allowed: float) -> bool:
    """Whether rounding makes each number that differs by more than `allowed` jump as far, as ``round`` does."""
    finite = np.isfinite(wanted)
    if not others or _error(actual, wanted) == float("inf"):
        return False
    errors = np.abs(_double(actual)[finite] - _double(wanted)[finite])
    jumps = np.max([np.abs(_double(other)[finite] - _double(wanted)[finite]) for other in others], axis=0)
    return bool((errors <= np.maximum(allowed, _JUMP * jumps)).all())


def _perturbed(
    functional: FunctionalModule, inputs: Tensors, run: Callable[[Tensors], Tensors], bits: int, seed: int
) -> Tensors:
    """The module's outputs with the last bits of every parameter and floating-point input changed at random."""
    generator = torch.Generator().manual_seed(seed)

    def changed(tensor: Tensor) -> Tensor:
        noise = torch.rand(tensor.shape, generator=generator).to(tensor.device) * 2 - 1
        return (tensor.double() * (1 + bits * torch.finfo(tensor.dtype).eps * noise.double())).to(tensor.dtype)

    with _other_parameters(functional, changed):
        return run({name: changed(tensor) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()})


def _rounded(functional: FunctionalModule, inputs: Tensors, run: Callable[[Tensors], Tensors], seed: int) -> Tensors:
    """The module's outputs with every operator's result off by up to one rounding."""
    with OperatorRoundings(torch.finfo(functional.dtype).eps, seed):
        return run(inputs)


@contextlib.contextmanager
def _other_parameters(functional: FunctionalModule, changed: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A context in which every floating-point parameter of the copy is changed."""
    parameters = [item for item in functional.stateful.parameters() if item.is_floating_point()]
    weights = [(recurrent, recurrent.weights) for recurrent in functional.recurrent_modules.values()]
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(changed(parameter.detach()))
        for recurrent, _ in weights:
            recurrent.weights = {}
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
        for recurrent, own in weights:
            recurrent.weights = own
