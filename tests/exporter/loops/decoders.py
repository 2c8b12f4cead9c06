"""Decoders as tutorials write them, with toy tasks that they learn in seconds: attention, and captions of images."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

START, END, FIRST = 0, 1, 2
"""Tokens: the first one of a caption or a translation, the last one, and the first word."""


class Attention(nn.Module):
    """Additive attention: weights over the encoder's steps for one state of the decoder."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.attn, self.v = nn.Linear(3 * hidden, hidden), nn.Linear(hidden, 1, bias=False)

    def forward(self, hidden: Tensor, encoder_outputs: Tensor) -> Tensor:
        repeated = hidden.unsqueeze(1).repeat(1, encoder_outputs.shape[1], 1)
        energy = torch.tanh(self.attn(torch.cat((repeated, encoder_outputs), dim=2)))
        return functional.softmax(self.v(energy).squeeze(2), dim=1)


class Translator(nn.Module):
    """A bidirectional encoder, and a decoder that attends to it in each step; teacher forcing in a Python loop."""

    def __init__(self, words: int = 9, embedding: int = 12, hidden: int = 20) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, embedding), nn.Embedding(words, embedding)
        self.encoder = nn.GRU(embedding, hidden, bidirectional=True, batch_first=True)
        self.bridge, self.attention = nn.Linear(2 * hidden, hidden), Attention(hidden)
        self.decoder = nn.GRU(2 * hidden + embedding, hidden, batch_first=True)
        self.fc_out = nn.Linear(3 * hidden + embedding, words)

    def encode(self, src: Tensor) -> tuple[Tensor, Tensor]:
        outputs, hidden = self.encoder(self.source(src))
        return outputs, torch.tanh(self.bridge(torch.cat((hidden[-2], hidden[-1]), dim=1)))

    def decode(self, token: Tensor, hidden: Tensor, encoder_outputs: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.target(token.unsqueeze(1))
        weighted = torch.bmm(self.attention(hidden, encoder_outputs).unsqueeze(1), encoder_outputs)
        output, state = self.decoder(torch.cat((embedded, weighted), dim=2), hidden.unsqueeze(0))
        return self.fc_out(torch.cat((output, weighted, embedded), dim=2).squeeze(1)), state.squeeze(0)

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        encoder_outputs, hidden = self.encode(src)
        outputs = []
        for t in range(trg.shape[1]):
            output, hidden = self.decode(trg[:, t], hidden, encoder_outputs)
            outputs.append(output)
        return torch.stack(outputs, dim=1)


class Captioner(nn.Module):
    """A small convolutional encoder, and an LSTMCell that attends to its places through a gate."""

    def __init__(self, words: int = 10, embedding: int = 12, hidden: int = 24, channels: int = 12) -> None:
        super().__init__()
        self.words = words
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, channels, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.embedding, self.lstm = nn.Embedding(words, embedding), nn.LSTMCell(embedding + channels, hidden)
        self.init_h, self.init_c = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.encoder_att, self.decoder_att = nn.Linear(channels, hidden), nn.Linear(hidden, hidden)
        self.full_att, self.f_beta, self.fc = (
            nn.Linear(hidden, 1),
            nn.Linear(hidden, channels),
            nn.Linear(hidden, words),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.cnn(images).flatten(2).permute(0, 2, 1)
        mean = features.mean(1)
        return features, self.init_h(mean), self.init_c(mean)

    def step(self, token: Tensor, h: Tensor, c: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.full_att(torch.relu(self.encoder_att(features) + self.decoder_att(h).unsqueeze(1))).squeeze(2)
        context = (features * torch.softmax(scores, 1).unsqueeze(2)).sum(1)
        gated = torch.sigmoid(self.f_beta(h)) * context
        h, c = self.lstm(torch.cat([self.embedding(token), gated], 1), (h, c))
        return self.fc(h), h, c

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        features, h, c = self.encode(images)
        predictions = torch.zeros(captions.size(0), captions.size(1), self.words)
        for t in range(captions.size(1)):
            preds, h, c = self.step(captions[:, t], h, c, features)
            predictions[:, t, :] = preds
        return predictions


class GreedyCaption(nn.Module):
    """Six words of a caption, each fed back."""

    def __init__(self, captioner: Captioner) -> None:
        super().__init__()
        self.captioner = captioner

    def forward(self, images: Tensor) -> Tensor:
        features, h, c = self.captioner.encode(images)
        token, words = torch.zeros(images.size(0), dtype=torch.int64), []
        for _ in range(6):
            preds, h, c = self.captioner.step(token, h, c, features)
            token = preds.argmax(1)
            words.append(token)
        return torch.stack(words, 1)


class Method(nn.Module):
    """A method of a module, as a module of its own: the encoder, or the step, of a decoder."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name


class TranslatorStep(Method):
    def forward(self, token: Tensor, hidden: Tensor, encoder_outputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.decode(token, hidden, encoder_outputs)


class CaptionStep(Method):
    def forward(self, token: Tensor, h: Tensor, c: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.module.step(token, h, c, features)


def sentences(count: int, length: int) -> tuple[Tensor, Tensor]:
    """Words, and their translation: the same in reverse, between START and END."""
    src = torch.randint(FIRST, 9, (count, length))
    ends = torch.full((count, 1), START), torch.full((count, 1), END)
    return src, torch.cat([ends[0], src.flip(1), ends[1]], 1)


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """A bright square in one of nine places and of two sizes, and its caption: size, row, column."""
    row, column, size = (torch.randint(0, most, (count,)) for most in (3, 3, 2))
    images = torch.zeros(count, 1, 12, 12)
    for index, (r, c, s) in enumerate(zip(row.tolist(), column.tolist(), size.tolist(), strict=True)):
        images[index, 0, 4 * r : 4 * r + 2 + 2 * s, 4 * c : 4 * c + 2 + 2 * s] = 1
    ends = torch.full((count,), START), torch.full((count,), END)
    return images, torch.stack([ends[0], FIRST + size, 4 + row, 7 + column, ends[1]], 1)


@cache
def translator() -> Translator:
    """Trained until it reverses short sentences."""
    torch.manual_seed(0)
    model = Translator()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for number in range(160):
        src, trg = sentences(24, 2 + number % 4)
        _learn(optimizer, model(src, trg[:, :-1]), trg[:, 1:])
    return model.eval()


@cache
def captioner() -> Captioner:
    """Trained until it describes most pictures."""
    torch.manual_seed(0)
    model = Captioner()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(160):
        images, captions = pictures(24)
        _learn(optimizer, model(images, captions[:, :-1]), captions[:, 1:])
    return model.eval()


def _learn(optimizer: torch.optim.Optimizer, logits: Tensor, wanted: Tensor) -> None:
    loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
