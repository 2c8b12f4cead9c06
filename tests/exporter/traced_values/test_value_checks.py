"""Checks of numbers that only raise an error are passed, with a note; whatever else goes by numbers is refused."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributions as D  # noqa: N812  # as models are written
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.functional.functional_module import call_forward
from lstm_onnx.exporter.traced_values.value_checks import find_check
from tests.exporter.helpers import X_LENGTHS, X, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(9)

asked: list[bool | None] = []


class Value:
    """Its truth value is what a check passes with; True where nothing checks it."""

    def any(self) -> Value:
        return Value()

    def __bool__(self) -> bool:
        check = find_check(sys._getframe(1))
        asked.append(None if check is None else check.passed)
        return True if check is None else check.passed


CHECKS: list[tuple[Callable[..., Any], list[bool | None]]] = []


def asks(*wanted: bool | None) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        CHECKS.append((function, list(wanted)))
        return function

    return add


@asks(True)
def asserted(a: Any, b: Any) -> None:
    assert a.any(), "message"


@asks(False)
def not_asserted(a: Any, b: Any) -> None:
    assert not a.any()


@asks(True, False)
def both_asserted(a: Any, b: Any) -> None:
    assert a.any() and not b.any()  # noqa: PT018


@asks(False, True)
def neither_asserted(a: Any, b: Any) -> None:
    assert not (a or not b)  # noqa: PT018


@asks(False)
def as_bool(a: Any, b: Any) -> None:
    assert not bool(a)


@asks(False)
def negated_value(a: Any, b: Any) -> None:
    assert bool(not a)


@asks(True, False)
def either_raises(a: Any, b: Any) -> None:
    if not a.any() or b.any():
        raise KeyError


@asks(True)
def otherwise_raises(a: Any, b: Any) -> None:
    if a:
        asked.extend([])
    else:
        raise KeyError


@asks(False)
def last_of_three(a: Any, b: Any) -> None:
    if len(asked) > 5:
        asked.clear()
    elif a and b:
        raise KeyError
    else:
        asked.extend([])


@asks(False)
def within_a_manager(a: Any, b: Any) -> None:
    with torch.no_grad():
        if a:
            raise KeyError


@asks(False)
def raised_as_another(a: Any, b: Any) -> None:
    try:
        if a:
            raise KeyError  # noqa: TRY301
    except KeyError:
        raise ValueError from None


@asks(False)
def over_several_lines(a: Any, b: Any) -> None:
    if (
        a.any()
        and not b.any()
    ):  # fmt: skip
        message = "of two lines"
        raise KeyError(
            message,
        )


@asks(True, True)
def all_of_them(a: Any, b: Any) -> None:
    assert all([a, b])


@asks(None)
def a_value(a: Any, b: Any) -> None:
    asked.extend([not a][:0])  # type: ignore[list-item]


@asks(None)
def caught(a: Any, b: Any) -> None:
    try:
        if a:
            raise KeyError  # noqa: TRY301
    except KeyError:
        asked.extend([])


@asks(None)
def suppressed(a: Any, b: Any) -> None:
    with contextlib.suppress(KeyError):
        if a:
            raise KeyError


@asks(None)
def returning(a: Any, b: Any) -> None:
    if a:
        return
    raise KeyError


@asks(None)
def left_by_finally(a: Any, b: Any) -> Any:
    for _ in range(1):
        try:
            if a:
                raise KeyError
        finally:
            break  # noqa: B012


@asks(None)
def looped(a: Any, b: Any) -> None:
    while a:
        break


@asks(None)
def chosen(a: Any, b: Any) -> None:
    assert 1 if a else 2


@asks(None)
def in_a_function(a: Any, b: Any) -> None:
    def holds() -> bool:
        return bool(a)

    assert holds()


@asks(None)
def caught_by_the_caller(a: Any, b: Any) -> None:
    with contextlib.suppress(AssertionError):
        asserted(a, b)


@pytest.mark.parametrize(("function", "wanted"), CHECKS, ids=[function.__name__ for function, _ in CHECKS])
def test_a_check_is_what_only_raises(function: Any, wanted: list[bool | None]) -> None:
    asked.clear()
    with contextlib.suppress(ExportError):
        call_forward(lambda: function(Value(), Value()))
    assert asked == wanted


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.scale = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, 1.5]))


Forward = Callable[..., Any]
DROPPED: list[Forward] = []


def dropped(forward: Forward) -> Forward:
    DROPPED.append(forward)
    return forward


@dropped
def with_assert(self: Base, x: Tensor) -> Tensor:
    y, (h, _) = self.lstm(x)
    assert (y[:, -1] == h[0]).all()  # here
    return y


@dropped
def with_not(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    assert not torch.isnan(y).any(), f"not numbers: {y}"  # here
    return y


@dropped
def with_if(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    if torch.isnan(y).any() or torch.isinf(y).any():  # here
        raise ValueError("not numbers")
    return y


@dropped
def with_item(self: Base, x: Tensor) -> Tensor:
    if x.abs().max().item() > 1e6:  # here
        raise ValueError("too large")
    return self.lstm(x)[0]


@dropped
def with_torch_assert(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    torch._assert((y.abs() <= 1).all(), "too large")  # here
    return y


@dropped
def with_allclose(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    assert torch.allclose(y, y * 1)  # here
    return y


@dropped
def with_a_distribution(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    normal = D.Normal(y, self.scale.exp())  # here
    return normal.mean


@pytest.fixture(autouse=True)
def validating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions check their arguments: torch.compile turns that off for the whole process."""
    monkeypatch.setattr(D.Distribution, "_validate_args", True)


