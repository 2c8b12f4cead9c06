"""Pictures and films: text recognition, captions, questions, lips, motion of a camera and of bodies."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"
# ruff: noqa: ARG002  # callers pass what a forward leaves unused

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained

WORDS = 20


class FlatBiLSTM(nn.Module):
    """A BiLSTM, time first, with a linear layer over its flat steps."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.rnn, self.embedding = nn.LSTM(width, hidden, bidirectional=True), nn.Linear(hidden * 2, out)

    def forward(self, x: Tensor) -> Tensor:
        recurrent, _ = self.rnn(x)
        t, b, h = recurrent.size()
        return self.embedding(recurrent.view(t * b, h)).view(t, b, -1)


class StripReader(nn.Module):
    """A strip of text to its columns: named layers, a height that is asserted to be 1, two such BiLSTMs in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential()
        for index, (into, out) in enumerate(((1, 4), (4, 6))):
            self.cnn.add_module(f"conv{index}", nn.Conv2d(into, out, 3, 1, 1))
            self.cnn.add_module(f"batchnorm{index}", nn.BatchNorm2d(out))
            self.cnn.add_module(f"relu{index}", nn.LeakyReLU(0.2, inplace=True))
            self.cnn.add_module(f"pooling{index}", nn.MaxPool2d((2, 2), (2, 1), (0, 1)))
        self.cnn.add_module("last", nn.Conv2d(6, 8, 2, 1, 0))
        self.rnn = nn.Sequential(FlatBiLSTM(8, 6, 6), FlatBiLSTM(6, 6, 9))

    def forward(self, image: Tensor) -> Tensor:
        conv = self.cnn(image)
        _, _, h, _ = conv.size()
        assert h == 1, "the height of conv must be 1"
        return self.rnn(conv.squeeze(2).permute(2, 0, 1))


class SceneTextReader(nn.Module):
    """Columns by adaptive pooling of the height, BiLSTMs, batch first, and the classes of each column."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(True)
        )
        self.pool = nn.AdaptiveAvgPool2d((None, 1))
        self.first, self.second = (nn.LSTM(8, 5, bidirectional=True, batch_first=True) for _ in range(2))
        self.linear1, self.linear2, self.prediction = nn.Linear(10, 8), nn.Linear(10, 7), nn.Linear(7, 9)

    def forward(self, image: Tensor) -> Tensor:
        seen = self.pool(self.features(image).permute(0, 3, 1, 2)).squeeze(3)
        for rnn, linear in ((self.first, self.linear1), (self.second, self.linear2)):
            rnn.flatten_parameters()
            seen = linear(rnn(seen)[0])
        return self.prediction(seen.contiguous())


class PackedCaptions(nn.Module):
    """A picture's vector before the words; the head reads the rows of the packed output itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.linear = (
            nn.Embedding(WORDS, 6),
            nn.LSTM(6, 8, 1, batch_first=True),
            nn.Linear(8, WORDS),
        )

    def forward(self, features: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        joined = torch.cat((features.unsqueeze(1), self.embed(captions)), 1)
        packed = pack_padded_sequence(joined, lengths.cpu(), batch_first=True)
        hiddens, _ = self.lstm(packed)
        return self.linear(hiddens[0])


class TeacherForcedCaptions(nn.Module):
    """The same, padded: states that a picture begins, and every word but the last read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.init_h, self.init_c = nn.Embedding(WORDS, 6), nn.Linear(5, 8), nn.Linear(5, 8)
        self.lstm, self.linear = nn.LSTM(6, 8, 1, batch_first=True), nn.Linear(8, WORDS)

    def forward(self, features: Tensor, captions: Tensor) -> Tensor:
        mean = features.mean(dim=1)
        h, c = (layer(mean).tanh()[None] for layer in (self.init_h, self.init_c))
        hiddens, _ = self.lstm(self.embed(captions[:, :-1]), (h, c))
        return self.linear(hiddens).permute(0, 2, 1)


