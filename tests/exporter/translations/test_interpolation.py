"""Interpolation takes the entries that PyTorch takes, at every length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made, signal
from tests.exporter.translations.test_size_arithmetic import Sized, right_at_every_length

pytestmark = pytest.mark.sweep(18)

SIZES: dict[str, dict[str, Any]] = {
    "size": {"size": 10},
    "0.7": {"scale_factor": 0.7},
    "1.3": {"scale_factor": 1.3},
    "2": {"scale_factor": 2},
    "41": {"scale_factor": 41.0},
    "recomputed": {"scale_factor": 0.7, "recompute_scale_factor": True},
}


def resized(
    shape: Callable[[Tensor], Tensor], mode: str, sizes: Mapping[str, Mapping[str, Any]], **options: Any
) -> dict[str, Callable[[Tensor], Tensor]]:
    """For each of the `sizes`, a function that interpolates what `shape` makes of the LSTM's output."""
    return {
        name: lambda y, size=size: F.interpolate(shape(y), mode=mode, **size, **options) for name, size in sizes.items()
    }


def features_first(y: Tensor) -> Tensor:
    return y.transpose(1, 2)


def as_image(y: Tensor) -> Tensor:
    return y.unsqueeze(1)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_one_axis(mode: str, tmp_path: Path) -> None:
    right_at_every_length(resized(features_first, mode, SIZES), tmp_path)


def test_aligned_corners(tmp_path: Path) -> None:
    sizes = {name: SIZES[name] for name in ("size", "0.7", "1.3")}
    right_at_every_length(resized(features_first, "linear", sizes, align_corners=True), tmp_path)


TWO_AXES: dict[str, dict[str, Any]] = {
    "size": {"size": (10, 7)},
    "factors": {"scale_factor": (0.7, 1.0)},
    "recomputed": {"scale_factor": (1.3, 1.5), "recompute_scale_factor": True},
}


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
def test_two_axes(mode: str, tmp_path: Path) -> None:
    right_at_every_length(resized(as_image, mode, TWO_AXES), tmp_path)


def test_two_axes_with_aligned_corners(tmp_path: Path) -> None:
    factor = {"1.3": SIZES["1.3"]}
    functions = {mode: resized(as_image, mode, factor, align_corners=True)["1.3"] for mode in ("bilinear", "bicubic")}
    right_at_every_length(functions, tmp_path)


def test_three_axes(tmp_path: Path) -> None:
    factors = {"factors": {"scale_factor": (1, 0.7, 2)}}
    modes = ("nearest", "nearest-exact", "trilinear")
    right_at_every_length(
        {mode: resized(lambda y: y[:, None, None], mode, factors)["factors"] for mode in modes}, tmp_path
    )


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_doubles(mode: str, tmp_path: Path) -> None:
    sizes = {name: SIZES[name] for name in ("size", "1.3")}
    right_at_every_length(resized(features_first, mode, sizes), tmp_path, torch.float64)


def test_two_axes_of_doubles(tmp_path: Path) -> None:
    size = {"size": {"size": (49, 4)}}
    functions = {mode: resized(as_image, mode, size)["size"] for mode in ("nearest", "nearest-exact")}
    right_at_every_length(functions, tmp_path, torch.float64)


@pytest.mark.parametrize("opset", [14, 17, 18, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    def twice(y: Tensor) -> Tensor:
        y = F.interpolate(y.transpose(1, 2), scale_factor=1.3, mode="linear")
        return nn.Upsample(scale_factor=2)(F.interpolate(y, scale_factor=0.7))

    right_at_every_length(twice, tmp_path, opset=opset)


@pytest.mark.parametrize(("factor", "resize"), [(2.0, True), (3.0, True), (41.0, False), (0.5, False), (1.5, False)])
def test_resize_is_kept_where_it_is_exact(factor: float, resize: bool, tmp_path: Path) -> None:
    module = Sized(lambda y: F.interpolate(y.transpose(1, 2), scale_factor=factor))
    assert ("Resize" in made(module, signal(2, 9), X, tmp_path).operators) == resize


def test_a_stream_over_interpolated_steps_is_refused(tmp_path: Path) -> None:
    module = Sized(lambda y: F.interpolate(y.transpose(1, 2), scale_factor=1.3).transpose(1, 2))
    result = made(module, signal(2, 9), X, tmp_path, states="explicit")
    assert any("cannot be streamed" in note for note in result.exported.notes)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiasing(mode: str, tmp_path: Path) -> None:
    class Smaller(nn.Module):
        def __init__(self, **how: Any) -> None:
            super().__init__()
            self.how = how

        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, mode=mode, antialias=True, **self.how)

    x, axes = torch.randn(1, 2, 6, 9), {"x": {3: "width"}}
    exact: dict[str, Any] = {"scale_factor": 0.5, "recompute_scale_factor": True}
    for module in (Smaller(size=(3, 4)), Smaller(scale_factor=(0.5, 2.0)), Smaller(**exact)):
        agree(made(module, x, axes, tmp_path).run(x[..., :7]), eager(module, (x[..., :7],)))
    for module in (Smaller(scale_factor=0.5), Smaller(size=(3, 4), align_corners=True)):
        with pytest.raises(ExportError, match=r"antialias=True has no translation .* give the size or recompute"):
            made(module, x, axes, tmp_path)
