"""Two texts at once: inference, answers, aspects and search."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs
from tests.patterns.pattern import Pattern, trained

WORDS = 25


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of `scores` (batch, rows, columns) over the columns that `mask` (batch, columns) keeps."""
    flat = scores.view(-1, scores.size()[-1])
    while mask.dim() < scores.dim():
        mask = mask.unsqueeze(1)
    kept = mask.expand_as(scores).contiguous().float().view(-1, mask.size()[-1])
    result = F.softmax(flat * kept, dim=-1) * kept
    result = result / (result.sum(dim=-1, keepdim=True) + 1e-13)
    return result.view(*scores.size())


class SortedEncoder(nn.Module):
    """An encoder of the class it is given: sorts by length, packs, and puts the batch back in its order."""

    def __init__(self, kind: type[nn.RNNBase], width: int, hidden: int) -> None:
        super().__init__()
        self._encoder = kind(width, hidden, num_layers=1, bias=True, batch_first=True, bidirectional=True)

    def forward(self, batch: Tensor, lengths: Tensor) -> Tensor:
        sorted_lengths, order = lengths.sort(0, descending=True)
        rows = torch.arange(0, len(lengths)).type_as(lengths)
        _, reverse = order.sort(0, descending=False)
        back = rows.index_select(0, reverse)
        packed = pack_padded_sequence(batch.index_select(0, order), sorted_lengths.cpu(), batch_first=True)
        outputs, _ = self._encoder(packed, None)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=batch.size(1))
        return outputs.index_select(0, back)


class InferencePair(nn.Module):
    """Whether one sentence follows from another: each attends to the other, and both are pooled twice."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(WORDS, 7, padding_idx=0)
        self.encoding = SortedEncoder(nn.LSTM, 7, 5)
        self.projection = nn.Sequential(nn.Linear(4 * 2 * 5, 6), nn.ReLU())
        self.composition = SortedEncoder(nn.LSTM, 6, 5)
        self.classification = nn.Sequential(nn.Dropout(0.5), nn.Linear(2 * 4 * 5, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(
        self, premises: Tensor, lengths: Tensor, hypotheses: Tensor, other_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        sides = ((premises, lengths), (hypotheses, other_lengths))
        masks = [(tokens != 0).float() for tokens, _ in sides]
        a, b = (self.encoding(self.word_embedding(tokens), length) for tokens, length in sides)
        scores = a.bmm(b.transpose(2, 1).contiguous())
        of_b = masked_softmax(scores, masks[1]).bmm(b)
        of_a = masked_softmax(scores.transpose(1, 2).contiguous(), masks[0]).bmm(a)
        pooled = []
        for own, seen, mask, (_, length) in ((a, of_b, masks[0], sides[0]), (b, of_a, masks[1], sides[1])):
            joined = self.projection(torch.cat([own, seen, own - seen, own * seen], dim=-1))
            x = self.composition(joined, length)
            weights = mask.unsqueeze(1).transpose(2, 1)
            pooled.append(torch.sum(x * weights, dim=1) / torch.sum(mask, dim=1, keepdim=True))
            pooled.append((x * weights + -1e7 * (1 - weights)).max(dim=1)[0])
        logits = self.classification(torch.cat(pooled, dim=1))
        return logits, F.softmax(logits, dim=-1)


class PerspectiveMatching(nn.Module):
    """Several weighted cosines between each step of one sentence and the last, the best and the mean of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.perspectives, self.hidden = 3, 5
        self.word_embed, self.char_embed = nn.Embedding(WORDS, 6), nn.Embedding(11, 4, padding_idx=0)
        self.char_lstm = nn.LSTM(input_size=4, hidden_size=3, num_layers=1, batch_first=True)
        self.context = nn.LSTM(
            input_size=9, hidden_size=self.hidden, num_layers=1, bidirectional=True, batch_first=True
        )
        for index in range(1, 4):
            setattr(self, f"mp_w{index}", nn.Parameter(torch.rand(self.perspectives, self.hidden)))
        self.aggregation = nn.LSTM(9, 4, num_layers=1, bidirectional=True, batch_first=True)
        self.pred = nn.Linear(16, 2)

    def spelled(self, chars: Tensor) -> Tensor:
        seq_len, word_len = chars.size(1), chars.size(2)
        flat = chars.view(-1, word_len)
        _, (last, _) = self.char_lstm(self.char_embed(flat))
        return last.view(-1, seq_len, 3)

    def full_of_last(self, v1: Tensor, v2: Tensor, w: Tensor) -> Tensor:
        w = w.transpose(1, 0).unsqueeze(0).unsqueeze(0)
        v1 = w * torch.stack([v1] * self.perspectives, dim=3)
        v2 = w * v2.unsqueeze(1).unsqueeze(3)
        return F.cosine_similarity(v1, v2.expand_as(v1), dim=2)

    def pairwise(self, v1: Tensor, v2: Tensor, w: Tensor) -> Tensor:
        w = w.unsqueeze(0).unsqueeze(2)
        v1, v2 = w * v1.unsqueeze(1), w * v2.unsqueeze(1)
        n1, n2 = v1.norm(p=2, dim=3, keepdim=True), v2.norm(p=2, dim=3, keepdim=True)
        n = torch.matmul(v1, v2.transpose(2, 3))
        d = n1 * n2.transpose(2, 3)
        return (n / (d * (d > 1e-8).float() + 1e-8 * (d <= 1e-8).float())).permute(0, 2, 3, 1)

    def forward(self, p: Tensor, char_p: Tensor, h: Tensor, char_h: Tensor) -> Tensor:
        joined = [torch.cat([self.word_embed(t), self.spelled(c)], dim=-1) for t, c in ((p, char_p), (h, char_h))]
        con_p, con_h = (self.context(x)[0] for x in joined)
        ends = []
        for one, other in ((con_p, con_h), (con_h, con_p)):
            ahead, back = torch.split(one, self.hidden, dim=-1)
            other_ahead, other_back = torch.split(other, self.hidden, dim=-1)
            best = self.pairwise(ahead, other_ahead, self.mp_w3).max(dim=2)[0]
            mv = torch.cat(
                [
                    self.full_of_last(ahead, other_ahead[:, -1, :], self.mp_w1),
                    self.full_of_last(back, other_back[:, 0, :], self.mp_w2),
                    best,
                ],
                dim=2,
            )
            _, (last, _) = self.aggregation(F.dropout(mv, p=0.1, training=self.training))
            ends.append(last.permute(1, 0, 2).contiguous().view(-1, 8))
        return self.pred(torch.cat(ends, dim=1))