class QuestionAboutPicture(nn.Module):
    """A question's last state weighs a picture's regions; layers with weight norm over the whole matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.rnn = nn.Embedding(WORDS + 1, 6, padding_idx=WORDS), nn.GRU(6, 7, 1, batch_first=True)

        def layer(into: int, out: int) -> nn.Module:
            return weight_norm(nn.Linear(into, out), dim=None)

        self.v_proj, self.q_proj, self.linear = layer(5, 7), layer(7, 7), layer(7, 1)
        self.q_net, self.v_net = nn.Sequential(layer(7, 8), nn.ReLU()), nn.Sequential(layer(5, 8), nn.ReLU())
        self.classifier = nn.Sequential(layer(8, 9), nn.ReLU(), nn.Dropout(0.5, inplace=True), layer(9, 4))

    def first(self, batch: int) -> Tensor:
        weight = next(self.parameters()).data
        return weight.new(1, batch, 7).zero_()

    def forward(self, v: Tensor, b: Tensor, q: Tensor, labels: Tensor | None) -> Tensor:
        self.rnn.flatten_parameters()
        output, _ = self.rnn(self.emb(q), self.first(q.size(0)))
        asked = output[:, -1]
        repeated = F.relu(self.q_proj(asked)).unsqueeze(1).repeat(1, v.size(1), 1)
        weights = F.softmax(self.linear(F.relu(self.v_proj(v)) * repeated), 1)
        return self.classifier(self.q_net(asked) * self.v_net((weights * v).sum(1)))


class LipReader(nn.Module):
    """Convolutions over time, height and width; two BiGRUs, time first, whose output stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv3d(2, 4, (3, 5, 5), (1, 2, 2), (1, 2, 2)), nn.ReLU(), nn.MaxPool3d((1, 2, 2)), nn.Dropout3d(0.5),
            nn.Conv3d(4, 5, (3, 3, 3), (1, 1, 1), (1, 1, 1)), nn.ReLU(), nn.Dropout3d(0.5),
        )  # fmt: skip
        self.gru1, self.gru2 = nn.GRU(20, 6, 1, bidirectional=True), nn.GRU(12, 6, 1, bidirectional=True)
        self.drp1, self.pred = nn.Dropout(0.5), nn.Linear(12, 7)
        for m in self.modules():
            if isinstance(m, nn.GRU):
                nn.init.orthogonal_(m.weight_hh_l0[:6])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(2, 0, 1, 3, 4).contiguous()
        x = x.view(x.size(0), x.size(1), -1)
        x, _ = self.gru1(x)
        x, _ = self.gru2(self.drp1(x))
        return self.pred(x)


class FilmClassifier(nn.Module):
    """Every picture through a small network that ends in a norm; steps weighed by a softmax over time."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.final = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, momentum=0.01))
        self.lstm, self.attention_layer = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True), nn.Linear(10, 1)
        self.output_layers = nn.Sequential(
            nn.Linear(10, 7), nn.BatchNorm1d(7, momentum=0.01), nn.ReLU(), nn.Linear(7, 4), nn.Softmax(dim=-1)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch_size, seq_length, c, h, w = x.shape
        with torch.no_grad():
            seen = self.encoder(x.view(batch_size * seq_length, c, h, w))
        x = self.final(seen.view(seen.size(0), -1)).view(batch_size, seq_length, -1)
        x, _ = self.lstm(x, None)
        attention_w = F.softmax(self.attention_layer(x).squeeze(-1), dim=-1)
        return self.output_layers(torch.sum(attention_w.unsqueeze(-1) * x, dim=1))


class VisualOdometry(nn.Module):
    """Neighbouring pictures joined by channels; the LSTM's width is that of an encoded empty picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(6, 4, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.1, inplace=True)
        )
        self.conv2 = nn.Sequential(nn.Conv2d(4, 3, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(3))
        with torch.no_grad():
            width = int(torch.tensor(self.encoded(torch.zeros(1, 6, 8, 10)).shape).prod())
        self.rnn = nn.LSTM(input_size=width, hidden_size=7, num_layers=2, dropout=0.2, batch_first=True)
        self.rnn_drop_out, self.linear = nn.Dropout(0.2), nn.Linear(7, 6)
        for module in self.modules():
            if isinstance(module, nn.LSTM):
                nn.init.kaiming_normal_(module.weight_ih_l0)
                module.bias_hh_l0.data[7:14].fill_(1.0)

    def encoded(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[:, :-1], x[:, 1:]), dim=2)
        batch_size, seq_len = x.size(0), x.size(1)
        x = x.view(batch_size * seq_len, x.size(2), x.size(3), x.size(4))
        x = self.encoded(x).view(batch_size, seq_len, -1)
        out, _ = self.rnn(x)
        return self.linear(self.rnn_drop_out(out))


