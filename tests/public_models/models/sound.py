"""Music and other sound: separation, enhancement, codecs, transcription."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..model import Model
from ..packages import Package
from .speech import TORCHAUDIO

ENCODEC = Package("encodec", "0.1.1", bare=("encodec", "encodec.modules"))
OPENUNMIX = Package("openunmix", "1.3.0", bare=("openunmix",), stubs=("openunmix.filtering", "openunmix.transforms"))
DEEPFILTERNET = Package("DeepFilterNet", "0.5.6", bare=("df",), stubs=("libdf", "df.model", "df.utils"))
ASTEROID = Package("asteroid", "0.7.0", needs=("asteroid-filterbanks==0.4.0",), bare=("asteroid", "asteroid.masknn"))
PIANO = Package(
    "piano_transcription_inference",
    "0.0.6",
    bare=("piano_transcription_inference",),
    stubs=("piano_transcription_inference.pytorch_utils", "torchlibrosa"),
)
DEMUCS = Package(
    "demucs", "4.1.0", needs=("julius==0.2.7", "einops==0.8.1"), bare=("demucs",), stubs=("omegaconf", "diffq")
)
DENOISER = Package("denoiser", "0.1.5", bare=("denoiser",))
NUSSL = Package(
    "nussl", "1.1.9", bare=("nussl", "nussl.ml", "nussl.ml.networks", "nussl.ml.networks.modules"), stubs=("librosa",)
)


def encodec_slstm() -> nn.Module:
    from encodec.modules.lstm import SLSTM

    return SLSTM(32)


def open_unmix(unidirectional: bool) -> nn.Module:
    from openunmix.model import OpenUnmix

    return OpenUnmix(nb_bins=64, hidden_size=32, unidirectional=unidirectional)


def hdemucs_blstm() -> nn.Module:
    from torchaudio.models._hdemucs import _BLSTM

    return _BLSTM(16, layers=2, skip=True)


def deepfilter(name: str, *arguments: Any, **options: Any) -> nn.Module:
    from df import modules

    return getattr(modules, name)(*arguments, **options)


def asteroid(name: str, *arguments: Any, **options: Any) -> nn.Module:
    from asteroid.masknn import recurrent

    return getattr(recurrent, name)(*arguments, **options)


def piano() -> nn.Module:
    from piano_transcription_inference.models import AcousticModelCRnn8Dropout

    return AcousticModelCRnn8Dropout(classes_num=8, midfeat=256, momentum=0.01)


def demucs_blstm(**options: Any) -> nn.Module:
    from demucs.demucs import BLSTM

    return BLSTM(16, layers=2, **options)


def denoiser() -> nn.Module:
    from denoiser.demucs import Demucs

    return Demucs(hidden=8, depth=3, resample=1)


def nussl_stack() -> nn.Module:
    from nussl.ml.networks.modules.blocks import RecurrentStack

    return RecurrentStack(12, 16, 2, True, 0.3)


SOUND = (
    Model("encodec SLSTM", ENCODEC, encodec_slstm, lambda b, t: (torch.randn(b, 32, t),)),
    Model("OpenUnmix", OPENUNMIX, lambda: open_unmix(False), lambda b, t: (torch.rand(b, 2, 64, t),)),
    Model("OpenUnmix unidirectional", OPENUNMIX, lambda: open_unmix(True), lambda b, t: (torch.rand(b, 2, 64, t),)),
    Model("torchaudio HDemucs BLSTM", TORCHAUDIO, hdemucs_blstm, lambda b, t: (torch.randn(b, 16, t),)),
    Model(
        "DeepFilterNet GroupedGRU",
        DEEPFILTERNET,
        lambda: deepfilter("GroupedGRU", 16, 32, num_layers=2, groups=4, add_outputs=True),
        lambda b, t: (torch.randn(b, t, 16),),
    ),
    Model(
        "DeepFilterNet SqueezedGRU_S",
        DEEPFILTERNET,
        lambda: deepfilter("SqueezedGRU_S", 16, 32, 16, num_layers=2, linear_act_layer=nn.ReLU),
        lambda b, t: (torch.randn(b, t, 16),),
    ),
    Model(
        "asteroid StackedResidualRNN",
        ASTEROID,
        lambda: asteroid("StackedResidualRNN", "LSTM", 16),
        lambda b, t: (torch.randn(b, t, 16),),
    ),
    Model(
        "asteroid DPRNN",
        ASTEROID,
        lambda: asteroid("DPRNN", 16, 2, bn_chan=8, hid_size=8, chunk_size=4, n_repeats=1),
        lambda b, t: (torch.randn(b, 16, t),),
    ),
    Model("piano transcription CRNN", PIANO, piano, lambda b, t: (torch.randn(b, 1, t, 32),), gain=4),
    Model("demucs BLSTM", DEMUCS, demucs_blstm, lambda b, t: (torch.randn(b, 16, t),)),
    Model(
        "demucs BLSTM in frames",
        DEMUCS,
        lambda: demucs_blstm(max_steps=8, skip=True),
        lambda b, t: (torch.randn(b, 16, t),),
    ),
    Model("denoiser Demucs", DENOISER, denoiser, lambda b, t: (torch.randn(b, 1, 64 * t),)),
    Model("nussl RecurrentStack", NUSSL, nussl_stack, lambda b, t: (torch.randn(b, t, 12, 1),)),
)
