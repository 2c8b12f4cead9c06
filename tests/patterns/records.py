"""Patients, customers, pupils, molecules and several senses at once: sequences of events."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs, text
from tests.patterns.pattern import Pattern, trained

ITEMS, SKILLS, CODES = 20, 8, 15


class ReversedVisits(nn.Module):
    """Two GRUs over visits from the last to the first: one weighs the visits, the other the features of each."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout_layer = nn.Dropout(p=0.5)
        self.alpha_gru, self.beta_gru = nn.GRU(7, 7, batch_first=True), nn.GRU(7, 7, batch_first=True)
        self.alpha_li, self.beta_li, self.fc = nn.Linear(7, 1), nn.Linear(7, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.dropout_layer(x)
        batch_size, total_length = x.size(0), x.size(1)
        if mask is None:
            lengths = torch.full(size=(batch_size,), fill_value=total_length, dtype=torch.int64)
        else:
            lengths = torch.sum(mask.int(), dim=-1).cpu()
        rx = torch.flip(x, [1])
        weights = []
        for gru in (self.alpha_gru, self.beta_gru):
            packed = pack_padded_sequence(rx, lengths, batch_first=True, enforce_sorted=False)
            weights.append(pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=total_length)[0])
        alpha = torch.softmax(self.alpha_li(weights[0]), dim=1)
        beta = torch.tanh(self.beta_li(weights[1]))
        return self.fc(torch.sum(alpha * beta * torch.flip(x, [1]), dim=1))


