"""torch.istft with a length that stays symbolic in a trace; torch's own function takes only a number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .ranges import is_symbolic


def istft(
    input: Tensor,  # as torch calls it
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Tensor | None:
    """The inverse STFT by its definition: the sum of the windowed frames divided by that of the squared windows.

    Args:
        input: complex ``(batch, frequencies, frames)`` or ``(frequencies, frames)``; all arguments as for torch.istft.

    Returns:
        ``(batch, length)`` or ``(length,)``; None where torch's own function can be traced.
    """
    if not is_symbolic(length) or return_complex or onesided is False:
        return None
    win_length = n_fft if win_length is None else win_length
    hop = win_length // 4 if hop_length is None else hop_length
    real = input.real.dtype
    if window is None:
        window = torch.ones(win_length, dtype=real, device=input.device)
    before = (n_fft - win_length) // 2
    weights = pad(window, (before, n_fft - win_length - before))
    spectrum = input if input.dim() == 3 else input.unsqueeze(0)
    frames = torch.fft.irfft(spectrum.transpose(1, 2), n_fft, norm="ortho" if normalized else "backward")
    count = frames.shape[1]
    total = n_fft + hop * (count - 1)
    start = n_fft // 2 if center else 0

    def added(parts: Tensor) -> Tensor:
        sums: Tensor = torch.ops.aten.unfold_backward.default(parts, [parts.shape[0], total], 1, n_fft, hop)
        return sums

    # As many zeros after the last frame as could be needed at most, so that no decision depends on their number.
    samples = pad(added(frames * weights), (0, length))[:, start : start + length]
    overlap = added((weights * weights).expand(1, count, n_fft))
    overlap = pad(overlap, (0, length), value=1.0)[:, start : start + length]
    result = samples / overlap
    return result if input.dim() == 3 else result.squeeze(0)
