"""Rows that a table does not have are refused as in PyTorch, by everything that runs an exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everywhere

import lstm_onnx
from lstm_onnx import Batcher, InputError
from lstm_onnx.exporter.tracing.table_rows import table_rows
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.device import run_on_device

ROWS, KINDS = 10, 5
Feeds = dict[str, np.ndarray]


class Looked(nn.Module):
    """Tokens and a kind in tables; shifted tokens in another; `picked` where a negative index counts from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.kinds = nn.Embedding(ROWS, 4), nn.Embedding(KINDS, 4)
        self.shifted = nn.Embedding(3, 4)
        self.weights = nn.Parameter(torch.randn(6, 4))
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, tokens: Tensor, kind: Tensor, moved: Tensor, picked: Tensor, flag: Tensor) -> Tensor:
        x = self.tokens(tokens.long()) + self.kinds(kind.view(-1, 1)) + self.shifted(moved + 1)[:, None]
        x = x + self.weights[picked][:, None] + F.one_hot(flag, 4)[:, None]
        y: Tensor = self.lstm(x)[0]
        return y


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("rows") / "m.onnx"
    example = (torch.randint(0, ROWS, (2, 7), dtype=torch.int32), *(torch.tensor([0, 1]) for _ in range(4)))
    shapes = {name: {0: "batch"} for name in ("kind", "moved", "picked", "flag")} | {"tokens": {0: "batch", 1: "time"}}
    lstm_onnx.export(Looked().eval(), path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    with lstm_onnx.load(path, provider="cpu") as opened:
        yield opened


def feeds(**changed: object) -> Feeds:
    given: Feeds = {name: np.array([1]) for name in ("kind", "moved", "picked", "flag")}
    return {"tokens": np.array([[1, 2, ROWS - 1]], np.int32), **given, **changed}  # type: ignore[dict-item]


def test_what_is_looked_up_as_it_is(model: Model) -> None:
    assert model.metadata.table_rows == {"tokens": ROWS, "kind": KINDS, "flag": 4}
    assert model.run(feeds(picked=np.array([-1]), moved=np.array([-1])))["output"].shape == (1, 3, 3)


def stepped(model: Model, given: Feeds) -> None:
    stream = model.stream()
    for _ in range(3):
        stream.run(feeds())  # the last ones are bound
    stream.run(given)


def pooled(model: Model, given: Feeds) -> None:
    pool = model.pool(2)
    slot = pool.open()
    for _ in range(3):
        pool.step([slot], feeds())
    before = pool.state(slot)
    try:
        pool.step([slot], given)
    finally:
        assert all(np.array_equal(before[name], state) for name, state in pool.state(slot).items())


def batched(model: Model, given: Feeds) -> None:
    with Batcher(model) as batcher:
        stream, other = batcher.open(), batcher.open()
        stream.step(feeds())
        pending = other.submit(feeds())
        try:
            stream.step(given)
        finally:
            assert pending.result()["output"].shape == (1, 3, 3)


def on_device(model: Model, given: Feeds) -> None:
    run_on_device(model, {name: torch.from_numpy(array) for name, array in given.items()}, device="cpu")


def mapped(model: Model, given: Feeds) -> None:
    list(model.map([{name: array[0] for name, array in given.items()}]))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("run", [lambda model, given: model.run(given), stepped, pooled, batched, on_device, mapped])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (feeds(tokens=np.array([[1, -1, 3]], np.int32)), r"tokens\[.*1\] is -1; it must be from 0 to 9"),
        (feeds(tokens=np.array([[ROWS]], np.int32)), r"tokens\[.*0\] is 10; .* a table of 10 rows"),
        (feeds(kind=np.array([-1])), "is -1; it must be from 0 to 4"),
        (feeds(flag=np.array([4])), "is 4; it must be from 0 to 3"),
    ],
)
def test_rows_that_a_table_does_not_have(
    model: Model, run: Callable[[Model, Feeds], object], given: Feeds, message: str
) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        Looked()(*(torch.from_numpy(array) for array in given.values()))
    with pytest.raises(InputError, match=message):
        run(model, given)


TABLE = torch.randn(ROWS, 4)
ALL_LOOKED_UP: dict[str, Callable[[Tensor], Tensor]] = {
    "after a start token": lambda t: F.embedding(torch.cat([torch.zeros_like(t[:, :1]), t], 1), TABLE),
    "reversed": lambda t: F.embedding(t.flip(1), TABLE),
    "rolled": lambda t: F.embedding(t.roll(1, 1), TABLE),
    "repeated": lambda t: F.embedding(t.repeat(1, 2), TABLE),
    "stacked": lambda t: F.embedding(torch.stack([t, t.flip(1)]), TABLE),
    "padded": lambda t: F.embedding(F.pad(t, (1, 0)), TABLE),
    "gathered": lambda t: TABLE[:, 0].expand(t.shape[0], ROWS).gather(1, t),
    "scattered": lambda t: torch.zeros(t.shape[0], ROWS).scatter_(1, t, 1.0),
    "counted": lambda t: torch.zeros(ROWS).index_add(0, t.flatten(), torch.ones(t.numel())),
}
NOT_ALL_LOOKED_UP: dict[str, Callable[[Tensor], Tensor]] = {
    "without the last": lambda t: F.embedding(t[:, :-1], TABLE),
    "cut by a negative pad": lambda t: F.embedding(F.pad(t, (0, -1)), TABLE),
    "filled where negative": lambda t: F.embedding(t.masked_fill(t < 0, 0), TABLE),
    "counted from the end": lambda t: TABLE[torch.cat([t, t])],
}


class Looks(nn.Module):
    def __init__(self, look_up: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.look_up = look_up

    def forward(self, tokens: Tensor) -> Tensor:
        return self.look_up(tokens)


@pytest.mark.parametrize("look_up", ALL_LOOKED_UP.values(), ids=ALL_LOOKED_UP)
def test_rearranged_rows_are_looked_up_all_the_same(look_up: Callable[[Tensor], Tensor]) -> None:
    assert rows_of(look_up) == {"tokens": ROWS}
    with pytest.raises((IndexError, RuntimeError)):
        look_up(torch.tensor([[1, -1]]))


@pytest.mark.parametrize("look_up", NOT_ALL_LOOKED_UP.values(), ids=NOT_ALL_LOOKED_UP)
def test_an_input_of_which_some_are_looked_up_may_have_others(look_up: Callable[[Tensor], Tensor]) -> None:
    assert rows_of(look_up) == {}
    look_up(torch.tensor([[1, -1]]))


def rows_of(look_up: Callable[[Tensor], Tensor]) -> dict[str, int]:
    program = torch.export.export(Looks(look_up), (torch.tensor([[1, 2], [3, 4]]),), strict=False)
    return table_rows(program, ["tokens"])


def test_a_number_without_axes_is_looked_up_at_0() -> None:
    class Scalar(nn.Module):
        def forward(self, x: Tensor, place: Tensor) -> Tensor:
            return x.sum().gather(0, place)

    program = torch.export.export(Scalar(), (torch.ones(2), torch.tensor(0)))
    assert table_rows(program, ["x", "place"]) == {"place": 1}
