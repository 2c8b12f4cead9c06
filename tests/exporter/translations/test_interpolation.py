"""Interpolation takes the entries that PyTorch takes, at every length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.exporter.helpers import X, made, signal
from tests.exporter.translations.test_size_arithmetic import Sized, right_at_every_length

SIZES: dict[str, dict[str, Any]] = {
    "size": {"size": 10},
    "0.7": {"scale_factor": 0.7},
    "1.3": {"scale_factor": 1.3},
    "2": {"scale_factor": 2},
    "41": {"scale_factor": 41.0},
    "recomputed": {"scale_factor": 0.7, "recompute_scale_factor": True},
}


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
@pytest.mark.parametrize("name", SIZES)
def test_one_axis(mode: str, name: str, tmp_path: Path) -> None:
    right_at_every_length(lambda y: F.interpolate(y.transpose(1, 2), mode=mode, **SIZES[name]), tmp_path)


@pytest.mark.parametrize("name", ["size", "0.7", "1.3"])
def test_aligned_corners(name: str, tmp_path: Path) -> None:
    right_at_every_length(
        lambda y: F.interpolate(y.transpose(1, 2), mode="linear", align_corners=True, **SIZES[name]), tmp_path
    )


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize(
    "sizes",
    [{"size": (10, 7)}, {"scale_factor": (0.7, 1.0)}, {"scale_factor": (1.3, 1.5), "recompute_scale_factor": True}],
    ids=["size", "factors", "recomputed"],
)
def test_two_axes(mode: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    right_at_every_length(lambda y: F.interpolate(y.unsqueeze(1), mode=mode, **sizes), tmp_path)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_two_axes_with_aligned_corners(mode: str, tmp_path: Path) -> None:
    right_at_every_length(
        lambda y: F.interpolate(y.unsqueeze(1), scale_factor=1.3, mode=mode, align_corners=True), tmp_path
    )


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "trilinear"])
def test_three_axes(mode: str, tmp_path: Path) -> None:
    right_at_every_length(lambda y: F.interpolate(y[:, None, None], scale_factor=(1, 0.7, 2), mode=mode), tmp_path)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
@pytest.mark.parametrize("name", ["size", "1.3"])
def test_doubles(mode: str, name: str, tmp_path: Path) -> None:
    right_at_every_length(lambda y: F.interpolate(y.transpose(1, 2), mode=mode, **SIZES[name]), tmp_path, torch.float64)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_two_axes_of_doubles(mode: str, tmp_path: Path) -> None:
    right_at_every_length(lambda y: F.interpolate(y.unsqueeze(1), size=(49, 4), mode=mode), tmp_path, torch.float64)


@pytest.mark.parametrize("opset", [14, 17, 18, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    def resized(y: Tensor) -> Tensor:
        y = F.interpolate(y.transpose(1, 2), scale_factor=1.3, mode="linear")
        return nn.Upsample(scale_factor=2)(F.interpolate(y, scale_factor=0.7))

    right_at_every_length(resized, tmp_path, opset=opset)


@pytest.mark.parametrize(("factor", "resize"), [(2.0, True), (3.0, True), (41.0, False), (0.5, False), (1.5, False)])
def test_resize_is_kept_where_it_is_exact(factor: float, resize: bool, tmp_path: Path) -> None:
    module = Sized(lambda y: F.interpolate(y.transpose(1, 2), scale_factor=factor))
    assert ("Resize" in made(module, signal(2, 9), X, tmp_path).operators) == resize


def test_a_stream_over_interpolated_steps_is_refused(tmp_path: Path) -> None:
    module = Sized(lambda y: F.interpolate(y.transpose(1, 2), scale_factor=1.3).transpose(1, 2))
    result = made(module, signal(2, 9), X, tmp_path, states="explicit")
    assert any("cannot be streamed" in note for note in result.exported.notes)
