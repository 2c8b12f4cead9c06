"""Speech, music and other sound."""

from __future__ import annotations

import torch
from torch import nn

from ..model import Model
from ..packages import Package

ENCODEC = Package("encodec", "0.1.1", bare=("encodec", "encodec.modules"))
OPENUNMIX = Package("openunmix", "1.3.0", bare=("openunmix",), stubs=("openunmix.filtering", "openunmix.transforms"))


def encodec_slstm() -> nn.Module:
    from encodec.modules.lstm import SLSTM

    return SLSTM(32)


def open_unmix() -> nn.Module:
    from openunmix.model import OpenUnmix

    return OpenUnmix(nb_bins=64, hidden_size=32)


AUDIO = (
    Model("encodec SLSTM", ENCODEC, encodec_slstm, lambda b, t: (torch.randn(b, 32, t),)),
    Model("OpenUnmix", OPENUNMIX, open_unmix, lambda b, t: (torch.rand(b, 2, 64, t),)),
)