@pytest.mark.parametrize("forward", DROPPED)
def test_a_check_is_dropped_with_a_note_of_its_line(forward: Any, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    result = right(module, signal, X, tmp_path)
    first = forward.__code__.co_firstlineno
    lines = Path(__file__).read_text().splitlines()
    number = next(number for number in range(first, len(lines)) if lines[number - 1].endswith("# here"))
    (note,) = [note for note in result.exported.notes if "does not check this" in note]
    assert note.startswith(f"test_value_checks.py:{number}: {lines[number - 1].strip().rstrip(':')}")
    assert {node.op_type for node in result.proto.graph.node} <= {"LSTM", "Transpose", "Reshape", "Squeeze", "Identity"}


def test_checks_of_lengths(tmp_path: Path) -> None:
    class Checking(Base):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            assert lengths.max() <= x.size(1)
            assert int(lengths.max()) <= x.size(1), "longer than the input"
            assert all(length > 0 for length in lengths)
            torch._check(x.size(1) > 0)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.lstm(packed)[1][0][0]

    result = right(Checking(), with_lengths, X_LENGTHS, tmp_path)
    assert sum("does not check this" in note for note in result.exported.notes) == 3


DISTRIBUTIONS: dict[str, Callable[[Base, Tensor], Any]] = {
    "normal": lambda m, y: [(d := D.Normal(y, m.scale)).log_prob(y * 2), d.entropy()],
    "categorical": lambda _, y: [(d := D.Categorical(logits=y)).log_prob(y.argmax(-1)), d.entropy(), d.probs],
    "categorical of probabilities": lambda _, y: D.Categorical(y.softmax(-1)).logits,
    "bernoulli": lambda _, y: D.Bernoulli(logits=y).log_prob((y > 0).float()),
    "independent": lambda _, y: D.Independent(D.Normal(y, F.softplus(y)), 1).log_prob(y),
    "squashed": lambda m, y: D.TransformedDistribution(D.Normal(y, m.scale), [D.TanhTransform()]).log_prob(y.tanh()),
    "divergence": lambda m, y: D.kl_divergence(D.Normal(y, m.scale), D.Normal(y * 0, m.scale * 2)),
}


@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_distributions_validate_nothing_while_they_are_traced(case: str, tmp_path: Path) -> None:
    class Policy(Base):
        def forward(self, x: Tensor) -> Any:
            return DISTRIBUTIONS[case](self, self.lstm(x)[0])

    validates = D.Distribution._validate_args
    result = right(Policy(), signal, X, tmp_path, tolerance=1e-4)
    assert any("does not check this" in note for note in result.exported.notes)
    assert D.Distribution._validate_args == validates


REFUSED: list[Forward] = []


def refused(forward: Forward) -> Forward:
    REFUSED.append(forward)
    return forward


@refused
def remembering(self: Base, x: Tensor) -> Any:
    y, found = self.lstm(x)[0], []
    if torch.isnan(y).any():  # here
        found.append(y)
    return y, found


@refused
def caught_again(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    try:
        if (y > 0).any():  # here
            raise ValueError("positive")  # noqa: TRY301
    except ValueError:
        y = y * 2
    return y


@refused
def early_return(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    if (y > 0).any():  # here
        return y * 2
    raise ValueError("negative")


@pytest.mark.parametrize("forward", REFUSED)
def test_what_does_more_than_raise_is_refused(forward: Any, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    known = r"# here: the code depends on the numbers in a tensor \(an if on a value|gives a list of a different length"
    with pytest.raises(ExportError, match=known):
        made(module, signal(2, 4), X, tmp_path)


def test_a_checking_module_verifies(tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": with_not})()
    made(module, signal(2, 4), X, tmp_path)
    assert lstm_onnx.verify(module, tmp_path / "made.onnx", mutants="none")
