"""Forecasts, anomalies, rivers, crops and graphs: numbers over time."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained


class DistributionForecaster(nn.Module):
    """Mean and spread of the next value from the states of all layers, which go in and out one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(1 + 3 + 4, 6, num_layers=2, bias=True, batch_first=False, dropout=0.1)
        for names in self.lstm._all_weights:
            for name in filter(lambda n: "bias" in n, names):
                bias = getattr(self.lstm, name)
                bias.data[bias.size(0) // 4 : bias.size(0) // 2].fill_(1.0)
        self.distribution_mu, self.distribution_presigma = nn.Linear(12, 1), nn.Linear(12, 1)
        self.distribution_sigma = nn.Softplus()

    def forward(self, x: Tensor, idx: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        joined = torch.cat((x, self.embedding(idx).expand(x.size(0), -1, -1)), dim=2)
        _, (hidden, cell) = self.lstm(joined, (hidden, cell))
        flat = hidden.permute(1, 2, 0).contiguous().view(hidden.shape[1], -1)
        mu, sigma = self.distribution_mu(flat), self.distribution_sigma(self.distribution_presigma(flat))
        return torch.squeeze(mu, dim=1), torch.squeeze(sigma, dim=1), hidden, cell


class SkippingForecaster(nn.Module):
    """Convolution over all series, a GRU over its steps, another over every third step, and a linear part beside."""

    def __init__(self) -> None:
        super().__init__()
        self.series, self.kernel, self.skip, self.window = 4, 3, 3, 5
        self.conv1 = nn.Conv2d(1, 6, kernel_size=(self.kernel, self.series))
        self.gru1, self.gru_skip = nn.GRU(6, 5), nn.GRU(6, 3)
        self.dropout = nn.Dropout(p=0.2)
        self.linear1, self.highway = nn.Linear(5 + self.skip * 3, self.series), nn.Linear(self.window, 1)
        self.output = torch.sigmoid

    def forward(self, x: Tensor) -> Tensor:
        batch_size = x.size(0)
        c = F.relu(self.conv1(x.unsqueeze(1)))
        c = torch.squeeze(self.dropout(c), 3)
        _, r = self.gru1(c.permute(2, 0, 1).contiguous())
        r = self.dropout(torch.squeeze(r, 0))
        pt = c.size(2) // self.skip
        s = c[:, :, -pt * self.skip :].contiguous().view(batch_size, 6, pt, self.skip)
        s = s.permute(2, 0, 3, 1).contiguous().view(pt, batch_size * self.skip, 6)
        _, s = self.gru_skip(s)
        r = torch.cat((r, self.dropout(s.view(batch_size, self.skip * 3))), 1)
        z = x[:, -self.window :, :].permute(0, 2, 1).contiguous().view(-1, self.window)
        return self.output(self.linear1(r) + self.highway(z).view(-1, self.series))


class GatedResidual(nn.Module):
    """A linear layer with ELU, a gated linear unit, and the norm of what it adds to its input."""

    def __init__(self, width: int, hidden: int, context: int | None = None) -> None:
        super().__init__()
        self.skip = nn.Linear(width, hidden) if width != hidden else None
        self.fc1, self.fc2, self.gate = (
            nn.Linear(width, hidden),
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, 2 * hidden),
        )
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        residual = self.skip(x) if self.skip is not None else x
        x = self.fc1(x)
        if context is not None and self.context is not None:
            x = x + self.context(context)
        return self.norm(F.glu(self.gate(self.fc2(F.elu(x)))) + residual)


class FusionForecaster(nn.Module):
    """Encoder and decoder LSTMs over a window that a constant splits, variables weighed, attention over the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.encode_length, self.variables, self.width = 4, 3, 8
        self.static_embedding = nn.Embedding(7, 5)
        self.variable_nets = nn.ModuleList([GatedResidual(1, self.width) for _ in range(self.variables)])
        self.selection = GatedResidual(self.variables, self.variables, context=5)
        self.lstm_encoder, self.lstm_decoder = nn.LSTM(8, 8, num_layers=1), nn.LSTM(8, 8, num_layers=1)
        self.static_h, self.static_c = nn.Linear(5, 8), nn.Linear(5, 8)
        self.post, self.attention = GatedResidual(8, 8, context=5), nn.MultiheadAttention(8, 2)
        self.output = nn.Linear(8, 3)

    def selected(self, x: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.selection(x, static.unsqueeze(0).expand(x.size(0), -1, -1)).softmax(-1).unsqueeze(2)
        parts = [net(x[:, :, [index]]) for index, net in enumerate(self.variable_nets)]
        return (torch.stack(parts, dim=-1) * weights).sum(-1), weights

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        static = self.static_embedding(x["identifier"][:, 0].long())
        steps = x["inputs"].float().permute(1, 0, 2)
        chosen, weights = self.selected(steps, static)
        past, coming = chosen[: self.encode_length], chosen[self.encode_length :]
        first = (self.static_h(static).unsqueeze(0), self.static_c(static).unsqueeze(0))
        encoded, state = self.lstm_encoder(past, first)
        decoded, _ = self.lstm_decoder(coming, state)
        x_ = self.post(torch.cat([encoded, decoded], dim=0) + chosen, static.unsqueeze(0))
        size = x_.size(0)
        mask = torch.triu(torch.ones(size, size, dtype=torch.bool, device=x_.device), diagonal=1)
        attended, _ = self.attention(x_[self.encode_length :], x_, x_, attn_mask=mask[self.encode_length :])
        return {"quantiles": self.output(attended).transpose(0, 1), "weights": weights.squeeze(2)}


class TwoRates(nn.Module):
    """Daily and hourly inputs in a dict: the state of the days, some days before their end, starts the hours."""

    def __init__(self) -> None:
        super().__init__()
        self.rates, self.slices = ["1D", "1h"], {"1D": 2}
        self.lstms = nn.ModuleDict({"1D": nn.LSTM(3, 6), "1h": nn.LSTM(4, 5)})
        self.transfer = nn.ModuleDict({"h_1D": nn.Linear(6, 5), "c_1D": nn.Linear(6, 5)})
        self.heads = nn.ModuleDict({"1D": nn.Linear(6, 1), "1h": nn.Linear(5, 1)})
        self.dropout = nn.Dropout(0.4)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        x = {rate: data[f"x_d_{rate}"].transpose(0, 1) for rate in self.rates}
        h = x[self.rates[0]].new_zeros((1, x[self.rates[0]].shape[1], 6))
        c = torch.zeros_like(h)
        outputs = {}
        for index, rate in enumerate(self.rates):
            if index < len(self.rates) - 1:
                cut = self.slices[rate]
                before, (h_before, c_before) = self.lstms[rate](x[rate][:-cut], (h, c))
                h, c = self.transfer[f"h_{rate}"](h_before), self.transfer[f"c_{rate}"](c_before)
                after, _ = self.lstms[rate](x[rate][-cut:], (h_before, c_before))
                out = torch.cat([before, after], dim=0)
            else:
                out, _ = self.lstms[rate](x[rate], (h, c))
            outputs.update({f"y_hat_{rate}": self.heads[rate](self.dropout(out.transpose(0, 1)))})
        return outputs


class HandedOver(nn.Module):
    """A hindcast's state through a network to a forecast's first state; what overlaps comes out apart."""

    def __init__(self) -> None:
        super().__init__()
        self.overlap = 1
        self.hindcast_lstm, self.forecast_lstm = nn.LSTM(3, 6), nn.LSTM(2, 5)
        self.handoff_net, self.handoff_linear = nn.Sequential(nn.Linear(12, 8), nn.Tanh()), nn.Linear(8, 10)
        self.hindcast_head, self.forecast_head = nn.Linear(6, 1), nn.Linear(5, 1)
        self.dropout = nn.Dropout(0.3)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        x_h, x_f = data["x_h"].transpose(0, 1), data["x_f"].transpose(0, 1)
        past, (h, c) = self.hindcast_lstm(x_h)
        h, c = self.handoff_linear(self.handoff_net(torch.cat([h, c], -1))).chunk(2, -1)
        coming, _ = self.forecast_lstm(x_f, (h.contiguous(), c.contiguous()))
        coming = coming.transpose(0, 1)
        both, rest = coming[:, : self.overlap, :], coming[:, self.overlap :, :]
        heads = {"y_hat": self.hindcast_head(self.dropout(past.transpose(0, 1)))}
        pred = {key: torch.cat([value, self.forecast_head(self.dropout(rest))], dim=1) for key, value in heads.items()}
        pred["overlap"] = self.forecast_head(self.dropout(both))
        return pred


class HindcastThenForecast(nn.Module):
    """One LSTM over past and future inputs in turn; all states come out batch first in a dict that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.hindcast_net, self.forecast_net = nn.Linear(3, 4), nn.Linear(2, 4)
        self.lstm, self.head, self.dropout = nn.LSTM(4, 6), nn.Linear(6, 1), nn.Dropout(0.2)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        x_h = self.hindcast_net(data["x_h"].transpose(0, 1))
        x_f = self.forecast_net(data["x_f"].transpose(0, 1))
        past, (h, c) = self.lstm(input=x_h)
        coming, (h_f, c_f) = self.lstm(x_f, (h, c))
        joined = torch.cat([past.transpose(0, 1), coming.transpose(0, 1)], dim=1)
        pred = {"y_hat": self.head(self.dropout(joined))}
        pred.update(
            {"h_n": h.transpose(0, 1), "c_n": c.transpose(0, 1), "h_f": h_f.transpose(0, 1), "c_f": c_f.transpose(0, 1)}
        )
        return pred


class StackedForecast(nn.Module):
    """Past and future of one length, which is checked; the second LSTM reads the first one's output too."""

    def __init__(self) -> None:
        super().__init__()
        self.hindcast_lstm, self.forecast_lstm = nn.LSTM(3, 5), nn.LSTM(2 + 5, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, x_h: Tensor, x_f: Tensor) -> dict[str, Tensor]:
        if x_h.shape[0] != x_f.shape[0]:
            raise ValueError("hindcast and forecast sequences must be equal")
        past, _ = self.hindcast_lstm(input=x_h)
        coming, _ = self.forecast_lstm(torch.concat((x_f, past), dim=-1))
        return {"y_hat": self.head(coming.transpose(0, 1)), "lstm_output_hindcast": past.transpose(0, 1)}


class GraphForecaster(nn.Module):
    """Two graph convolutions at each step, both kept, then two LSTMs over the steps of every node."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes, self.hidden = 4, 6
        self.conv1, self.conv2 = nn.Linear(2, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.recurrent_1, self.recurrent_2 = nn.LSTM(12, 6, 1), nn.LSTM(6, 6, 1)
        self.register_buffer("adjacency", torch.rand(4, 4).softmax(-1))
        self.head = nn.Linear(6 + 6 + 2, 1)

    def convolved(self, x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
        x = F.relu(torch.einsum("nm,btmf->btnf", self.adjacency, conv(x)))
        return norm(x.flatten(0, 2)).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        batch, window = x.shape[:2]
        latest = x[:, -1].reshape(batch * self.nodes, -1)
        one = self.convolved(x, self.conv1, self.norm1)
        two = self.convolved(one, self.conv2, self.norm2)
        y = torch.cat([one, two], dim=-1).transpose(0, 1).contiguous().view(window, -1, 12)
        y, (h1, _) = self.recurrent_1(y)
        y, (h2, _) = self.recurrent_2(y)
        return self.head(torch.cat([h1[0, :, :], h2[0, :, :], latest], dim=1)).view(batch, self.nodes)


def _distribution(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    states = draw.floats(2, batch, 6).tanh(), draw.floats(2, batch, 6)
    return {"x": draw.floats(time, batch, 4), "idx": draw.tokens(9, 1, batch), "hidden": states[0], "cell": states[1]}


def _rates(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return ({"x_d_1D": draw.floats(batch, time, 3), "x_d_1h": draw.floats(batch, 3 * time + 1, 4)},)


def _casts(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"data": {"x_h": draw.floats(batch, time, 3), "x_f": draw.floats(batch, time + 3, 2)}}


def _window(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return ({"inputs": draw.floats(batch, time, 3), "identifier": draw.tokens(7, batch, 1)},)


WATER = "neuralhydrology/neuralhydrology neuralhydrology/modelzoo/"

PATTERNS = (
    Pattern(
        "distribution_forecaster", "zhykoties/TimeSeries model/net.py", trained(DistributionForecaster), _distribution
    ),
    Pattern(
        "skipping_forecaster", "laiguokun/LSTNet models/LSTNet.py", trained(SkippingForecaster), signal(4), min_time=5
    ),
    Pattern(
        "fusion_forecaster",
        "mattsherar/Temporal_Fusion_Transform tft_model.py",
        trained(FusionForecaster),
        _window,
        min_time=5,
    ),
    Pattern("two_rates", WATER + "mtslstm.py", trained(TwoRates), _rates, min_time=3),
    Pattern("handed_over", WATER + "handoff_forecast_lstm.py", trained(HandedOver), _casts),
    Pattern("hindcast_then_forecast", WATER + "sequential_forecast_lstm.py", trained(HindcastThenForecast), _casts),
    Pattern(
        "stacked_forecast",
        WATER + "stacked_forecast_lstm.py",
        trained(StackedForecast),
        lambda batch, time: (Draw(batch, time).floats(time, batch, 3), Draw(batch, time).floats(time, batch, 2)),
    ),
    Pattern(
        "graph_forecaster",
        "benedekrozemberczki/pytorch_geometric_temporal torch_geometric_temporal/nn/recurrent/mpnn_lstm.py",
        trained(GraphForecaster),
        lambda batch, time: (Draw(batch, time).floats(batch, time, 4, 2),),
    ),
)
