"""Encoders that others build on: banks of convolutions, bridges, shortcuts, and layers with a mask."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs, signal, text_time_first
from tests.patterns.pattern import Pattern, trained

WORDS = 20
State = tuple[Tensor, Tensor]


class Highway(nn.Module):
    """A gate between a rectified layer and its input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(size, size), nn.Linear(size, size)
        self.w1.bias.data.fill_(0.0)

    def forward(self, x: Tensor) -> Tensor:
        g = torch.sigmoid(self.w2(x))
        return g * F.relu(self.w1(x)) + (1.0 - g) * x


class ConvolutionBank(nn.Module):
    """Convolutions of every width cut to the length, a pool, a skip, highways and a BiGRU held in a list as well."""

    def __init__(self) -> None:
        super().__init__()
        self._to_flatten: list[nn.RNNBase] = []
        self.bank = nn.ModuleList(nn.Conv1d(6, 5, k, stride=1, padding=k // 2, bias=False) for k in range(1, 5))
        self.norms = nn.ModuleList(nn.BatchNorm1d(5) for _ in self.bank)
        self.maxpool, self.project = nn.MaxPool1d(kernel_size=2, stride=1, padding=1), nn.Conv1d(20, 6, 3, padding=1)
        self.pre_highway: nn.Module = nn.Linear(6, 8, bias=False)
        self.highways = nn.ModuleList([Highway(8) for _ in range(2)])
        self.rnn = nn.GRU(8, 4, batch_first=True, bidirectional=True)
        self._to_flatten.append(self.rnn)
        self._flatten_parameters()

    def _flatten_parameters(self) -> None:
        for layer in self._to_flatten:
            layer.flatten_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self._flatten_parameters()
        residual, seq_len = x, x.size(-1)
        bank = [norm(F.relu(conv(x)))[:, :, :seq_len] for conv, norm in zip(self.bank, self.norms, strict=True)]
        x = self.maxpool(torch.cat(bank, dim=1))[:, :, :seq_len]
        x = self.pre_highway((self.project(x) + residual).transpose(1, 2))
        for highway in self.highways:
            x = highway(x)
        return self.rnn(x)[0]


class WeighedLayers(nn.Module):
    """The layers of a pretrained encoder, a list of tensors, averaged by a softmax under a BiLSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(data=torch.ones(3), requires_grad=True)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
        self.linear, self.classifier = nn.ModuleList([nn.Linear(10, 8), nn.Linear(8, 8)]), nn.Linear(8, 3)

    def forward(self, hidden_states: list[Tensor]) -> Tensor:
        stacked = torch.stack(hidden_states, dim=-1)
        outputs, _ = self.lstm(stacked @ F.softmax(self.weights, dim=0))
        for linear in self.linear:
            outputs = F.leaky_relu(linear(outputs))
        return torch.sigmoid(self.classifier(outputs))


class BridgedStates(nn.Module):
    """An encoder, time first, whose states go to a decoder through a layer over all of its layers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(WORDS, 6, padding_idx=1)
        self.rnn = nn.LSTM(input_size=6, hidden_size=5, num_layers=2, dropout=0.1, bidirectional=True)
        self.total_hidden_dim = 5 * 2 * 2
        self.bridge = nn.ModuleList([nn.Linear(20, 20, bias=True) for _ in range(2)])

    def bridged(self, linear: nn.Module, states: Tensor) -> Tensor:
        size = states.size()
        result = linear(states.permute(1, 0, 2).contiguous().view(-1, self.total_hidden_dim))
        return F.relu(result).view(size[1], size[0], size[2]).permute(1, 0, 2).contiguous()

    def forward(self, src: Tensor, src_len: Tensor | None = None) -> tuple[Tensor, State, Tensor | None]:
        emb = self.embeddings(src)
        packed = emb if src_len is None else pack_padded_sequence(emb, src_len.view(-1).cpu(), enforce_sorted=False)
        out, final = self.rnn(packed)
        if src_len is not None:
            out = pad_packed_sequence(out)[0]
        h, c = tuple(self.bridged(layer, final[index]) for index, layer in enumerate(self.bridge))
        return out, (h, c), src_len


class MaskedLayer(nn.Module):
    """Outputs and last outputs of both directions, projected; the mask becomes lengths, which are 1 at least."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size, self.num_directions = 5, 2
        self.rnn = nn.GRU(6, 5, num_layers=1, dropout=0, bidirectional=True, batch_first=True)
        self.down_projection = nn.Linear(10, 5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch_size = x.size(0)
        if mask is None:
            lengths = torch.full(size=(batch_size,), fill_value=x.size(1), dtype=torch.int64)
        else:
            lengths = torch.sum(mask.int(), dim=-1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        outputs = outputs.view(batch_size, outputs.shape[1], self.num_directions, -1)
        ahead = outputs[torch.arange(batch_size), (lengths - 1), 0, :]
        last = self.down_projection(torch.cat([ahead, outputs[:, 0, 1, :]], dim=-1))
        return self.down_projection(outputs.view(batch_size, outputs.shape[1], -1)), last


class PackedOrNot(nn.Module):
    """Packed or padded, with a batch or without: the code asks for the class and the number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.linear = nn.LSTM(6, 5, batch_first=True, bidirectional=True), nn.Linear(10, 4)

    def forward(self, x: Tensor | PackedSequence) -> Tensor | PackedSequence:
        if type(x) is not PackedSequence:
            ndim = len(x.size())
            if ndim == 2:
                x = x.unsqueeze(0)
        h, _ = self.rnn(x)
        if type(h) is PackedSequence:
            return PackedSequence(self.linear(h.data), h.batch_sizes)
        z = self.linear(h.reshape(h.size(0) * h.size(1), -1)).view(h.size(0), h.size(1), -1)
        return z.squeeze(0) if ndim == 2 else z


class Resynthesis(nn.Module):
    """Three codes of different rates, repeated to one, beside a speaker: a stack of BiLSTMs and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3 + 4 + 2 + 5, 6, 3, batch_first=True, bidirectional=True)
        self.linear_projection = nn.Linear(12, 8)

    def forward(self, content: Tensor, pitch: Tensor, rhythm: Tensor, speaker: Tensor) -> Tensor:
        whole = [code.repeat_interleave(rate, dim=1) for code, rate in ((content, 4), (pitch, 2), (rhythm, 1))]
        joined = torch.cat((*whole, speaker.unsqueeze(1).expand(-1, whole[0].size(1), -1)), dim=-1)
        return self.linear_projection(self.lstm(joined)[0])


class ShortcutSentences(nn.Module):
    """Two sentences, time first: each BiLSTM reads the words and all below it; the maximum over time of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.max_l, self.embd = 60, nn.Embedding(WORDS, 6)
        self.lstm, self.lstm_1 = nn.LSTM(6, 4, bidirectional=True), nn.LSTM(6 + 8, 4, bidirectional=True)
        self.lstm_2 = nn.LSTM(6 + 16, 5, bidirectional=True)
        self.classifier = nn.Sequential(nn.Linear(40, 9), nn.ReLU(), nn.Dropout(0.1), nn.Linear(9, 3))

    def encoded(self, s: Tensor, lengths: Tensor) -> Tensor:
        lengths = lengths.clamp(max=self.max_l)
        layers = [self.embd(s)]
        for lstm in (self.lstm, self.lstm_1, self.lstm_2):
            packed = pack_padded_sequence(torch.cat(layers, dim=2), lengths.cpu(), enforce_sorted=False)
            layers.append(pad_packed_sequence(lstm(packed)[0], total_length=s.size(0))[0])
        mask = (torch.arange(s.size(0)).unsqueeze(1) < lengths).unsqueeze(2)
        return layers[-1].masked_fill(~mask, -1e4).max(0)[0]

    def forward(self, s1: Tensor, l1: Tensor, s2: Tensor, l2: Tensor) -> Tensor:
        a, b = self.encoded(s1, l1), self.encoded(s2, l2)
        return self.classifier(torch.cat([a, b, torch.abs(a - b), a * b], dim=1))


class BoundedWords(nn.Module):
    """A language model with its state in and out, flat logits, and weights drawn within a range of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(WORDS, 6), nn.LSTM(6, 7, 2, batch_first=True)
        self.linear = nn.Linear(7, WORDS)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.4, 0.4)

    def forward(self, x: Tensor, h: State) -> tuple[Tensor, State]:
        out, (hidden, cell) = self.lstm(self.embed(x), [state.detach() for state in h])
        out = out.reshape(out.size(0) * out.size(1), out.size(2))
        return self.linear(out), (hidden, cell)


class ItemsAndFeatures(nn.Module):
    """A GRU over items and another over their features, whose embeddings are looked up by item, joined by a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.item_embedding, self.kinds = nn.Embedding(WORDS, 6, padding_idx=0), nn.Embedding(5, 3)
        self.register_buffer("kind_of", torch.randint(0, 5, (WORDS, 2)))
        self.item_gru_layers = nn.GRU(6, 7, num_layers=2, bias=False, batch_first=True)
        self.feature_gru_layers = nn.GRU(6, 7, num_layers=1, bias=False, batch_first=True)
        self.dense_layer = nn.Linear(14, 6)

    def forward(self, item_seq: Tensor) -> Tensor:
        items, _ = self.item_gru_layers(self.item_embedding(item_seq))
        table = self.kinds(self.kind_of[item_seq])
        size = table.shape
        features, _ = self.feature_gru_layers(table.view((*size[:-2], size[-2] * size[-1])))
        return self.dense_layer(torch.cat((items, features), -1))


class AddedDirections(nn.Module):
    """Words, time first, through a BiGRU whose two directions are added, and its state cut to the layers above."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 6
        self.embedding, self.gru = nn.Embedding(WORDS, 6), nn.GRU(6, 6, 2, dropout=0.1, bidirectional=True)

    def forward(self, input_seq: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, hidden = self.gru(self.embedding(input_seq), hidden)
        outputs = outputs[:, :, : self.hidden_size] + outputs[:, :, self.hidden_size :]
        return outputs, hidden[: self.gru.num_layers]


def _layers(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return ([draw.floats(batch, time, 6) for _ in range(3)],)


def _source(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"src": draw.tokens(WORDS, time, batch), "src_len": draw.lengths()}


def _codes(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return (
        draw.floats(batch, time, 3),
        draw.floats(batch, 2 * time, 4),
        draw.floats(batch, 4 * time, 2),
        draw.floats(batch, 5),
    )


def _sentences(batch: int, time: int) -> Inputs:
    one, other = Draw(batch, time), Draw(batch, time + 3)
    return one.tokens(WORDS, time, batch), one.lengths(), other.tokens(WORDS, time + 3, batch), other.lengths()


def _words(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.tokens(WORDS), (draw.floats(2, batch, 7).tanh(), draw.floats(2, batch, 7))


PATTERNS = (
    Pattern(
        "convolution_bank",
        "fatchord/WaveRNN models/tacotron.py",
        trained(ConvolutionBank),
        lambda batch, time: (Draw(batch, time).floats(batch, 6, time),),
    ),
    Pattern(
        "weighed_layers",
        "pyannote/pyannote-audio src/pyannote/audio/models/segmentation/SSeRiouSS.py",
        trained(WeighedLayers),
        _layers,
    ),
    Pattern("bridged_states", "OpenNMT/OpenNMT-py onmt/encoders/rnn_encoder.py", trained(BridgedStates), _source),
    Pattern(
        "masked_layer",
        "sunlabuiuc/PyHealth pyhealth/models/rnn.py",
        trained(MaskedLayer),
        lambda batch, time: (Draw(batch, time).floats(batch, time, 6), Draw(batch, time).mask()),
    ),
    Pattern(
        "packed_or_not",
        "tbepler/protein-sequence-embedding-iclr2019 eval_transmembrane.py",
        trained(PackedOrNot),
        signal(6),
    ),
    Pattern("resynthesis", "auspicious3000/SpeechSplit model.py", trained(Resynthesis), _codes),
    Pattern("shortcut_sentences", "lanwuwei/SPM_toolkit SSE/model.py", trained(ShortcutSentences), _sentences),
    Pattern(
        "bounded_words",
        "yunjey/pytorch-tutorial tutorials/02-intermediate/language_model/main.py",
        trained(BoundedWords),
        _words,
    ),
    Pattern(
        "items_and_features",
        "RUCAIBox/RecBole recbole/model/sequential_recommender/gru4recf.py",
        trained(ItemsAndFeatures),
        lambda batch, time: (Draw(batch, time).tokens(WORDS),),
    ),
    Pattern(
        "added_directions",
        "IBM/pytorch-seq2seq seq2seq/models/EncoderRNN.py",
        trained(AddedDirections),
        text_time_first(WORDS),
    ),
)
