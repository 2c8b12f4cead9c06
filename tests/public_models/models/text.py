"""Text: taggers, encoders, language models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..model import Model
from ..packages import Package
from .draws import lengths, padding, tokens, unsorted_lengths

STANZA = Package(
    "stanza",
    "1.15.0",
    bare=(
        "stanza",
        "stanza.models",
        "stanza.models.common",
        "stanza.models.tokenization",
        "stanza.models.langid",
        "stanza.models.mwt",
    ),
    stubs=("stanza.models.common.char_model", "stanza.models.common.foundation_cache"),
)
SUPAR = Package("supar", "1.1.4", bare=("supar", "supar.modules"))
HANLP = Package(
    "hanlp",
    "2.1.7",
    bare=("hanlp", "hanlp.components", "hanlp.components.taggers", "hanlp.components.taggers.rnn", "hanlp.layers"),
)
LASER = Package("laserembeddings", "1.1.2", bare=("laserembeddings",))
OPENNMT = Package(
    "OpenNMT-py",
    "3.5.1",
    bare=("onmt", "onmt.encoders", "onmt.modules", "onmt.utils"),
)


def packed_lstm() -> nn.Module:
    from stanza.models.common.packed_lstm import PackedLSTM

    return PackedLSTM(12, 16, 2, batch_first=True, bidirectional=True, pad=True)


def highway_lstm() -> nn.Module:
    from stanza.models.common.hlstm import HighwayLSTM

    return HighwayLSTM(12, 16, 2, batch_first=True, bidirectional=True, pad=True, highway_func=torch.tanh)


def stanza_tokenizer(hierarchical: bool) -> nn.Module:
    from stanza.models.tokenization.model import Tokenizer

    settings = {
        "feat_dim": 5,
        "rnn_layers": 1,
        "conv_res": None,
        "use_mwt": True,
        "hierarchical": hierarchical,
        "hier_invtemp": 0.5,
        "tok_noise": 0.0,
    }
    return Tokenizer(settings, 30, 12, 16, 0.1, 0.1)


def stanza_langid() -> nn.Module:
    from stanza.models.langid.model import LangIDBiLSTM

    characters = {"<PAD>": 0, **{chr(97 + index): index + 1 for index in range(20)}}
    return LangIDBiLSTM(characters, {"en": 0, "fr": 1, "de": 2}, 2, 12, 16)


def stanza_mwt() -> nn.Module:
    from stanza.models.mwt.character_classifier import CharacterClassifier

    return CharacterClassifier({"vocab_size": 20, "emb_dim": 12, "hidden_dim": 16, "num_layers": 1, "dropout": 0.1})


def mwt_inputs(batch: int, time: int) -> tuple[Any, ...]:
    ends = lengths(batch, time)
    return tokens(batch, time, 20), padding(ends, time).long()


def supar_char_lstm() -> nn.Module:
    from supar.modules.lstm import CharLSTM

    return CharLSTM(20, 12, 16, 10)


def characters(batch: int, time: int) -> tuple[Any, ...]:
    words = tokens(batch * time, 5, 20)
    words[padding(torch.randint(1, 6, (batch * time,)), 5)] = 0
    return (words.view(batch, time, 5),)


def hanlp_tagger() -> nn.Module:
    from hanlp.components.taggers.rnn.rnntaggingmodel import RNNTaggingModel

    return RNNTaggingModel(nn.Embedding(20, 12), 12, 16, 5, crf=False)


def laser() -> nn.Module:
    from laserembeddings.encoder import Encoder

    return Encoder(30, 0, embed_dim=12, hidden_size=16, num_layers=2, bidirectional=True, left_pad=False)


def opennmt_encoder() -> nn.Module:
    from onmt.encoders.rnn_encoder import RNNEncoder

    return RNNEncoder("LSTM", True, 2, 16, embeddings=Embeddings(20, 12))


class Embeddings(nn.Embedding):
    """The size under the name that the encoder asks its embeddings for."""

    embedding_size = 12


def opennmt_stacked() -> nn.Module:
    from onmt.modules.stacked_rnn import StackedLSTM

    return StackedLSTM(2, 12, 16, 0.1)


def states(layers: int, batch: int, hidden: int) -> tuple[Any, Any]:
    return torch.randn(layers, batch, hidden), torch.randn(layers, batch, hidden)


TEXT = (
    Model("stanza PackedLSTM", STANZA, packed_lstm, lambda b, t: (torch.randn(b, t, 12), lengths(b, t))),
    Model("stanza HighwayLSTM", STANZA, highway_lstm, lambda b, t: (torch.randn(b, t, 12), lengths(b, t))),
    Model(
        "stanza Tokenizer",
        STANZA,
        lambda: stanza_tokenizer(False),
        lambda b, t: (tokens(b, t, 30), torch.randn(b, t, 5), lengths(b, t)),
    ),
    Model(
        "stanza Tokenizer hierarchical",
        STANZA,
        lambda: stanza_tokenizer(True),
        lambda b, t: (tokens(b, t, 30), torch.randn(b, t, 5), lengths(b, t)),
    ),
    Model("stanza LangIDBiLSTM", STANZA, stanza_langid, lambda b, t: (tokens(b, t, 21),)),
    Model("stanza CharacterClassifier", STANZA, stanza_mwt, mwt_inputs),
    Model("supar CharLSTM", SUPAR, supar_char_lstm, characters),
    Model("HanLP RNNTaggingModel", HANLP, hanlp_tagger, lambda b, t: (tokens(b, t, 20),)),
    Model("LASER Encoder", LASER, laser, lambda b, t: (tokens(b, t, 30), lengths(b, t))),
    Model("OpenNMT RNNEncoder", OPENNMT, opennmt_encoder, lambda b, t: (tokens(b, t, 20), unsorted_lengths(b, t))),
    Model("OpenNMT StackedLSTM", OPENNMT, opennmt_stacked, lambda b, _: (torch.randn(b, 12), states(2, b, 16))),
)
