"""One text at a time: taggers, classifiers, language models and encoders of translation and dialogue."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"
# ruff: noqa: ARG002  # callers pass what a forward leaves unused

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs, text
from tests.patterns.pattern import Pattern, trained

WORDS, CHARS, TAGS = 25, 12, 4
State = tuple[Tensor, Tensor]


class FeatureTagger(nn.Module):
    """Words, capitals and the sorted, packed characters of every word, put back in order; scores for each tag."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embedding, self.char_embedding = nn.Embedding(WORDS, 6), nn.Embedding(CHARS, 4)
        self.feature_embeddings = nn.ModuleList([nn.Embedding(5, 3), nn.Embedding(3, 2)])
        self.char_lstm = nn.LSTM(4, 3, num_layers=1, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(6 + 5 + 6, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.drop, self.hidden2tag = nn.Dropout(0.5), nn.Linear(10, TAGS)

    def forward(
        self,
        words: Tensor,
        features: list[Tensor],
        word_lengths: Tensor,
        chars: Tensor,
        char_lengths: Tensor,
        recover: Tensor,
    ) -> Tensor:
        batch, sent_len = words.size(0), words.size(1)
        packed = pack_padded_sequence(self.char_embedding(chars), char_lengths.cpu(), True)
        _, (last, _) = self.char_lstm(packed, None)
        spelled = last.transpose(1, 0).contiguous().view(batch * sent_len, -1)[recover].view(batch, sent_len, -1)
        joined = [self.word_embedding(words)]
        joined += [self.feature_embeddings[index](feature) for index, feature in enumerate(features)]
        joined.append(spelled)
        represented = self.drop(torch.cat(joined, 2))
        out, _ = self.lstm(pack_padded_sequence(represented, word_lengths.cpu(), True), None)
        out, _ = pad_packed_sequence(out)
        return self.hidden2tag(self.drop(out.transpose(1, 0)))


class CharacterStreams(nn.Module):
    """Two character models over the whole line, their outputs gathered at the words' ends; scores of tag pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 5
        self.char_embeds, self.word_embeds = nn.Embedding(CHARS, 4), nn.Embedding(WORDS, 6)
        self.forw_char_lstm, self.back_char_lstm = nn.LSTM(4, self.hidden), nn.LSTM(4, self.hidden)
        self.gate, self.trans = nn.ModuleList([nn.Linear(10, 10)]), nn.ModuleList([nn.Linear(10, 10)])
        self.word_lstm = nn.LSTM(16, 4, num_layers=1, bidirectional=True)
        self.crf = nn.Linear(8, TAGS * TAGS)

    def forward(
        self,
        forw: Tensor,
        forw_position: Tensor,
        back: Tensor,
        back_position: Tensor,
        words: Tensor,
        hidden: State | None = None,
    ) -> Tensor:
        seq_len, batch = forw_position.size()
        picked = []
        for chars, position, lstm in (
            (forw, forw_position, self.forw_char_lstm),
            (back, back_position, self.back_char_lstm),
        ):
            out, _ = lstm(self.char_embeds(chars))
            picked.append(torch.gather(out, 0, position.unsqueeze(2).expand(seq_len, batch, self.hidden)))
        x = torch.cat(picked, dim=2)
        g = torch.sigmoid(self.gate[0](x))
        x = g * F.relu(self.trans[0](x)) + (1 - g) * x
        out, _ = self.word_lstm(torch.cat((self.word_embeds(words), x), dim=2), hidden)
        return self.crf(out).view(seq_len, batch, TAGS, TAGS)


class LockedDropout(nn.Module):
    """The same dropout for each step; nothing in eval mode."""

    def forward(self, x: Tensor, dropout: float = 0.5) -> Tensor:
        if not self.training or not dropout:
            return x
        mask = x.data.new(1, x.size(1), x.size(2)).bernoulli_(1 - dropout) / (1 - dropout)
        return mask.expand_as(x) * x


class RegularisedLanguageModel(nn.Module):
    """LSTMs of different widths in a list, a list of states in and out, flat scores by the embedding's own matrix."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((6, 8), (8, 8), (8, 6))
        self.lockdrop, self.drop = LockedDropout(), nn.Dropout(0.4)
        self.encoder = nn.Embedding(WORDS, 6)
        self.rnns = nn.ModuleList([nn.LSTM(width, hidden, 1, dropout=0) for width, hidden in sizes])
        self.decoder = nn.Linear(6, WORDS)
        self.decoder.weight = self.encoder.weight

    def forward(
        self, tokens: Tensor, hidden: list[State], return_h: bool = False
    ) -> tuple[Tensor, ...] | tuple[Tensor, list[State]]:
        words = F.embedding(tokens, self.encoder.weight, -1, self.encoder.max_norm, self.encoder.norm_type)
        raw = self.lockdrop(words, 0.6)
        new_hidden, raws, outputs = [], [], []
        for index, rnn in enumerate(self.rnns):
            raw, state = rnn(raw, hidden[index])
            new_hidden.append(state)
            raws.append(raw)
            if index != len(self.rnns) - 1:
                raw = self.lockdrop(raw, 0.3)
                outputs.append(raw)
        output = self.lockdrop(raw, 0.4)
        result = self.decoder(output.view(output.size(0) * output.size(1), output.size(2)))
        return (result, new_hidden, raws, outputs) if return_h else (result, new_hidden)  # type: ignore[return-value]


class CheckedEncoder(nn.Module):
    """An encoder that asserts its inputs' shapes; the last layer's two directions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.emb_size, self.emb_dropout = 6, nn.Dropout(p=0.1, inplace=False)
        self.rnn = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, dropout=0.2)

    def check(self, src_embed: Tensor, src_length: Tensor) -> None:
        assert src_embed.shape[0] == src_length.shape[0]
        assert src_embed.shape[2] == self.emb_size
        assert len(src_length.shape) == 1

    def forward(
        self, src_embed: Tensor, src_length: Tensor, mask: Tensor | None = None, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self.check(src_embed, src_length)
        total_length = src_embed.size(1)
        packed = pack_padded_sequence(self.emb_dropout(src_embed), src_length.cpu(), batch_first=True)
        output, hidden = self.rnn(packed)
        if isinstance(hidden, tuple):
            hidden, _ = hidden
        output, _ = pad_packed_sequence(output, batch_first=True, total_length=total_length)
        batch_size = hidden.size()[1]
        layers = hidden.view(self.rnn.num_layers, 2 if self.rnn.bidirectional else 1, batch_size, self.rnn.hidden_size)
        joined = torch.cat([layers[-1:, 0], layers[-1:, 1]], dim=2).squeeze(0)
        assert joined.size(0) == output.size(0), (joined.size(), output.size())
        return output, joined


class TranslationEncoder(nn.Module):
    """Time-first, zeros made by new_zeros, padding that is marked; states of two directions joined by transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.padding_idx, self.num_layers, self.output_units = 1, 2, 10
        self.embed_tokens = nn.Embedding(WORDS, 6, self.padding_idx)
        self.lstm = nn.LSTM(6, 5, num_layers=2, dropout=0.1, bidirectional=True)

    def joined(self, outs: Tensor, bsz: int) -> Tensor:
        out = outs.view(self.num_layers, 2, bsz, -1).transpose(1, 2).contiguous()
        return out.view(self.num_layers, bsz, -1)

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor, enforce_sorted: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bsz, seqlen = src_tokens.size()
        x = self.embed_tokens(src_tokens).transpose(0, 1)
        packed = pack_padded_sequence(x, src_lengths.cpu(), enforce_sorted=enforce_sorted)
        h0 = x.new_zeros(2 * self.num_layers, bsz, 5)
        c0 = x.new_zeros(2 * self.num_layers, bsz, 5)
        out, (hiddens, cells) = self.lstm(packed, (h0, c0))
        x, _ = pad_packed_sequence(out, padding_value=self.padding_idx * 1.0)
        assert list(x.size()) == [seqlen, bsz, self.output_units]
        mask = src_tokens.eq(self.padding_idx).t()
        return x, self.joined(hiddens, bsz), self.joined(cells, bsz), mask


class ShiftedBothWays(nn.Module):
    """A protein's residues predicted from both sides: the same stack reads the reversed sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(22, 6, padding_idx=21)
        self.rnn = nn.ModuleList([nn.LSTM(6, 5, 1, batch_first=True), nn.LSTM(5, 5, 1, batch_first=True)])
        self.linear = nn.Linear(5, 22)

    def transformed(self, z: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.arange(z.size(1) - 1, -1, -1, device=z.device)
        back = z.index_select(1, order)
        h_fwd, h_rvs = z[:, :-1], back[:, :-1]
        for rnn in self.rnn:
            h_fwd, _ = rnn(h_fwd)
            h_rvs, _ = rnn(h_rvs)
        return h_fwd, h_rvs.index_select(1, torch.arange(h_rvs.size(1) - 1, -1, -1, device=z.device))

    def forward(self, x: Tensor) -> Tensor:
        h_fwd, h_rvs = self.transformed(self.embed(x))
        b, n = x.size(0), x.size(1) - 1
        fwd = self.linear(h_fwd.contiguous().view(b * n, h_fwd.size(2))).view(b, n, -1)
        zero = h_fwd.data.new(b, 1, fwd.size(2)).zero_()
        rvs = self.linear(h_rvs.contiguous().view(-1, h_rvs.size(2))).view(b, n, -1)
        return F.log_softmax(torch.cat([zero, fwd], 1) + torch.cat([rvs, zero], 1), dim=2)


class ConversationContext(nn.Module):
    """One state for each utterance so far; lengths become a list, and zeros are made where no state is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(input_size=7, hidden_size=5, num_layers=2, batch_first=True, dropout=0.1)

    def first(self, batch_size: int, hidden: Tensor | None = None) -> Tensor:
        if hidden is not None:
            return hidden
        return torch.zeros(2, batch_size, 5)

    def forward(
        self, encoder_hidden: Tensor, conversation_length: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        batch_size, _, _ = encoder_hidden.size()
        lengths, indices = conversation_length.sort(descending=True)
        packed = pack_padded_sequence(encoder_hidden.index_select(0, indices), lengths.data.tolist(), batch_first=True)
        state = self.first(batch_size, hidden=hidden)
        self.rnn.flatten_parameters()
        outputs, state = self.rnn(packed, state)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True)
        _, back = indices.sort()
        return outputs.index_select(0, back), state.index_select(1, back)


class LengthsFirst(nn.Module):
    """The lengths are the first argument; the result of a packed BiLSTM is cut to the longest."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(7, 5, dropout=0.2, bidirectional=True, num_layers=2, batch_first=True)

    def forward(self, text_len_tensor: Tensor, text_tensor: Tensor) -> Tensor:
        packed = pack_padded_sequence(text_tensor, text_len_tensor.cpu(), batch_first=True, enforce_sorted=False)
        rnn_out, (_, _) = self.rnn(packed, None)
        return pad_packed_sequence(rnn_out, batch_first=True)[0]


class DialogueAttention(nn.Module):
    """Emotions of a dialogue, time first: each utterance attends to all that the mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size=7, hidden_size=5, num_layers=2, bidirectional=True, dropout=0.2)
        self.transform, self.linear, self.smax_fc = nn.Linear(10, 10), nn.Linear(10, 6), nn.Linear(6, TAGS)

    def forward(self, u: Tensor, qmask: Tensor, umask: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        emotions, _ = self.lstm(u)
        m = emotions.permute(1, 2, 0)
        mask = umask.unsqueeze(2).repeat(1, 1, emotions.size(2)).transpose(1, 2)
        scores = torch.bmm(self.transform(emotions.transpose(0, 1)), m * mask)
        alpha = F.softmax(torch.tanh(scores), dim=2) * umask.unsqueeze(1)
        alpha = alpha / torch.sum(alpha, dim=2, keepdim=True)
        attended = torch.bmm(alpha, m.transpose(1, 2)).transpose(0, 1)
        hidden = F.relu(self.linear(attended))
        return F.log_softmax(self.smax_fc(hidden), 2), alpha, [], []


def _padded(batch: int, time: int, descending: bool = True) -> Inputs:
    draw = Draw(batch, time)
    lengths = draw.lengths(descending=descending)
    tokens = draw.tokens(WORDS)
    return torch.where(torch.arange(time) < lengths.unsqueeze(1), tokens, torch.ones_like(tokens)), lengths


def _tagged(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    words = draw.tokens(WORDS)
    lengths, order = torch.randint(1, 5, (batch * time,), generator=torch.Generator().manual_seed(time)).sort(
        descending=True
    )
    lengths[0] = 4
    features = [draw.tokens(5), draw.tokens(3)]
    chars = draw.tokens(CHARS, batch * time, 4) * (torch.arange(4) < lengths.unsqueeze(1))
    return words, features, draw.lengths(descending=True), chars, lengths, order.sort()[1]


def _streams(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    long = 2 * time + 3
    ends = [torch.sort(draw.tokens(long, time, batch), dim=0).values for _ in range(2)]
    chars = [draw.tokens(CHARS, long, batch) for _ in range(2)]
    return chars[0], ends[0], chars[1], ends[1].flip(0), draw.tokens(WORDS, time, batch)


def _states(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    states = [(draw.floats(1, batch, size).tanh(), draw.floats(1, batch, size)) for size in (8, 8, 6)]
    return {"tokens": draw.tokens(WORDS, time, batch), "hidden": states, "return_h": True}


def _utterances(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 7), draw.lengths()


def _dialogue(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(time, batch, 7), draw.floats(time, batch, 2), draw.mask().float()


PATTERNS = (
    Pattern("feature_tagger", "jiesutd/NCRFpp model/wordsequence.py", trained(FeatureTagger), _tagged),
    Pattern(
        "character_streams", "LiyuanLucasLiu/LM-LSTM-CRF model/lm_lstm_crf.py", trained(CharacterStreams), _streams
    ),
    Pattern(
        "regularised_language_model", "salesforce/awd-lstm-lm model.py", trained(RegularisedLanguageModel), _states
    ),
    Pattern(
        "checked_encoder",
        "joeynmt/joeynmt joeynmt/encoders.py",
        trained(CheckedEncoder),
        lambda batch, time: (Draw(batch, time).floats(batch, time, 6), Draw(batch, time).lengths(descending=True)),
    ),
    Pattern(
        "translation_encoder", "facebookresearch/fairseq fairseq/models/lstm.py", trained(TranslationEncoder), _padded
    ),
    Pattern(
        "shifted_both_ways",
        "tbepler/protein-sequence-embedding-iclr2019 src/models/sequence.py",
        trained(ShiftedBothWays),
        text(21),
        min_time=2,
    ),
    Pattern(
        "conversation_context",
        "ctr4si/A-Hierarchical-Latent-Structure-for-Variational-Conversation-Modeling model/layers/encoder.py",
        trained(ConversationContext),
        _utterances,
    ),
    Pattern(
        "lengths_first",
        "declare-lab/conv-emotion DialogueGCN-mianzhang/dgcn/model/SeqContext.py",
        trained(LengthsFirst),
        lambda batch, time: (Draw(batch, time).lengths(), Draw(batch, time).floats(batch, time, 7)),
    ),
    Pattern(
        "dialogue_attention", "declare-lab/conv-emotion bc-LSTM-pytorch/model.py", trained(DialogueAttention), _dialogue
    ),
)