class PassageReader(nn.Module):
    """Start and end of an answer: a stack of BiLSTMs whose layers are joined, and attention over the question."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 6, padding_idx=0)
        self.match = nn.Linear(6, 6)
        self.doc_rnns = nn.ModuleList(
            nn.LSTM(14 if layer == 0 else 10, 5, num_layers=1, bidirectional=True) for layer in range(2)
        )
        self.question_rnns = nn.ModuleList(
            nn.LSTM(6 if layer == 0 else 10, 5, num_layers=1, bidirectional=True) for layer in range(2)
        )
        self.self_attention = nn.Linear(20, 1)
        self.start, self.end = nn.Linear(20, 20), nn.Linear(20, 20)

    def stacked(self, x: Tensor, rnns: nn.ModuleList) -> Tensor:
        outputs = [x.transpose(0, 1)]
        for rnn in rnns:
            outputs.append(rnn(F.dropout(outputs[-1], p=0.3, training=self.training))[0])
        return torch.cat(outputs[1:], 2).transpose(0, 1).contiguous()

    def forward(self, x1: Tensor, x1_f: Tensor, x1_mask: Tensor, x2: Tensor, x2_mask: Tensor) -> tuple[Tensor, Tensor]:
        doc, question = self.embedding(x1), self.embedding(x2)
        projected, against = F.relu(self.match(doc)), F.relu(self.match(question))
        scores = projected.bmm(against.transpose(2, 1))
        scores.data.masked_fill_(x2_mask.unsqueeze(1).expand(scores.size()).data, -float("inf"))
        alpha = F.softmax(scores.view(-1, question.size(1)), dim=-1).view(-1, doc.size(1), question.size(1))
        doc_hiddens = self.stacked(torch.cat([doc, alpha.bmm(question), x1_f], 2), self.doc_rnns)
        hiddens = self.stacked(question, self.question_rnns)
        weights = self.self_attention(hiddens.view(-1, hiddens.size(-1))).view(hiddens.size(0), hiddens.size(1))
        weights.data.masked_fill_(x2_mask.data, -float("inf"))
        asked = F.softmax(weights, dim=-1).unsqueeze(1).bmm(hiddens).squeeze(1)
        answers = []
        for layer in (self.start, self.end):
            score = doc_hiddens.bmm(layer(asked).unsqueeze(2)).squeeze(2)
            score.data.masked_fill_(x1_mask.data, -float("inf"))
            answers.append(F.softmax(score, dim=-1))
        return answers[0], answers[1]


class AttentionFlow(nn.Module):
    """Attention both ways between context and question by one trilinear score; highway layers below."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        for index in range(2):
            setattr(self, f"highway_linear{index}", nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
            setattr(self, f"highway_gate{index}", nn.Sequential(nn.Linear(6, 6), nn.Sigmoid()))
        self.context = nn.LSTM(6, 4, bidirectional=True, batch_first=True)
        self.att_c, self.att_q, self.att_cq = nn.Linear(8, 1), nn.Linear(8, 1), nn.Linear(8, 1)
        self.modelling = nn.LSTM(32, 4, bidirectional=True, batch_first=True)
        self.p1, self.p2 = nn.Linear(32, 1), nn.Linear(8, 1)

    def read(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for index in range(2):
            h, g = getattr(self, f"highway_linear{index}")(x), getattr(self, f"highway_gate{index}")(x)
            x = g * h + (1 - g) * x
        return self.context(x)[0]

    def forward(self, c: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        c, q = self.read(c), self.read(q)
        c_len, q_len = c.size(1), q.size(1)
        cq = torch.einsum("bch,bqh->bcq", c * self.att_cq.weight, q)
        s = self.att_c(c).expand(-1, -1, q_len) + self.att_q(q).permute(0, 2, 1).expand(-1, c_len, -1) + cq
        c2q = torch.bmm(F.softmax(s, dim=2), q)
        b = F.softmax(torch.max(s, dim=2)[0], dim=1).unsqueeze(1)
        q2c = torch.bmm(b, c).squeeze(1).unsqueeze(1).expand(-1, c_len, -1)
        g = torch.cat([c, c2q, c * c2q, c * q2c], dim=-1)
        m, _ = self.modelling(g)
        return self.p1(g).squeeze(-1), self.p2(m).squeeze()


class DynamicLSTM(nn.Module):
    """Any batch of sequences with lengths: sorted, packed, unpacked and put back, outputs and states alike."""

    def __init__(self, width: int, hidden: int, bidirectional: bool = False, only_last: bool = False) -> None:
        super().__init__()
        self.only_last = only_last
        self.rnn = nn.LSTM(width, hidden, num_layers=1, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, x_len: Tensor) -> tuple[Tensor | None, Tensor]:
        order = torch.sort(-x_len)[1].long()
        back = torch.sort(order)[1].long()
        packed = pack_padded_sequence(x[order], x_len[order].cpu(), batch_first=True)
        out, (ht, _) = self.rnn(packed, None)
        ht = torch.transpose(torch.transpose(ht, 0, 1)[back], 0, 1)
        if self.only_last:
            return None, ht
        return pad_packed_sequence(out, batch_first=True)[0][back], ht


class LeftAndRight(nn.Module):
    """What is left and what is right of an aspect; zeros are counted for the lengths, and a list goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(torch.randn(WORDS, 6))
        self.lstm_l, self.lstm_r = DynamicLSTM(6, 5, only_last=True), DynamicLSTM(6, 5, only_last=True)
        self.dense = nn.Linear(10, 3)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        x_l, x_r = inputs[0], inputs[1]
        l_len, r_len = torch.sum(x_l != 0, dim=-1), torch.sum(x_r != 0, dim=-1)
        _, left = self.lstm_l(self.embed(x_l), l_len)
        _, right = self.lstm_r(self.embed(x_r), r_len)
        return self.dense(torch.cat((left[0], right[0]), dim=-1))


class MutualAttention(nn.Module):
    """Context and aspect, each averaged over its length to ask the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(torch.randn(WORDS, 6))
        self.lstm_context, self.lstm_aspect = DynamicLSTM(6, 5), DynamicLSTM(6, 5)
        self.bilinear = nn.ParameterList([nn.Parameter(torch.rand(5, 5) - 0.5) for _ in range(2)])
        self.dense = nn.Linear(10, 3)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        text, aspect = inputs[0], inputs[1]
        finals, lengths, outs = [], [], []
        for tokens, lstm in ((text, self.lstm_context), (aspect, self.lstm_aspect)):
            length = torch.sum(tokens != 0, dim=-1)
            outs.append(lstm(self.embed(tokens), length)[0])
            lengths.append(length.to(torch.float))
        for index, weight in enumerate(self.bilinear):
            own, other = outs[index], outs[1 - index]
            pool = torch.div(torch.sum(other, dim=1), lengths[1 - index].view(lengths[1 - index].size(0), 1))
            score = F.softmax(torch.tanh(own.matmul(weight).bmm(pool.unsqueeze(2))).squeeze(2), dim=-1)
            finals.append(torch.bmm(score.unsqueeze(1), own).squeeze(dim=1))
        return self.dense(torch.cat(finals, dim=-1))


class AttentionOverAttention(nn.Module):
    """The matrix of all pairs of steps, its softmax both ways, and one weighted by the other's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6, padding_idx=0)
        self.ctx_lstm, self.asp_lstm = DynamicLSTM(6, 4, bidirectional=True), DynamicLSTM(6, 4, bidirectional=True)
        self.dense = nn.Linear(8, 3)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        ctx_len, asp_len = torch.sum(inputs[0] != 0, dim=1), torch.sum(inputs[1] != 0, dim=1)
        ctx_out, _ = self.ctx_lstm(self.embed(inputs[0]), ctx_len)
        asp_out, _ = self.asp_lstm(self.embed(inputs[1]), asp_len)
        pairs = torch.matmul(ctx_out, torch.transpose(asp_out, 1, 2))
        alpha, beta = F.softmax(pairs, dim=1), F.softmax(pairs, dim=2)
        gamma = torch.matmul(alpha, beta.mean(dim=1, keepdim=True).transpose(1, 2))
        return self.dense(torch.matmul(torch.transpose(ctx_out, 1, 2), gamma).squeeze(-1))


class MemoryHops(nn.Module):
    """A memory from a BiLSTM, weighted by position; a GRU cell asks it three times, from zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6, padding_idx=0)
        self.context = DynamicLSTM(6, 4, bidirectional=True)
        self.att_linear, self.gru_cell, self.dense = nn.Linear(8 + 1 + 6 * 2, 1), nn.GRUCell(9, 6), nn.Linear(6, 3)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        text, aspect_tokens = inputs[0], inputs[1]
        memory_len, aspect_len = torch.sum(text != 0, dim=-1), torch.sum(aspect_tokens != 0, dim=-1)
        memory, _ = self.context(self.embed(text), memory_len)
        batch, seq_len = memory.size(0), memory.size(1)
        place = torch.arange(seq_len, device=memory.device).unsqueeze(0).expand(batch, -1).float()
        weight = (1 - place / memory_len.unsqueeze(1)).clamp(min=0)
        memory = torch.cat([memory * weight.unsqueeze(2), weight.unsqueeze(2)], dim=2)
        aspect = torch.div(torch.sum(self.embed(aspect_tokens), dim=1), aspect_len.float().unsqueeze(-1))
        et = torch.zeros_like(aspect).to(memory.device)
        for _ in range(3):
            room = torch.zeros(batch, seq_len, 6).to(memory.device)
            g = self.att_linear(torch.cat([memory, room + et.unsqueeze(1), room + aspect.unsqueeze(1)], dim=-1))
            alpha = F.softmax(g, dim=1)
            et = self.gru_cell(torch.bmm(alpha.transpose(1, 2), memory).squeeze(1), et)
        return self.dense(et)


class CodeSearch(nn.Module):
    """Names, tokens and a description: sorted lengths become a Python list; cosine of what was pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.layers = 5, 2
        self.embedding = nn.Embedding(WORDS, 6, padding_idx=0)
        self.name_lstm, self.desc_lstm = (
            nn.LSTM(6, self.hidden, num_layers=self.layers, batch_first=True, bidirectional=True) for _ in range(2)
        )
        self.token = nn.Linear(6, 8)
        self.fuse_name, self.fuse_desc, self.fuse_token = nn.Linear(10, 7), nn.Linear(10, 7), nn.Linear(8, 7)

    def encoded(self, lstm: nn.LSTM, tokens: Tensor, lengths: Tensor) -> Tensor:
        batch, _ = tokens.size()
        sorted_lengths, order = lengths.sort(descending=True)
        rows = self.embedding(tokens).index_select(0, order)
        packed = pack_padded_sequence(rows, sorted_lengths.data.tolist(), batch_first=True)
        _, (h_n, _) = lstm(packed)
        _, back = order.sort()
        h_n = h_n.index_select(1, back).view(self.layers, 2, batch, self.hidden)[-1]
        return torch.cat((h_n[0], h_n[1]), dim=1)

    def forward(self, name: Tensor, name_len: Tensor, tokens: Tensor, desc: Tensor, desc_len: Tensor) -> Tensor:
        bag = torch.tanh(F.max_pool1d(self.token(self.embedding(tokens)).transpose(1, 2), 1).max(dim=2)[0])
        code = torch.tanh(self.fuse_name(self.encoded(self.name_lstm, name, name_len)) + self.fuse_token(bag))
        return F.cosine_similarity(code, torch.tanh(self.fuse_desc(self.encoded(self.desc_lstm, desc, desc_len))))


def _two_texts(batch: int, time: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens and lengths of two texts, the second of which is two longer."""
    one, other = Draw(batch, time), Draw(batch, time + 2)
    lengths = [draw.lengths() for draw in (one, other)]
    tokens = [
        draw.tokens(WORDS) * (torch.arange(draw.time) < length.unsqueeze(1))
        for draw, length in zip((one, other), lengths, strict=True)
    ]
    return tokens[0], lengths[0], tokens[1], lengths[1]


def _spelled(batch: int, time: int) -> Inputs:
    one, other = Draw(batch, time), Draw(batch, time + 2)
    parts = [(draw.tokens(WORDS), draw.tokens(11, draw.batch, draw.time, 4)) for draw in (one, other)]
    return (*parts[0], *parts[1])


def _passage(batch: int, time: int) -> Inputs:
    question, _, passage, _ = _two_texts(batch, time)
    features = Draw(batch, time).floats(batch, time + 2, 2)
    return {"x1": passage, "x1_f": features, "x1_mask": passage == 0, "x2": question, "x2_mask": question == 0}


def _listed(batch: int, time: int) -> Inputs:
    aspect, _, text, _ = _two_texts(batch, time)
    return ([text, aspect],)


def _search(batch: int, time: int) -> Inputs:
    name, name_len, desc, desc_len = _two_texts(batch, time)
    return name, name_len, Draw(batch, time + 1).tokens(WORDS), desc, desc_len


ASPECTS = "songyouwei/ABSA-PyTorch models/"

PATTERNS = (
    Pattern("inference_pair", "coetaur0/ESIM esim/model.py", trained(InferencePair), _two_texts),
    Pattern("perspective_matching", "galsang/BIMPM-pytorch model/BIMPM.py", trained(PerspectiveMatching), _spelled),
    Pattern("passage_reader", "facebookresearch/DrQA drqa/reader/rnn_reader.py", trained(PassageReader), _passage),
    Pattern(
        "attention_flow",
        "galsang/BiDAF-pytorch model/model.py",
        trained(AttentionFlow),
        lambda batch, time: (Draw(batch, time + 1).tokens(WORDS), Draw(batch, time).tokens(WORDS)),
    ),
    Pattern("left_and_right", ASPECTS + "td_lstm.py", trained(LeftAndRight), _listed),
    Pattern("mutual_attention", ASPECTS + "ian.py", trained(MutualAttention), _listed),
    Pattern("attention_over_attention", ASPECTS + "aoa.py", trained(AttentionOverAttention), _listed),
    Pattern("memory_hops", ASPECTS + "ram.py", trained(MemoryHops), _listed),
    Pattern("code_search", "guxd/deep-code-search pytorch/modules.py", trained(CodeSearch), _search),
)
