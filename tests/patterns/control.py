"""Agents, sketches, paths and signals of the body: what acts, moves or is measured."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained

State = tuple[Tensor, Tensor]


class RecurrentQ(nn.Module):
    """Values of the actions; h and c are arguments of their own, and come out so."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.lstm, self.linear2 = nn.Linear(4, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, (new_h, new_c) = self.lstm(F.relu(self.linear1(x)), (h, c))
        return self.linear2(x), new_h, new_c


class FlatRollout(nn.Module):
    """Observations of sequences laid flat, of a length that is an argument; a list of logits for each branch."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent_layer = nn.GRU(5, 7, batch_first=True)
        self.lin_hidden, self.lin_policy, self.lin_value = nn.Linear(7, 8), nn.Linear(8, 6), nn.Linear(8, 6)
        self.policy_branches, self.value = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 2)]), nn.Linear(6, 1)

    def forward(
        self, obs: Tensor, recurrent_cell: Tensor, sequence_length: int = 1
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        h = obs
        if sequence_length == 1:
            h, recurrent_cell = self.recurrent_layer(h.unsqueeze(1), recurrent_cell)
            h = h.squeeze(1)
        else:
            h_shape = tuple(h.size())
            h = h.reshape(h_shape[0] // sequence_length, sequence_length, h_shape[1])
            h, recurrent_cell = self.recurrent_layer(h, recurrent_cell)
            h_shape = tuple(h.size())
            h = h.reshape(h_shape[0] * h_shape[1], h_shape[2])
        h = F.relu(self.lin_hidden(h))
        value = self.value(F.relu(self.lin_value(h))).reshape(-1)
        policy = F.relu(self.lin_policy(h))
        return [branch(policy) for branch in self.policy_branches], value, recurrent_cell


class MaskedStep(nn.Module):
    """One step of several agents, told from a rollout by equal sizes; an episode that ended clears its state."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.gru, self.critic_linear = (
            nn.Sequential(nn.Linear(5, 6), nn.Tanh()),
            nn.GRU(6, 7),
            nn.Linear(7, 1),
        )
        for name, param in self.gru.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(param)

    def forward(self, inputs: Tensor, rnn_hxs: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.main(inputs / 255.0)
        if x.size(0) == rnn_hxs.size(0):
            x, hxs = self.gru(x.unsqueeze(0), (rnn_hxs * masks).unsqueeze(0))
            x, rnn_hxs = x.squeeze(0), hxs.squeeze(0)
        else:
            steps = x.size(0) // rnn_hxs.size(0)
            x, hxs = self.gru(
                x.view(steps, rnn_hxs.size(0), x.size(1)), (rnn_hxs * masks[: rnn_hxs.size(0)]).unsqueeze(0)
            )
            x, rnn_hxs = x.flatten(0, 1), hxs.squeeze(0)
        return self.critic_linear(x), x, rnn_hxs


class WorldModel(nn.Module):
    """Two inputs added under an activation that is an argument; zeros where no state is given, its end detached."""

    def __init__(self, activation: object = F.elu) -> None:
        super().__init__()
        self.in_mlp1, self.in_mlp2 = nn.Linear(5, 8), nn.Linear(3, 8, bias=False)
        self.act = activation
        self.gru, self.directions = nn.GRU(input_size=8, hidden_size=6, num_layers=2), 1

    def first(self, batch_size: int) -> Tensor:
        device = next(self.gru.parameters()).device
        return torch.zeros((self.gru.num_layers * self.directions, batch_size, self.gru.hidden_size), device=device)

    def forward(self, input1_seq: Tensor, input2_seq: Tensor, in_state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if in_state is None:
            in_state = self.first(input1_seq.size(1))
        inp = self.act(self.in_mlp1(input1_seq) + self.in_mlp2(input2_seq))  # type: ignore[operator]
        output, out_state = self.gru(inp, in_state)
        return output, out_state.detach()


class SketchDecoder(nn.Module):
    """Strokes, time first: an encoding to a latent, and mixtures of Gaussians for each next stroke."""

    def __init__(self) -> None:
        super().__init__()
        self.mixtures, self.hidden = 3, 7
        self.encoder, self.decoder = nn.LSTM(5, 4, bidirectional=True), nn.LSTM(4 + 5, self.hidden)
        self.fc_mu, self.fc_sigma = nn.Linear(8, 4), nn.Linear(8, 4)
        self.fc_hc, self.fc_params = nn.Linear(4, 2 * self.hidden), nn.Linear(self.hidden, 6 * self.mixtures + 3)

    def forward(self, strokes: Tensor, hidden_cell: State | None = None) -> dict[str, Tensor]:
        steps, batch = strokes.shape[:2]
        if hidden_cell is None:
            hidden_cell = (torch.zeros(2, batch, 4), torch.zeros(2, batch, 4))
        _, (hidden, _) = self.encoder(strokes.float(), hidden_cell)
        ahead, back = torch.split(hidden, 1, 0)
        joined = torch.cat([ahead.squeeze(0), back.squeeze(0)], 1)
        mu, presigma = self.fc_mu(joined), self.fc_sigma(joined)
        h, c = torch.split(torch.tanh(self.fc_hc(mu)), self.hidden, 1)
        inputs = torch.cat([strokes, torch.stack([mu] * 1).expand(steps, -1, -1)], 2)
        outputs, _ = self.decoder(inputs, (h.unsqueeze(0).contiguous(), c.unsqueeze(0).contiguous()))
        y = self.fc_params(outputs.view(-1, self.hidden))
        params = torch.split(y, 6, 1)
        mixture, pen = torch.stack(params[:-1]), params[-1]
        pi, mu_x, mu_y, sigma_x, sigma_y, rho = torch.split(mixture, 1, 2)
        result = {
            "pi": F.softmax(pi.transpose(0, 1).squeeze(), dim=-1),
            "mu_x": mu_x,
            "mu_y": mu_y,
            "rho": torch.tanh(rho),
        }
        result = {key: value if key == "pi" else value.transpose(0, 1).squeeze(2) for key, value in result.items()}
        result |= {
            "sigma_x": torch.exp(sigma_x).transpose(0, 1).squeeze(2),
            "sigma_y": torch.exp(sigma_y).transpose(0, 1).squeeze(2),
        }
        result = {key: value.contiguous().view(steps, -1, self.mixtures) for key, value in result.items()}
        return result | {
            "q": F.softmax(pen, dim=-1).view(steps, -1, 3),
            "kl": -0.5 * (1 + presigma - mu**2 - presigma.exp()).mean(1),
        }


class PathsOfPeople(nn.Module):
    """Paths, time first, of people who are the batch; each looks at where all the others stand in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial_embedding, self.encoder = nn.Linear(2, 5), nn.LSTM(5, 6, 1, dropout=0)
        self.pool_embedding, self.pool = (
            nn.Linear(2, 4),
            nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU()),
        )

    def forward(self, obs_traj: Tensor, obs_traj_rel: Tensor) -> tuple[Tensor, Tensor]:
        batch = obs_traj_rel.size(1)
        embedded = self.spatial_embedding(obs_traj_rel.contiguous().view(-1, 2)).view(-1, batch, 5)
        _, state = self.encoder(embedded, (torch.zeros(1, batch, 6), torch.zeros(1, batch, 6)))
        hidden, end = state[0].view(-1, 6), obs_traj[-1]
        of_others = hidden.repeat(batch, 1)
        theirs = end.repeat(batch, 1)
        mine = end.unsqueeze(1).repeat(1, batch, 1).view(-1, 2)
        pooled = self.pool(torch.cat([self.pool_embedding(theirs - mine), of_others], dim=1))
        return state[0], pooled.view(batch, batch, -1).max(1)[0]


class SegmentedSignal(nn.Module):
    """A heart's signal cut into segments, which must fit; each is convolved alone, and an LSTM reads them all."""

    def __init__(self) -> None:
        super().__init__()
        self.n_len_seg, self.out_channels, self.verbose = 5, 6, False
        self.cnn, self.rnn = nn.Conv1d(2, 6, kernel_size=3, stride=2), nn.LSTM(6, 7, num_layers=1, batch_first=True)
        self.dense = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.n_channel, self.n_length = x.shape[-2], x.shape[-1]
        assert self.n_length % self.n_len_seg == 0, "the length must be divided by n_len_seg"
        self.n_seg = self.n_length // self.n_len_seg
        out = x.permute(0, 2, 1).contiguous().view(-1, self.n_len_seg, self.n_channel).permute(0, 2, 1)
        if self.verbose:
            print(out.shape)
        out = self.cnn(out).mean(-1).view(-1, self.n_seg, self.out_channels)
        _, (out, _) = self.rnn(out)
        return self.dense(torch.squeeze(out, dim=0))


class ActivityRecogniser(nn.Module):
    """Sensors as a picture (batch, 1, steps, channels) through convolutions along the steps; the last step's class."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 4, (3, 1)), nn.Conv2d(4, 4, (3, 1))])
        self.lstm1, self.lstm2 = nn.LSTM(4 * 3, 8), nn.LSTM(8, 8)
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        for conv in self.convs:
            x = F.relu(conv(x))
        x = x.permute(2, 0, 3, 1)
        x = x.reshape(x.shape[0], x.shape[1], -1)
        x = self.dropout(x)
        x, _ = self.lstm1(x)
        x, (_, _) = self.lstm2(self.dropout(x))
        return F.log_softmax(self.fc(x[-1]), dim=1)


class Ensemble(nn.Module):
    """An LSTM's last state, a GRU's mean and convolutions side by side; an attribute picks the head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(3, 6, batch_first=True), nn.GRU(3, 5, batch_first=True)
        self.convblock = nn.Sequential(
            nn.Conv1d(3, 7, 5, padding=2, bias=False),
            nn.BatchNorm1d(7),
            nn.ReLU(),
            nn.Conv1d(7, 6, 3, padding=1),
            nn.BatchNorm1d(6),
            nn.ReLU(),
        )
        self.gap, self.norm = nn.AdaptiveAvgPool1d(1), nn.BatchNorm1d(17)
        self.heads, self.head = nn.ModuleDict({"classes": nn.Linear(17, 4), "score": nn.Linear(17, 1)}), "classes"

    def forward(self, x: Tensor) -> Tensor:
        rnn_input = x.permute(0, 2, 1)
        _, (last, _) = self.lstm(rnn_input)
        mean = self.gru(rnn_input)[0].mean(1)
        seen = self.gap(self.convblock(x)).squeeze(-1)
        return self.heads[self.head](self.norm(torch.cat([last[-1], mean, seen], dim=1)))


def _step(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, 5) * 100, draw.floats(batch, 7).tanh(), (draw.floats(batch, 1) > 0).float()


def _rollout(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"obs": draw.floats(4 * batch, 5), "recurrent_cell": draw.floats(1, batch, 7).tanh(), "sequence_length": 4}


def _values(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 4), draw.floats(1, batch, 8).tanh(), draw.floats(1, batch, 8)


def _paths(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(time, batch, 2), draw.floats(time, batch, 2)


PATTERNS = (
    Pattern("recurrent_q", "keep9oing/DRQN-Pytorch-CartPole-v1 DRQN.py", trained(RecurrentQ), _values),
    Pattern("flat_rollout", "MarcoMeter/recurrent-ppo-truncated-bptt model.py", trained(FlatRollout), _rollout),
    Pattern("masked_step", "ikostrikov/pytorch-a2c-ppo-acktr-gail a2c_ppo_acktr/model.py", trained(MaskedStep), _step),
    Pattern(
        "world_model",
        "jurgisp/pydreamer pydreamer/models/rnn.py",
        trained(WorldModel),
        lambda batch, time: (Draw(batch, time).floats(time, batch, 5), Draw(batch, time).floats(time, batch, 3)),
    ),
    Pattern(
        "sketch_decoder",
        "alexis-jacq/Pytorch-Sketch-RNN sketch_rnn.py",
        trained(SketchDecoder),
        lambda batch, time: (Draw(batch, time).floats(time, batch, 5),),
    ),
    Pattern("paths_of_people", "agrimgupta92/sgan sgan/models.py", trained(PathsOfPeople), _paths),
    Pattern(
        "segmented_signal",
        "hsd1503/resnet1d crnn1d.py",
        trained(SegmentedSignal),
        lambda batch, time: (Draw(batch, time).floats(batch, 2, 5 * time),),
    ),
    Pattern(
        "activity_recogniser",
        "dspanah/Sensor-Based-Human-Activity-Recognition-DeepConvLSTM-Pytorch notebooks/1.0-dsp-DeepConvLSTM.ipynb",
        trained(ActivityRecogniser),
        signal(3),
        min_time=5,
    ),
    Pattern(
        "ensemble",
        "timeseriesAI/tsai tsai/models/RNN_FCN.py",
        trained(Ensemble),
        lambda batch, time: (Draw(batch, time).floats(batch, 3, time),),
    ),
)