class PoseSmoother(nn.Module):
    """A GRU over body features whose rectified, projected output is added to its input where widths agree."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size=8, hidden_size=7, bidirectional=True, num_layers=1)
        self.linear, self.use_residual = nn.Linear(14, 8), True

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = x.permute(1, 0, 2)
        y, _ = self.gru(x)
        if self.linear:
            y = F.relu(y)
            y = self.linear(y.view(-1, y.size(-1))).view(t, n, 8)
        if self.use_residual and y.shape[-1] == 8:
            y = y + x
        return y.permute(1, 0, 2)


class MotionJudge(nn.Module):
    """Whether a motion is real: adaptive mean and maximum over time of a GRU, and an attention beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size=6, hidden_size=7, num_layers=2)
        self.fc = nn.Linear(14, 1)
        self.attention = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 1))
        self.weigh = nn.Softmax(dim=1)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        batchsize, seqlen, _ = sequence.shape
        outputs, _ = self.gru(torch.transpose(sequence, 0, 1))
        outputs = F.relu(outputs)
        avg_pool = F.adaptive_avg_pool1d(outputs.permute(1, 2, 0), 1).view(batchsize, -1)
        max_pool = F.adaptive_max_pool1d(outputs.permute(1, 2, 0), 1).view(batchsize, -1)
        scores = self.weigh(self.attention(outputs.permute(1, 0, 2)).view(batchsize, seqlen))
        return self.fc(torch.cat([avg_pool, max_pool], dim=1)), scores


class FewShot(nn.Module):
    """A set of known pictures and the one asked about as one sequence through a BiLSTM; cosines weigh the labels."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.lstm = nn.LSTM(input_size=8, num_layers=1, hidden_size=4, bidirectional=True)

    def forward(self, support_set: Tensor, labels: Tensor, target: Tensor) -> Tensor:
        encoded = torch.cat([self.g(support_set).transpose(0, 1), self.g(target).unsqueeze(0)])
        outputs, _ = self.lstm(encoded)
        known, asked = outputs[:-1], outputs[-1]
        magnitude = torch.sum(torch.pow(known, 2), 2).clamp(1e-10, float("inf")).rsqrt()
        dot = asked.unsqueeze(1).bmm(known.permute(1, 2, 0)).squeeze(1)
        similar = F.softmax(dot * magnitude.t(), dim=-1)
        return similar.unsqueeze(1).bmm(labels).squeeze(1)


def _captions(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, 6), draw.tokens(WORDS), draw.lengths(descending=True)


def _question(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"v": draw.floats(batch, 3, 5), "b": draw.floats(batch, 3, 4), "q": draw.tokens(WORDS), "labels": None}


def _film(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(batch, time, 3, 6, 5),)


def _support(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 6), F.one_hot(draw.tokens(4), 4).float(), draw.floats(batch, 6)


PATTERNS = (
    Pattern(
        "strip_reader",
        "meijieru/crnn.pytorch models/crnn.py",
        trained(StripReader),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, 8, time),),
    ),
    Pattern(
        "scene_text_reader",
        "clovaai/deep-text-recognition-benchmark modules/sequence_modeling.py",
        trained(SceneTextReader),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, 8, 2 * time),),
    ),
    Pattern(
        "packed_captions",
        "yunjey/pytorch-tutorial tutorials/03-advanced/image_captioning/model.py",
        trained(PackedCaptions),
        _captions,
    ),
    Pattern(
        "teacher_forced_captions",
        "yunjey/pytorch-tutorial tutorials/03-advanced/image_captioning/model.py",
        trained(TeacherForcedCaptions),
        lambda batch, time: (Draw(batch, time).floats(batch, 3, 5), Draw(batch, time).tokens(WORDS)),
        min_time=2,
    ),
    Pattern(
        "question_about_picture",
        "hengyuan-hu/bottom-up-attention-vqa language_model.py",
        trained(QuestionAboutPicture),
        _question,
    ),
    Pattern(
        "lip_reader",
        "sailordiary/LipNet-PyTorch model.py",
        trained(LipReader),
        lambda batch, time: (Draw(batch, time).floats(batch, 2, time, 8, 8),),
    ),
    Pattern("film_classifier", "eriklindernoren/Action-Recognition models.py", trained(FilmClassifier), _film),
    Pattern(
        "visual_odometry",
        "ChiWeiHsiao/DeepVO-pytorch model.py",
        trained(VisualOdometry),
        lambda batch, time: (Draw(batch, time).floats(batch, time, 3, 8, 10),),
        min_time=2,
    ),
    Pattern("pose_smoother", "mkocabas/VIBE lib/models/vibe.py", trained(PoseSmoother), signal(8)),
    Pattern("motion_judge", "mkocabas/VIBE lib/models/motion_discriminator.py", trained(MotionJudge), signal(6)),
    Pattern("few_shot", "BoyuanJiang/matching-networks-pytorch matching_networks.py", trained(FewShot), _support),
)
