"""Images of text, control, graphs and recommendation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..model import Model
from ..packages import Package
from .draws import lengths, tokens, unsorted_lengths

EASYOCR = Package("easyocr", "1.7.2", bare=("easyocr", "easyocr.model"), stubs=("torchvision",))
KRAKEN = Package("kraken", "7.1.1", bare=("kraken", "kraken.lib", "kraken.lib.vgsl"), stubs=("coremltools",))
SB3 = Package(
    "sb3-contrib",
    "2.9.2",
    needs=("stable-baselines3==2.9.0", "gymnasium==1.3.0", "cloudpickle==3.1.2", "Farama-Notifications==0.0.4"),
    bare=("sb3_contrib", "sb3_contrib.common", "sb3_contrib.common.recurrent"),
    stubs=("pandas",),
)
PYG = Package("torch-geometric", "2.8.1", bare=("torch_geometric", "torch_geometric.nn", "torch_geometric.nn.models"))
RECBOLE = Package(
    "recbole",
    "1.2.1",
    bare=("recbole", "recbole.model", "recbole.model.sequential_recommender"),
    stubs=("recbole.utils", "recbole.data", "recbole.model.layers"),
)


def easyocr_model() -> nn.Module:
    from easyocr.model.vgg_model import Model as Recogniser

    return Recogniser(1, 32, 16, 20)


def easyocr_lstm() -> nn.Module:
    from easyocr.model.modules import BidirectionalLSTM

    return nn.Sequential(BidirectionalLSTM(12, 16, 16), BidirectionalLSTM(16, 16, 8))


def kraken_rnn(direction: str, transpose: bool, summarize: bool) -> nn.Module:
    from kraken.lib.vgsl.layers import TransposedSummarizingRNN

    return TransposedSummarizingRNN(12, 16, direction, transpose, summarize)


def sb3_policy() -> nn.Module:
    from gymnasium import spaces
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

    return RecurrentActorCriticPolicy(
        spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (2,)), lambda _: 1e-3, lstm_hidden_size=16
    )


def sb3_inputs(batch: int, time: int) -> tuple[Any, ...]:
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    def pair() -> tuple[Any, Any]:
        return torch.randn(1, batch, 16), torch.randn(1, batch, 16)

    starts = torch.zeros(batch)
    starts[0] = 1
    return torch.randn(batch, 5), RNNStates(pair(), pair()), starts, True


def jumping_knowledge() -> nn.Module:
    from torch_geometric.nn.models.jumping_knowledge import JumpingKnowledge

    return JumpingKnowledge("lstm", 16, 3)


def recbole(name: str, settings: dict[str, Any]) -> nn.Module:
    import importlib

    module = importlib.import_module(f"recbole.model.sequential_recommender.{name.lower()}")

    class Data:
        def num(self, _: str) -> int:
            return 30

    shared = {
        "USER_ID_FIELD": "user",
        "ITEM_ID_FIELD": "item",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "length",
        "NEG_PREFIX": "neg_",
        "MAX_ITEM_LIST_LENGTH": 50,
        "device": "cpu",
        "loss_type": "CE",
    }
    return getattr(module, name)({**shared, **settings}, Data())


OTHER = (
    Model(
        "EasyOCR recogniser", EASYOCR, easyocr_model, lambda b, t: (torch.rand(b, 1, 64, 8 * t), None), longer=1, gain=3
    ),
    Model("EasyOCR BidirectionalLSTM", EASYOCR, easyocr_lstm, lambda b, t: (torch.randn(b, t, 12),)),
    Model(
        "kraken TransposedSummarizingRNN",
        KRAKEN,
        lambda: kraken_rnn("b", False, False),
        lambda b, t: (torch.randn(b, 12, 1, t), unsorted_lengths(b, t)),
    ),
    Model(
        "kraken TransposedSummarizingRNN over columns",
        KRAKEN,
        lambda: kraken_rnn("f", True, True),
        lambda b, t: (torch.randn(b, 12, 5, t),),
    ),
    Model("SB3-Contrib RecurrentActorCriticPolicy", SB3, sb3_policy, sb3_inputs),
    Model(
        "PyTorch Geometric JumpingKnowledge",
        PYG,
        jumping_knowledge,
        lambda b, _: ([torch.randn(b, 16) for _ in range(3)],),
    ),
    Model(
        "RecBole GRU4Rec",
        RECBOLE,
        lambda: recbole("GRU4Rec", {"embedding_size": 12, "hidden_size": 16, "num_layers": 1, "dropout_prob": 0.1}),
        lambda b, t: (tokens(b, t, 30), lengths(b, t)),
    ),
    Model(
        "RecBole NARM",
        RECBOLE,
        lambda: recbole("NARM", {"embedding_size": 12, "hidden_size": 16, "n_layers": 1, "dropout_probs": [0.1, 0.1]}),
        lambda b, t: (tokens(b, t, 30), lengths(b, t)),
    ),
)
