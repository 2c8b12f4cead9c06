"""Time series: forecasts, classification, imputation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..model import Model
from ..packages import Package

NEURALFORECAST = Package(
    "neuralforecast",
    "3.3.0",
    needs=(
        "pytorch-lightning==2.6.0",
        "lightning-utilities==0.15.2",
        "torchmetrics==1.8.2",
        "tqdm==4.67.1",
        "pandas==2.3.3",
        "pytz==2025.2",
        "six==1.17.0",
    ),
    bare=("neuralforecast", "neuralforecast.models", "neuralforecast.common", "neuralforecast.losses"),
    stubs=("utilsforecast", "coreforecast", "ray", "optuna"),
)
PYTORCH_FORECASTING = Package(
    "pytorch-forecasting",
    "1.8.0",
    bare=("pytorch_forecasting", "pytorch_forecasting.models", "pytorch_forecasting.models.nn"),
)
GLUONTS = Package(
    "gluonts",
    "0.17.0",
    needs=(
        "pydantic==2.12.4",
        "pydantic-core==2.41.5",
        "annotated-types==0.7.0",
        "typing-inspection==0.4.2",
        "toolz==1.1.0",
        "pandas==2.3.3",
        "pytz==2025.2",
        "six==1.17.0",
        "tqdm==4.67.1",
    ),
    bare=("gluonts.torch", "gluonts.torch.model", "gluonts.torch.model.tft", "gluonts.torch.modules"),
)
PYPOTS = Package("pypots", "1.5", bare=("pypots", "pypots.nn", "pypots.nn.modules"))
DEEPECHO = Package(
    "deepecho", "0.8.1", bare=("deepecho", "deepecho.models"), stubs=("pandas", "tqdm", "deepecho.models.base")
)


def neuralforecast(name: str, **options: Any) -> nn.Module:
    import importlib

    module = importlib.import_module(f"neuralforecast.models.{name.lower()}")
    return getattr(module, name)(h=4, input_size=6, **options)


def window(batch: int, time: int) -> tuple[Any, ...]:
    return ({"insample_y": torch.randn(batch, time, 1), "futr_exog": None, "hist_exog": None, "stat_exog": None},)


def dilated_rnn(cell: str) -> nn.Module:
    from neuralforecast.models.dilated_rnn import DRNN

    return DRNN(12, 16, 2, [1, 2], cell_type=cell)


def forecasting_lstm() -> nn.Module:
    from pytorch_forecasting.models.nn.rnn import LSTM

    return LSTM(12, 16, 2, batch_first=True)


def fusion_encoder() -> nn.Module:
    from gluonts.torch.model.tft.layers import TemporalFusionEncoder

    return TemporalFusionEncoder(12, 16)


def gru_d(steps: int) -> nn.Module:
    from pypots.nn.modules.grud.backbone import BackboneGRUD

    return BackboneGRUD(steps, 5, 8)


def gru_d_inputs(batch: int, steps: int) -> tuple[Any, ...]:
    mask = (torch.rand(batch, steps, 5) > 0.3).float()
    sizes = (batch, steps, 5)
    return torch.randn(sizes), mask, torch.rand(sizes), torch.randn(1, 5), torch.randn(sizes)


def seg_rnn() -> nn.Module:
    from pypots.nn.modules.segrnn.backbone import BackboneSegRNN

    return BackboneSegRNN(12, 3, 8, seg_len=4, d_model=16)


def par_net() -> nn.Module:
    from deepecho.models.par import PARNet

    return PARNet(5, 3, 16)


def discriminator() -> nn.Module:
    from deepecho.models.basic_gan import BasicDiscriminator

    return BasicDiscriminator(3, 5, 16)


SERIES = (
    Model(
        "NeuralForecast LSTM",
        NEURALFORECAST,
        lambda: neuralforecast("LSTM", encoder_hidden_size=16, decoder_hidden_size=16),
        window,
        longer=2,
        gain=2,
    ),
    Model(
        "NeuralForecast GRU",
        NEURALFORECAST,
        lambda: neuralforecast("GRU", encoder_hidden_size=16, decoder_hidden_size=16),
        window,
        longer=2,
        gain=2,
    ),
    Model(
        "NeuralForecast RNN",
        NEURALFORECAST,
        lambda: neuralforecast("RNN", encoder_hidden_size=16, decoder_hidden_size=16, recurrent=True),
        window,
        longer=2,
        gain=2,
    ),
    Model(
        "NeuralForecast DRNN of LSTM",
        NEURALFORECAST,
        lambda: dilated_rnn("LSTM"),
        lambda b, t: (torch.randn(b, t, 12),),
        longer=1,
    ),
    Model(
        "NeuralForecast DRNN of GRU",
        NEURALFORECAST,
        lambda: dilated_rnn("GRU"),
        lambda b, t: (torch.randn(b, t, 12),),
        longer=1,
    ),
    Model(
        "PyTorch Forecasting LSTM",
        PYTORCH_FORECASTING,
        forecasting_lstm,
        lambda b, t: (torch.randn(b, t, 12),),
    ),
    Model(
        "GluonTS TemporalFusionEncoder",
        GLUONTS,
        fusion_encoder,
        lambda b, t: (torch.randn(b, t, 12), torch.randn(b, 3, 12)),
    ),
    Model("PyPOTS GRU-D", PYPOTS, lambda: gru_d(6), lambda b, _: gru_d_inputs(b, 6)),
    Model("PyPOTS SegRNN", PYPOTS, seg_rnn, lambda b, _: (torch.randn(b, 12, 3),)),
    Model("DeepEcho PARNet", DEEPECHO, par_net, lambda b, t: (torch.randn(t, b, 5), torch.randn(b, 3))),
    Model("DeepEcho BasicDiscriminator", DEEPECHO, discriminator, lambda b, t: (torch.randn(t, b, 8),)),
)