class DrugsFromVisits(nn.Module):
    """Codes (batch, visits, codes) of two kinds, summed by visit; a GRU each, and each patient's last visit."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding_model = nn.ModuleDict(
            {key: nn.Embedding(CODES, 6, padding_idx=0) for key in ("conditions", "procedures")}
        )
        self.cond_rnn, self.proc_rnn = nn.GRU(6, 5, batch_first=True), nn.GRU(6, 5, batch_first=True)
        self.query = nn.Sequential(nn.ReLU(), nn.Linear(10, 4))
        self.register_buffer("ddi_adj", (torch.rand(4, 4) > 0.5).float())

    def forward(self, **kwargs: Tensor) -> dict[str, Tensor]:
        embedded = {key: layer(kwargs[key]) for key, layer in self.embedding_model.items()}
        conditions, _ = self.cond_rnn(embedded["conditions"].sum(dim=2))
        procedures, _ = self.proc_rnn(embedded["procedures"].sum(dim=2))
        patient = self.query(torch.cat([conditions, procedures], dim=-1))
        mask = (embedded["conditions"].sum(dim=-1) != 0).any(dim=-1)
        last = torch.sum(mask.long(), 1) - 1
        last = last.unsqueeze(-1).expand(-1, 4).unsqueeze(1)
        logits = torch.gather(patient, dim=1, index=last.clamp(min=0)).squeeze(1)
        prob = torch.sigmoid(logits)
        pairs = prob.unsqueeze(2) * prob.unsqueeze(1)
        return {"y_prob": prob, "loss_ddi": pairs.mul(self.ddi_adj).sum(dim=(1, 2))}


class SkillTracing(nn.Module):
    """Questions and answers as one token; chances of a right answer, dropout after the head."""

    def __init__(self) -> None:
        super().__init__()
        self.num_q = SKILLS
        self.interaction_emb = nn.Embedding(SKILLS * 2, 6)
        self.lstm_layer, self.out_layer, self.dropout_layer = (
            nn.LSTM(6, 7, batch_first=True),
            nn.Linear(7, SKILLS),
            nn.Dropout(),
        )

    def forward(self, q: Tensor, r: Tensor) -> Tensor:
        h, _ = self.lstm_layer(self.interaction_emb(q + self.num_q * r))
        return torch.sigmoid(self.dropout_layer(self.out_layer(h)))


class AskedSkill(nn.Module):
    """A dict of answers so far and of what is asked next: the last answer is left out, one-hot rows pick the skill."""

    def __init__(self) -> None:
        super().__init__()
        self.interaction_emb, self.question_emb = nn.Embedding(SKILLS * 2, 6), nn.Embedding(30, 6)
        self.lstm_layer, self.out_layer = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, SKILLS)

    def forward(self, dcur: dict[str, Tensor], train: bool = False) -> dict[str, Tensor]:
        q, c, r = dcur["qseqs"].long(), dcur["cseqs"].long(), dcur["rseqs"].long()
        x = self.interaction_emb((c + SKILLS * r)[:, :-1]) + self.question_emb(q[:, 1:])
        h, _ = self.lstm_layer(x)
        y = torch.sigmoid(self.out_layer(h))
        if train:
            return {"all": y}
        return {"y": (y * F.one_hot(dcur["shft_cseqs"].long(), SKILLS)).sum(-1)}


class SkillQuery(nn.Module):
    """Rows of an identity matrix as inputs; knowledge times a skill's vector, which is scaled to unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.linear = nn.LSTM(2 * SKILLS, 7, 1, batch_first=True), nn.Linear(7, 5)
        self.skill_encoder = nn.Sequential(nn.Linear(SKILLS, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())
        self.two_eye, self.eye = torch.eye(2 * SKILLS), torch.eye(SKILLS)

    def first(self, batch: int) -> tuple[Tensor, Tensor]:
        weight = next(self.parameters()).data
        return weight.new(1, batch, 7).zero_(), weight.new(1, batch, 7).zero_()

    def forward(self, q: Tensor, r: Tensor, qshft: Tensor) -> tuple[Tensor, Tensor]:
        in_data, asked = self.two_eye[r * SKILLS + q], self.eye[qshft]
        out, _ = self.rnn(in_data, self.first(in_data.size(0)))
        skills = F.normalize(self.skill_encoder(asked), p=2, dim=2)
        knowledge = self.linear(out)
        return torch.sigmoid(torch.sum(knowledge * skills, dim=2)), knowledge


class NextItem(nn.Module):
    """The last item's state of each session against the vectors of all items."""

    def __init__(self) -> None:
        super().__init__()
        self.item_embedding, self.emb_dropout = nn.Embedding(ITEMS, 6, padding_idx=0), nn.Dropout(0.3)
        self.gru_layers, self.dense = nn.GRU(6, 8, 1, bias=False, batch_first=True), nn.Linear(8, 6)

    def gathered(self, output: Tensor, index: Tensor) -> Tensor:
        index = index.view(-1, 1, 1).expand(-1, -1, output.shape[-1])
        return output.gather(dim=1, index=index).squeeze(1)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        out, _ = self.gru_layers(self.emb_dropout(self.item_embedding(item_seq)))
        last = self.gathered(self.dense(out), item_seq_len - 1)
        return torch.matmul(last, self.item_embedding.weight.transpose(0, 1))


class SessionAttention(nn.Module):
    """A session's last state and an attention that it asks, over the items that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.item_embedding, self.gru = (
            nn.Embedding(ITEMS, 6, padding_idx=0),
            nn.GRU(6, 7, 1, bias=False, batch_first=True),
        )
        self.a_1, self.a_2, self.v_t = (
            nn.Linear(7, 7, bias=False),
            nn.Linear(7, 7, bias=False),
            nn.Linear(7, 1, bias=False),
        )
        self.b = nn.Linear(14, 6, bias=False)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        out, _ = self.gru(self.item_embedding(item_seq))
        index = (item_seq_len - 1).view(-1, 1, 1).expand(-1, -1, out.shape[-1])
        ht = out.gather(dim=1, index=index).squeeze(1)
        mask = item_seq.gt(0).unsqueeze(2).expand_as(out)
        q1 = self.a_1(out)
        alpha = self.v_t(mask * torch.sigmoid(q1 + self.a_2(ht).unsqueeze(1).expand_as(q1)))
        local = torch.sum(alpha.expand_as(out) * out, 1)
        return torch.matmul(self.b(torch.cat([local, ht], 1)), self.item_embedding.weight.t())


class InterestWithLoss(nn.Module):
    """Interests from a packed GRU and the loss that trains them: each but the last against the next item."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.auxiliary_net = nn.Sequential(nn.Linear(12, 5), nn.Sigmoid(), nn.Linear(5, 1))

    def forward(self, keys: Tensor, keys_length: Tensor, neg_keys: Tensor) -> tuple[Tensor, Tensor]:
        _, hist_len, _ = keys.shape
        packed = pack_padded_sequence(keys, lengths=keys_length.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, padding_value=0.0, total_length=hist_len)
        h, chosen, others = out[:, :-1, :], keys[:, 1:, :], neg_keys[:, 1:, :]
        mask = (
            torch.arange(hist_len - 1, device=keys.device).repeat(h.size(0), 1) < (keys_length - 1).view(-1, 1)
        ).float()
        losses = []
        for rows, label in ((chosen, 1.0), (others, 0.0)):
            prob = torch.sigmoid(self.auxiliary_net(torch.cat([h, rows], dim=-1)).squeeze(2))
            losses.append(F.binary_cross_entropy(prob, torch.full_like(prob, label), reduction="none") * mask)
        return out, (losses[0] + losses[1]).sum(dim=1) / (mask.sum(dim=1) + 1)


class SessionStep(nn.Module):
    """One click of each session, without a time axis: the GRU gets one step, made by unsqueeze, and its state."""

    def __init__(self) -> None:
        super().__init__()
        self.look_up, self.gru = nn.Embedding(ITEMS, 6), nn.GRU(6, 7, 2, dropout=0.2)
        self.h2o, self.final_activation = nn.Linear(7, ITEMS), nn.Tanh()

    def forward(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.look_up(input.unsqueeze(0))
        output, hidden = self.gru(embedded, hidden)
        output = output.view(-1, output.size(-1))
        return self.final_activation(self.h2o(output)), hidden


class GenomeScanner(nn.Module):
    """Motifs by convolution and pooling over a genome's four letters, a BiLSTM in a Sequential, one answer a place."""

    def __init__(self) -> None:
        super().__init__()
        self.nnet = nn.Sequential(
            nn.Conv1d(4, 8, kernel_size=5),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(kernel_size=3, stride=3),
            nn.Dropout(0.2),
        )
        self.bdlstm = nn.Sequential(nn.LSTM(8, 6, num_layers=1, batch_first=True, bidirectional=True))
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(12, 5), nn.ReLU(inplace=True), nn.Linear(5, 3), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.nnet(x)
        reshape_out = out.transpose(0, 1).transpose(0, 2)
        out, _ = self.bdlstm(reshape_out.transpose(0, 1))
        return self.classifier(out.contiguous())


class ProteinProjection(nn.Module):
    """One-hot residues beside a frozen language model's states, a stack of BiLSTMs, a flat projection."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = nn.LSTM(5, 6, 1, batch_first=True)
        for parameter in self.lm.parameters():
            parameter.requires_grad = False
        self.lm_embed, self.register = nn.Embedding(22, 5), True
        self.register_buffer("eye", torch.eye(22))
        self.rnn, self.proj = nn.LSTM(22 + 6, 5, 2, batch_first=True, bidirectional=True, dropout=0.1), nn.Linear(10, 4)
        self.dropout = nn.Dropout(p=0.1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            states, _ = self.lm(self.lm_embed(x))
        h, _ = self.rnn(torch.cat([self.eye[x], states.detach()], 2))
        z = self.proj(self.dropout(h.contiguous().view(-1, h.size(2))))
        return z.view(x.size(0), x.size(1), -1)


class ThreeSenses(nn.Module):
    """Words, sights and sounds: two packed BiLSTMs for each, a norm between; its parts are kept as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(ITEMS, 5)
        for name, width in (("t", 5), ("v", 4), ("a", 3)):
            self.add_module(f"{name}rnn1", nn.LSTM(width, width, bidirectional=True))
            self.add_module(f"{name}rnn2", nn.LSTM(2 * width, width, bidirectional=True))
            self.add_module(f"{name}layer_norm", nn.LayerNorm((width * 2,)))
            self.add_module(f"project_{name}", nn.Sequential(nn.Linear(width * 4, 6), nn.ReLU(), nn.LayerNorm(6)))
            self.add_module(f"private_{name}", nn.Sequential(nn.Linear(6, 6), nn.Sigmoid()))
        self.shared = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
        self.transformer = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(d_model=6, nhead=2, dim_feedforward=8), num_layers=1
        )
        self.fusion = nn.Sequential(nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 1))

    def features(self, sequence: Tensor, lengths: Tensor, name: str) -> Tensor:
        rnn1, rnn2, norm = (
            getattr(self, f"{name}rnn1"),
            getattr(self, f"{name}rnn2"),
            getattr(self, f"{name}layer_norm"),
        )
        packed, (h1, _) = rnn1(pack_padded_sequence(sequence, lengths))
        padded, _ = pad_packed_sequence(packed)
        _, (h2, _) = rnn2(pack_padded_sequence(norm(padded), lengths))
        return torch.cat((h1, h2), dim=2).permute(1, 0, 2).contiguous().view(lengths.size(0), -1)

    def forward(self, sentences: Tensor, visual: Tensor, acoustic: Tensor, lengths: Tensor) -> Tensor:
        given = {"t": self.embed(sentences), "v": visual, "a": acoustic}
        private, shared = [], []
        for name, sequence in given.items():
            utterance = getattr(self, f"project_{name}")(self.features(sequence, lengths.cpu(), name))
            setattr(self, f"utt_{name}_orig", utterance)
            private.append(getattr(self, f"private_{name}")(utterance))
            shared.append(self.shared(utterance))
        self.utt_shared = (shared[0] + shared[1] + shared[2]) / 3.0
        h = self.transformer(torch.stack((*private, *shared), dim=0))
        return self.fusion(torch.cat((h[0], h[1], h[2], h[3], h[4], h[5]), dim=1))


