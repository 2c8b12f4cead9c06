"""Forecasters of time series and networks that stack LSTMs with other layers."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.architectures.architecture import BATCH, BATCH_TIME, Architecture, Draw, Inputs, seeded, signal


class ManyToOne(nn.Module):
    """The next value from the last output; zeros as the start, made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.num_layers, self.hidden_size = 2, 12
        self.lstm = nn.LSTM(1, self.hidden_size, self.num_layers, batch_first=True)
        self.linear = nn.Linear(self.hidden_size, 1)

    def forward(self, series: Tensor) -> Tensor:
        h0 = torch.zeros(self.num_layers, series.size(0), self.hidden_size).to(series.device)
        c0 = torch.zeros(self.num_layers, series.size(0), self.hidden_size).to(series.device)
        out, _ = self.lstm(series, (h0, c0))
        return self.linear(out[:, -1])


class ExogenousForecaster(nn.Module):
    """The series itself, (batch, time), with drivers known for each step beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 10, batch_first=True)
        self.head = nn.Linear(10, 1)

    def forward(self, series: Tensor, drivers: Tensor) -> Tensor:
        x = torch.cat([series[..., None], drivers], dim=-1)
        out, _ = self.lstm(x)
        return series + self.head(out)[..., 0]


class StaticForecaster(nn.Module):
    """Features of the site, one row a series, joined to each step."""

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Linear(3, 4)
        self.lstm = nn.LSTM(2 + 4, 9, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(9, 2)

    def forward(self, series: Tensor, static: Tensor) -> Tensor:
        site = torch.relu(self.site(static)).unsqueeze(1).expand(-1, series.size(1), -1)
        out, _ = self.lstm(torch.cat((series, site), 2))
        return self.head(out)


class MultiHorizon(nn.Module):
    """Several quantiles for each of the coming steps from one head, (batch, horizon, quantiles)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 14, batch_first=True)
        self.head = nn.Linear(14, 6 * 3)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(x)
        return self.head(hidden[-1]).view(-1, 6, 3)


class RolledOut(nn.Module):
    """Feeds its own forecast back for three more steps: the same LSTM in a loop of fixed length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.lstm(x)
        step = self.head(out[:, -1:])
        steps = [step]
        for _ in range(3):
            out, state = self.lstm(step, state)
            step = step + self.head(out)
            steps.append(step)
        return torch.cat(steps, dim=1)


class ScaledForecaster(nn.Module):
    """Scales each series by its own mean and spread, and scales the forecast back."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 10, batch_first=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean = x.mean(dim=1, keepdim=True)
        spread = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-2)
        out, _ = self.lstm((x - mean) / spread)
        forecast = self.head(out[:, -1:]) * spread + mean
        return {"forecast": forecast.squeeze(1), "spread": spread.squeeze(1)}


class NetworkForecaster(nn.Module):
    """All sensors (batch, time, sensors, features) through one LSTM, as so many rows, with an embedding of each."""

    def __init__(self) -> None:
        super().__init__()
        self.sensors = nn.Embedding(4, 3)
        self.lstm = nn.LSTM(2 + 3, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, sensors, _ = x.shape
        which = self.sensors.weight.view(1, 1, sensors, -1).expand(batch, time, -1, -1)
        rows = torch.cat([x, which], -1).transpose(1, 2).reshape(batch * sensors, time, -1)
        out, _ = self.lstm(rows)
        return self.head(out[:, -1]).view(batch, sensors)


class NormalisedForecaster(nn.Module):
    """Batch norm over the features before and after the LSTM, with statistics that have seen data."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm1d(5)
        self.lstm = nn.LSTM(5, 8, batch_first=True)
        self.after = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)
        for norm in (self.before, self.after):
            norm.running_mean = torch.randn(norm.num_features)
            norm.running_var = torch.rand(norm.num_features) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x.transpose(1, 2)).transpose(1, 2)
        out, _ = self.lstm(x)
        return self.head(self.after(out.permute(0, 2, 1)).permute(0, 2, 1))


class ResidualBlock(nn.Module):
    """Layer norm, LSTM, and the block's input added again."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.lstm = nn.LSTM(size, size, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(self.norm(x))[0]


class ResidualStack(nn.Module):
    """Three residual blocks in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 10)
        self.blocks = nn.Sequential(*(ResidualBlock(10) for _ in range(3)))
        self.leave = nn.Sequential(nn.LayerNorm(10), nn.Linear(10, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.blocks(self.enter(x)))


class HighwayStack(nn.Module):
    """A gate mixes each LSTM's output with its input."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 8)
        self.lstms = nn.ModuleList(
            [nn.LSTM(8, 8, batch_first=True), nn.LSTM(8, 4, batch_first=True, bidirectional=True)]
        )
        self.gates = nn.ModuleList([nn.Linear(8, 8) for _ in self.lstms])

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for lstm, gate in zip(self.lstms, self.gates, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * lstm(x)[0] + (1 - share) * x
        return x


class AttentiveForecaster(nn.Module):
    """Multi-head attention over the LSTM's outputs; the last step asks, and the weights are an output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 12, batch_first=True)
        self.attention = nn.MultiheadAttention(12, num_heads=3, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, _ = self.lstm(x)
        attended, weights = self.attention(out[:, -1:], out, out)
        return self.head(self.norm(out[:, -1:] + attended)).flatten(1), weights


class MaskedSelfAttention(nn.Module):
    """Every step attends to the valid ones; a bool mask marks the padding, as attention wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, num_heads=2)
        self.enter = nn.Linear(3, 8)
        self.lstm = nn.LSTM(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = self.enter(x).transpose(0, 1)
        x = x + self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        return self.head(self.lstm(x)[0]).transpose(0, 1)


def _series_and_drivers(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"series": draw.floats(batch, time), "drivers": draw.floats(batch, time, 3)}


def _series_and_static(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 2), draw.floats(batch, 3)


def _sensors(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(batch, time, 4, 2),)


def _signal_and_padding(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 3), ~draw.mask()


X = {"x": BATCH_TIME}

ARCHITECTURES = (
    Architecture("many_to_one", seeded(ManyToOne), signal(1), {"series": BATCH_TIME}, 2),
    Architecture(
        "exogenous_forecaster",
        seeded(ExogenousForecaster),
        _series_and_drivers,
        {"series": BATCH_TIME, "drivers": BATCH_TIME},
        1,
    ),
    Architecture(
        "static_forecaster", seeded(StaticForecaster), _series_and_static, {"series": BATCH_TIME, "static": BATCH}, 2
    ),
    Architecture("multi_horizon", seeded(MultiHorizon), signal(3), X, 1),
    Architecture("rolled_out", seeded(RolledOut), signal(2), X, 4),
    Architecture("scaled_forecaster", seeded(ScaledForecaster), signal(2), X, 1),
    Architecture("network_forecaster", seeded(NetworkForecaster), _sensors, X, 1),
    Architecture("normalised_forecaster", seeded(NormalisedForecaster), signal(5), X, 1),
    Architecture("residual_stack", seeded(ResidualStack), signal(4), X, 3),
    Architecture("highway_stack", seeded(HighwayStack), signal(4), X, 2),
    Architecture("attentive_forecaster", seeded(AttentiveForecaster), signal(3), X, 1),
    Architecture(
        "masked_self_attention",
        seeded(MaskedSelfAttention),
        _signal_and_padding,
        {"x": BATCH_TIME, "padding": BATCH_TIME},
        1,
    ),
)
