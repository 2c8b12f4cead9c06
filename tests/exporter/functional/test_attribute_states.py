"""States in attributes: found, made inputs and outputs, and the same from call to call."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.attribute_states import (
    AttributeSnapshot,
    AttributeState,
)
from lstm_onnx.exporter.functional.make_functional import make_functional
from tests.exporter.helpers import X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(18)

TIME = {"x": {1: "time"}}


class Base(nn.Module):
    first = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=self.first)
        self.head = nn.Linear(4, 2)


class InTuple(Base):
    """Starts from numbers that are not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.full((1, 2, 4), 0.3), torch.full((1, 2, 4), -0.7)

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        return self.head(out)


class InList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [torch.zeros(1, 2, 4), torch.ones(1, 2, 4)]

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.lstm(x, tuple(self.hidden))
        self.hidden[0], self.hidden[1] = state
        return self.head(out)


class InOneTensor(Base):
    """h and c stacked in one tensor, time first."""

    first = False

    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.zeros(2, 1, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.lstm(x.transpose(0, 1), (self.memory[0], self.memory[1]))
        self.memory = torch.stack(state)
        return self.head(out).transpose(0, 1)


class AtFirstNone(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        return self.head(out)


class AtFirstNumbers(AtFirstNone):
    """And a vocabulary, which holds no state."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [0.0, 0.0]
        self.words = {str(number): number for number in range(9)}

    def forward(self, x: Tensor) -> Tensor:
        self.words["0"] = self.words.pop("0")  # of another order
        start = None if isinstance(self.hidden[0], float) else tuple(self.hidden)
        out, state = self.lstm(x, start)
        self.hidden = list(state)
        return self.head(out)


class Rebound(Base):
    h: Tensor
    c: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.full((1, 2, 4), 0.5))
        self.register_buffer("c", torch.zeros(1, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        out, (self.h, self.c) = self.lstm(x, (self.h, self.c))
        return self.head(out)


class InPlace(Rebound):
    """copy_, slice assignment and add_."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.lstm(x, (self.h.clone(), self.c.clone()))
        self.h.copy_(h)
        self.c[:] = c
        self.total.add_(h[0])  # type: ignore[operator]
        return self.head(out) + self.total[:, None, :2]  # type: ignore[index]


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(InTuple(), nn.Tanh(), nn.Linear(2, 3))
        self.last = AtFirstNone()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x))


class Remembering(InTuple):
    """Keeps what it never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Any = None
        self.attention = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.seen, self.attention = out, out.softmax(-1)
        return out


class FromTheSecondCall(Base):
    """A flag says that there is a state."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.begun = (torch.zeros(1), torch.zeros(1)), False

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden) if self.begun else self.lstm(x)
        self.begun = True
        return self.head(out)


PAIR = ["hidden.h0", "hidden.c0"]
CASES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "tuple": (InTuple, PAIR),
    "list": (InList, PAIR),
    "one tensor": (InOneTensor, ["memory.h0"]),
    "none at first": (AtFirstNone, PAIR),
    "numbers at first": (AtFirstNumbers, PAIR),
    "buffers rebound": (Rebound, ["h.h0", "c.h0"]),
    "buffers in place": (InPlace, ["h.h0", "c.h0", "total.h0"]),
    "nested": (Nested, ["inner.0.hidden.h0", "inner.0.hidden.c0", "last.hidden.h0", "last.hidden.c0"]),
    "never read": (Remembering, PAIR),
    "read from the second call on": (FromTheSecondCall, PAIR),
}


@pytest.mark.parametrize("case", CASES)
def test_calling_the_file_again_is_calling_the_module_again(case: str, tmp_path: Path) -> None:
    make, names = CASES[case]
    result = made(make().eval(), signal(2, 4), {"x": {0: "batch", 1: "time"}}, tmp_path)
    assert sorted(result.model.states) == sorted(names)
    assert all(after == f"{name[:-1]}n" for name, after in result.model.states.items())
    module = make().eval()
    metadata = result.model.metadata
    states = {
        name: np.ascontiguousarray(
            np.broadcast_to(
                metadata.initial.get(name, np.zeros((), np.float32)),
                [2 if isinstance(dim, str) else int(dim or 0) for dim in result.model.inputs[name].shape],
            )
        )
        for name in result.model.states
    }
    for time in (3, 1, 6):
        (x,) = signal(2, time)
        outputs = result.model.run({"x": x.numpy(), **states})
        states = {name: outputs.pop(after) for name, after in result.model.states.items()}
        agree(list(outputs.values()), eager(module, (x,)))


def test_where_a_state_starts_is_in_the_story(tmp_path: Path) -> None:
    metadata = made(InTuple().eval(), signal(2, 4), X, tmp_path).model.metadata
    assert {name: (array.shape, float(array.flat[0])) for name, array in metadata.initial.items()} == {
        "hidden.h0": ((1, 1, 4), pytest.approx(0.3)),
        "hidden.c0": ((1, 1, 4), pytest.approx(-0.7)),
    }