def _visits(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"x": draw.floats(batch, time, 7), "mask": draw.mask()}


def _codes(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    mask = draw.mask().unsqueeze(-1)
    codes = [draw.tokens(CODES, batch, time, width) * mask for width in (3, 3 + time // 3)]
    return {"conditions": codes[0], "procedures": codes[1]}


def _answers(batch: int, time: int, *more: int) -> tuple[Tensor, ...]:
    draw = Draw(batch, time)
    return (draw.tokens(SKILLS), draw.tokens(3) - 1, *(draw.tokens(size) for size in more))


def _asked(batch: int, time: int) -> Inputs:
    c, r, q, asked = _answers(batch, time, 30, SKILLS)
    return ({"qseqs": q.int(), "cseqs": c, "rseqs": r.float(), "shft_cseqs": asked[:, 1:]},)


def _session(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    lengths = draw.lengths()
    return draw.tokens(ITEMS) * (torch.arange(time) < lengths.unsqueeze(1)), lengths


def _interests(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 6), draw.lengths(), draw.floats(batch, time, 6)


def _senses(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    senses = draw.tokens(ITEMS, time, batch), draw.floats(time, batch, 4), draw.floats(time, batch, 3)
    return (*senses, draw.lengths(descending=True))


RECBOLE = "RUCAIBox/RecBole recbole/model/sequential_recommender/"
PROTEIN = "tbepler/protein-sequence-embedding-iclr2019 src/models/embedding.py"

PATTERNS = (
    Pattern("reversed_visits", "sunlabuiuc/PyHealth pyhealth/models/retain.py", trained(ReversedVisits), _visits),
    Pattern("drugs_from_visits", "sunlabuiuc/PyHealth pyhealth/models/safedrug.py", trained(DrugsFromVisits), _codes),
    Pattern(
        "skill_tracing",
        "hcnoh/knowledge-tracing-collection-pytorch models/dkt_plus.py",
        trained(SkillTracing),
        _answers,
    ),
    Pattern("asked_skill", "pykt-team/pykt-toolkit pykt/models/qdkt.py", trained(AskedSkill), _asked, min_time=2),
    Pattern(
        "skill_query",
        "pykt-team/pykt-toolkit pykt/models/kqn.py",
        trained(SkillQuery),
        lambda batch, time: _answers(batch, time, SKILLS),
    ),
    Pattern("next_item", RECBOLE + "gru4rec.py", trained(NextItem), _session),
    Pattern("session_attention", RECBOLE + "narm.py", trained(SessionAttention), _session),
    Pattern("interest_with_loss", RECBOLE + "dien.py", trained(InterestWithLoss), _interests, min_time=2),
    Pattern(
        "session_step",
        "hungthanhpham94/GRU4REC-pytorch lib/model.py",
        trained(SessionStep),
        lambda batch, time: (Draw(batch, time).tokens(ITEMS, batch), Draw(batch, time).floats(2, batch, 7).tanh()),
    ),
    Pattern(
        "genome_scanner",
        "FunctionLab/selene models/danQ.py",
        trained(GenomeScanner),
        lambda batch, time: (
            F.one_hot(Draw(batch, time).tokens(5, batch, 3 * time + 4) - 1, 4).float().transpose(1, 2),
        ),
    ),
    Pattern("protein_projection", PROTEIN, trained(ProteinProjection), text(22)),
    Pattern("three_senses", "declare-lab/MISA src/models.py", trained(ThreeSenses), _senses),
)
