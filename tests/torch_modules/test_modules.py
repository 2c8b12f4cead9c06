"""The file of a module becomes a module with its paths, numbers and gradients, which is exported to the same bytes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import lstm_onnx
from tests.parity.drawn_modules import drawn_module, example_of, made

EQUAL = (*range(1, 11), *range(12, 16), *range(17, 28))
"""Numbers of drawn modules whose files hold all that their bytes depend on."""
pytestmark = [pytest.mark.sweep(6), pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:dropout option")]


class Tagger(nn.Module):
    """Lengths, a norm, a head that is called twice, and results by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.norm = nn.LayerNorm(4)
        self.lstm = nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))

    def forward(self, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.embedding(tokens))
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, (h, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True)
        scores = self.head(padded)
        return {"logits": torch.log_softmax(scores, -1), "last": self.head(torch.cat([h[-1], h[-2]], -1))}


class Stack(nn.Module):
    """A GRU and an RNN, one after the other, with explicit states."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"gru": nn.GRU(3, 5, 2), "rnn": nn.RNN(5, 4, nonlinearity="relu")})
        self.out = nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.encoder["gru"](x)
        y, _ = self.encoder["rnn"](y)
        return self.out(y), y


def seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


TOKENS, LENGTHS = torch.arange(14).reshape(2, 7) % 11, torch.tensor([7, 4])
STEPS = torch.linspace(-2, 2, 30).reshape(5, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modules")
    lstm_onnx.export(seeded(Tagger), path / "tagger.onnx", example_inputs=(TOKENS, LENGTHS))
    lstm_onnx.export(seeded(Stack), path / "stack.onnx", example_inputs=(STEPS,), states="explicit")
    return path


def test_paths_and_parameters_are_those_of_the_exported_module(folder: Path):
    module, original = lstm_onnx.to_torch(folder / "tagger.onnx"), seeded(Tagger)
    mine, theirs = module.state_dict(), original.state_dict()
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    kinds = {path: type(part) for path, part in module.named_modules()}
    assert (kinds["lstm"], kinds["head.3"], kinds["norm"]) == (nn.LSTM, nn.Linear, nn.LayerNorm)
    assert type(module).__name__ == "Tagger"


def test_results_and_gradients_are_the_original_ones_at_other_sizes(folder: Path):
    module, original = lstm_onnx.to_torch(folder / "tagger.onnx"), seeded(Tagger)
    tokens, lengths = torch.arange(27).reshape(3, 9) % 11, torch.tensor([2, 9, 5])
    for one in (module, original):
        results = one(tokens, lengths)
        (results["logits"].square().sum() + results["last"].sum()).backward()
    assert list(module(tokens, lengths)) == ["logits", "last"]
    for name, value in original(tokens, lengths).items():
        assert torch.allclose(module(tokens, lengths)[name], value, atol=1e-6)
    gradients = dict(module.named_parameters())
    for name, parameter in original.named_parameters():
        assert torch.allclose(gradients[name].grad, parameter.grad, rtol=1e-4, atol=1e-6), name


def test_the_same_bytes_again(folder: Path, tmp_path: Path):
    tagger, stack = (lstm_onnx.to_torch(folder / name) for name in ("tagger.onnx", "stack.onnx"))
    lstm_onnx.export(tagger, tmp_path / "tagger.onnx", example_inputs=(TOKENS, LENGTHS))
    lstm_onnx.export(stack, tmp_path / "stack.onnx", example_inputs=(STEPS,), states="explicit")
    for name in ("tagger.onnx", "stack.onnx"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_explicit_states_are_an_argument(folder: Path):
    module, original = lstm_onnx.to_torch(folder / "stack.onnx"), seeded(Stack)
    whole = module(STEPS)
    assert [type(module(STEPS)), len(whole)] == [tuple, 2]
    assert torch.allclose(whole[0], original(STEPS)[0], atol=1e-6)
    first, states = module(STEPS[:2], states={})
    assert {name: tuple(state.shape) for name, state in states.items()} == {
        "encoder.gru.h0": (2, 2, 5),
        "encoder.rnn.h0": (1, 2, 4),
    }
    second, _ = module(STEPS[2:], states)
    assert torch.allclose(torch.cat([first[0], second[0]]), whole[0], atol=1e-6)
    with pytest.raises(lstm_onnx.InputError, match=r"encoder\.h0 is not a state .* encoder\.gru\.h0, encoder\.rnn\.h0"):
        module(STEPS, states={"encoder.h0": states["encoder.gru.h0"]})


def test_a_module_can_be_copied_pickled_and_trained(folder: Path):
    module = lstm_onnx.to_torch(folder / "tagger.onnx")
    wanted = module(TOKENS, LENGTHS)["logits"]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301 - our own bytes
        assert torch.equal(other(TOKENS, LENGTHS)["logits"], wanted)
    optimizer = torch.optim.SGD(module.train().parameters(), 0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.nll_loss(
            module(TOKENS, LENGTHS)["logits"].flatten(0, 1), torch.zeros(14, dtype=torch.int64)
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_missing_argument_is_named(folder: Path):
    module = lstm_onnx.to_torch(folder / "tagger.onnx")
    with pytest.raises(TypeError, match="lengths"):
        module(TOKENS)


def same_bytes(number: int, folder: Path) -> bool:
    """Whether a drawn module's file gives its own bytes again; its module computes what the drawn one does."""
    drawn = drawn_module(number)
    module = made(drawn)
    inputs, shapes = example_of(drawn)
    lstm_onnx.export(module, folder / "first.onnx", example_inputs=inputs, dynamic_shapes=shapes)
    back = lstm_onnx.to_torch(folder / "first.onnx")
    near = 2e-2 if drawn.dtype == "float16" else 1e-5
    pairs = zip(pytree.tree_leaves(back(**inputs)), pytree.tree_leaves(module(**inputs)), strict=True)
    assert all(torch.allclose(mine, theirs, atol=near) for mine, theirs in pairs)
    lstm_onnx.export(back, folder / "second.onnx", example_inputs=inputs, dynamic_shapes=shapes)
    return (folder / "first.onnx").read_bytes() == (folder / "second.onnx").read_bytes()


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in EQUAL if n != 1)])
def test_drawn_modules_give_the_same_bytes(tmp_path: Path, number: int):
    assert same_bytes(number, tmp_path)


def test_a_module_that_is_a_gru(tmp_path: Path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gru: Any = nn.GRU(3, 4, batch_first=True).eval()
    x = torch.ones(2, 5, 3)
    lstm_onnx.export(gru, tmp_path / "first.onnx", example_inputs=(x,))
    back = lstm_onnx.to_torch(tmp_path / "first.onnx")
    assert type(back) is nn.GRU
    lstm_onnx.export(back, tmp_path / "second.onnx", example_inputs=(x,))
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