class Growing(Base):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out, (h, _) = self.lstm(x)
        self.seen.append(h)
        return out + torch.stack(self.seen).mean(0)[0, :, None]


class ManyCalls(Base):
    """Something happens after many calls alone."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x)
        self.seen.append(out)
        return out * 2 if len(self.seen) > 50 else out


class Counting(Base):
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.lstm(x)[0] * [1.0, 0.5][self.steps // 90]


class Episodes(Base):
    """Forgets its state after many calls: from zeros that changes nothing, and no output before the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.steps = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), 0

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        self.steps += 1
        if self.steps == 200:
            self.hidden, self.steps = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), 0
        return out


class Flipping(Base):
    """What its flag is after two calls, it was before them."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.flag = torch.zeros(1, 2, 4), False

    def forward(self, x: Tensor) -> Tensor:
        out, (self.hidden, _) = self.lstm(x, (self.hidden, torch.zeros(1, 2, 4)))
        self.flag = not self.flag
        return out if self.flag else -out


class EveryOther(Episodes):
    """Updates its state every other call."""

    def forward(self, x: Tensor) -> Tensor:
        out, hidden = self.lstm(x, self.hidden)
        if self.steps:
            self.hidden = hidden
        self.steps = not self.steps
        return out


class FromTheThirdCall(FromTheSecondCall):
    called = False

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.begun, self.called = self.called, True
        return out


class SetBackFirst(InTuple):
    started = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.started:
            self.hidden, self.started = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), True
        return super().forward(x)


class Memo(Base):
    """Gives what it gave for the first input of this size."""

    def __init__(self) -> None:
        super().__init__()
        self.memo: dict[Any, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in self.memo:
            self.memo[x.dim()] = self.lstm(x)[0]
        return self.memo[x.dim()]


class Random(Base):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.lstm(x)[0])


class Building(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Linear(4, 2)
        return self.late(self.lstm(x)[0])


class OtherThanZeros(AtFirstNone):
    """Nothing is not zeros."""

    def forward(self, x: Tensor) -> Tensor:
        first = self.hidden is None
        return super().forward(x) + (1 if first else 0)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Growing, "output depends on what earlier calls left in self.seen, which a file cannot remember; keep"),
        (ManyCalls, "output depends on what earlier calls left in self.seen, which a file cannot remember"),
        (Counting, "output depends on what earlier calls left in self.steps, which a file cannot remember"),
        (Episodes, r"hidden\.hn depends on what earlier calls left in self.steps, which a file cannot remember"),
        (Flipping, "output depends on what earlier calls left in self.flag, which a file cannot remember"),
        (EveryOther, "output depends on what earlier calls left in self.steps, which a file cannot remember"),
        (FromTheThirdCall, "output depends on what earlier calls left in self.called, self.begun, which a file cannot"),
        (SetBackFirst, "output depends on what earlier calls left in self.started, which a file cannot remember"),
        (Memo, "with zeros in self.memo the module gives a different output than at its first call"),
        (Random, r"dropout\(self.lstm\(x\)\[0\]\): draws random numbers in eval mode"),
        (Building, "the forward of Building creates submodules, with random weights; call it once before the export"),
        (OtherThanZeros, "with zeros in self.hidden the module gives a different output than at its first call, so"),
    ],
)
def test_what_a_file_cannot_remember_is_refused(make: type[nn.Module], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=problem):
        made(make(), signal(2, 4), X, tmp_path)


def test_slots_are_what_a_forward_changes() -> None:
    module = InPlace()
    first = AttributeSnapshot(module)
    assert first.changed(module) == ()
    module(*signal(2, 4))
    attribute_states = first.changed(module)
    assert [(attribute_state.where, attribute_state.key[2]) for attribute_state in attribute_states] == [
        ("self.h", True),
        ("self.c", True),
        ("self.total", True),
    ]
    assert attribute_states[0].initial is not None
    assert float(attribute_states[0].initial[0].mean()) == 0.5  # what it held before it was written into


def test_a_call_leaves_the_attributes_as_they_were() -> None:
    module = InList().eval()
    functional = make_functional(module, bind_arguments(module, signal(2, 4), TIME))
    held: Any = functional.stateful.inner
    before = held.hidden
    states = {name: torch.ones(1, 2, 4) for name in functional.states}
    outputs, after = functional.run(functional.arguments.tensors, states)
    assert held.hidden is before
    assert list(after) == ["hidden.hn", "hidden.cn"]
    assert list(outputs) == ["output"]
    assert isinstance(functional.attribute_states[0], AttributeState)


def test_a_container_that_holds_itself_is_not_a_state() -> None:
    module: Any = InTuple().eval()
    module.graph = {"nodes": []}
    module.graph["nodes"].append(module.graph)
    found = make_functional(module, bind_arguments(module, signal(2, 5), TIME))
    assert [state.where for state in found.attribute_states] == ["self.hidden"]
