"""Counters that a forward keeps outside of the module, in all the places that Python has, and clocks and files."""

from __future__ import annotations

import contextvars
import datetime as dt
import enum
import itertools
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.copies.code_names import CodeNames
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.functional.outside_reads import later

from . import counted_elsewhere

_MOST = 150
_START = time.time()
_TODAY = dt.date.today()
COUNT: contextvars.ContextVar[int] = contextvars.ContextVar("COUNT", default=0)
CALLS: contextvars.ContextVar[list[int]] = contextvars.ContextVar("CALLS")
CALLS.set([])
TENSOR: contextvars.ContextVar[Tensor] = contextvars.ContextVar("TENSOR")
TENSOR.set(torch.zeros(1))
LOG: Any = logging.getLogger(__name__)
WEAK: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class Mode(enum.Enum):
    EVAL = 1


class Warm(nn.Module):
    """Another output after so many calls."""

    def __init__(self, step: Callable[[Any], float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.mode, self.text = nn.LSTM(3, 4), Mode.EVAL, "0"
        self.take, self.path = itertools.count().__next__, ""
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y * 2 if self.step(self) > _MOST else y


def functional(module: nn.Module) -> None:
    example = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
    make_functional(module.eval(), bind_arguments(module, (example,), None))


def in_context(_: Warm) -> int:
    COUNT.set(COUNT.get() + 1)
    return COUNT.get()


def in_a_list_of_the_context(_: Warm) -> int:
    CALLS.get().append(1)
    return len(CALLS.get())


def in_environ(_: Warm) -> int:
    os.environ["COUNTED_CALLS"] = str(int(os.environ.get("COUNTED_CALLS", "0")) + 1)
    return int(os.environ["COUNTED_CALLS"])


def in_a_member(_: Warm) -> int:
    Mode.EVAL.calls = getattr(Mode.EVAL, "calls", 0) + 1  # type: ignore[attr-defined]
    return Mode.EVAL.calls  # type: ignore[attr-defined, no-any-return]


def in_a_held_member(self: Warm) -> int:
    mode: Any = self.mode
    mode.held = getattr(mode, "held", 0) + 1
    return int(mode.held)


def in_a_logger(_: Warm) -> int:
    LOG.calls = getattr(LOG, "calls", 0) + 1
    return int(LOG.calls)


def in_a_library(_: Warm) -> int:
    sys.counted = getattr(sys, "counted", 0) + 1  # type: ignore[attr-defined]
    return sys.counted  # type: ignore[attr-defined, no-any-return]


def in_a_class_of_torch(_: Warm) -> int:
    nn.LSTM.counted = getattr(nn.LSTM, "counted", 0) + 1  # type: ignore[assignment, operator]
    return nn.LSTM.counted  # type: ignore[return-value]


def in_text(self: Warm) -> int:
    self.text = str(int(self.text) + 1)
    return int(self.text)


def in_weak_keys(_: Warm) -> int:
    WEAK[nn.LSTM] = WEAK.get(nn.LSTM, 0) + 1
    return WEAK[nn.LSTM]


def by_a_method_of_an_iterator(self: Warm) -> int:
    return self.take()


def in_another_file(_: Warm) -> int:
    return counted_elsewhere.tick()


def in_a_file_that_it_imports(_: Warm) -> int:
    from .counted_elsewhere import tick

    return tick()


def in_a_class_of_a_part_of_torch(_: Warm) -> int:
    torch.nn.modules.rnn.GRU.counted = getattr(torch.nn.modules.rnn.GRU, "counted", 0) + 1  # type: ignore[assignment, operator]
    return torch.nn.modules.rnn.GRU.counted  # type: ignore[return-value]


def in_a_dict_of_another_file(_: Warm) -> int:
    counted_elsewhere.calls["all"][0]["n"] += 1
    return counted_elsewhere.calls["all"][0]["n"]


def in_an_object_of_another_file(_: Warm) -> int:
    counted_elsewhere.counter.n += 1
    return counted_elsewhere.counter.n


def of_a_clock(_: Warm) -> float:
    return time.time() - _START - 3000 + _MOST


def of_the_date(_: Warm) -> int:
    return (dt.date.today() - _TODAY).days - 1000 + _MOST


def in_a_file(self: Warm) -> int:
    calls = int(Path(self.path).read_text()) + 1
    Path(self.path).write_text(str(calls))
    return calls


def in_a_long_file(self: Warm) -> int:
    with open(self.path, "a+", encoding="utf-8") as file:
        file.write(".")
        file.seek(0)
        return len(file.read())


_KEPT = (
    (in_context, "contextvars.COUNT"),
    (in_a_list_of_the_context, "a list outside"),
    (in_environ, "os.environ.COUNTED_CALLS"),
    (in_a_member, "Mode.calls"),
    (in_a_held_member, "Mode.held"),
    (in_a_logger, "Logger.calls"),
    (in_a_library, "sys.counted"),
    (in_a_class_of_torch, "LSTM.counted"),
    (in_text, "self.text"),
    (in_weak_keys, "a weak dictionary"),
    (by_a_method_of_an_iterator, "takes the next item of an iterator"),
    (in_another_file, "a list outside"),
    (in_a_file_that_it_imports, "a list outside"),
    (in_a_class_of_a_part_of_torch, "GRU.counted"),
    (in_a_dict_of_another_file, "a dict outside"),
    (in_an_object_of_another_file, "Counter.n"),
    (of_a_clock, "depends on the time"),
    (of_the_date, "depends on the time"),
    (in_a_file, "forward reads calls, which it writes for its next call"),
    (in_a_long_file, "forward reads calls, which it writes for its next call"),
)


@pytest.fixture
def module(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warm]:
    module = Warm(request.param)
    module.path = str(tmp_path / "calls")
    Path(module.path).write_text("0")
    yield module
    os.environ.pop("COUNTED_CALLS", None)


@pytest.mark.parametrize(
    ("module", "where"), _KEPT, indirect=["module"], ids=[getattr(step, "__name__", "") for step, _ in _KEPT]
)
def test_what_calls_leave_elsewhere_is_refused(module: Warm, where: str) -> None:
    with pytest.raises(ExportError, match=where):
        functional(module)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0] + TENSOR.get()
        TENSOR.set(y.mean())
        return y


def test_a_state_in_a_variable_of_the_context_is_refused() -> None:
    with pytest.raises(ExportError, match=r"contextvars\.TENSOR"):
        functional(Remembers())


def test_dates_that_are_made_while_clocks_are_shifted_are_usual_ones() -> None:
    with later(CodeNames(), 1.0):
        made = [dt.datetime(2020, 1, 1), dt.datetime.fromtimestamp(5), dt.datetime.fromisoformat("2020-01-01")]
        days = [dt.date(2020, 1, 1), dt.date.fromisoformat("2020-01-01"), dt.date.today()]
    assert {*map(type, made)} == {dt.datetime}
    assert {*map(type, days)} == {dt.date}


def quiet(self: Warm) -> int:
    """Leaves much that its outputs do not depend on."""
    in_context(self), in_environ(self), in_a_member(self), in_a_logger(self), counted_elsewhere.tick()
    LOG.debug("%s %s", time.time(), dt.datetime.now())
    with open(self.path, "a", encoding="utf-8") as log:
        log.write("called")
    return 0


def to_a_log(self: Warm) -> int:
    """Opens a file for more than it does with it."""
    with open(self.path, "a+", encoding="utf-8") as log:
        return log.write("called")


def through_a_file(self: Warm) -> int:
    """Reads what the same call has written."""
    with open(self.path, "w+", encoding="utf-8") as file:
        file.write("called")
    return len(Path(self.path).read_text())


@pytest.mark.parametrize("module", [to_a_log, through_a_file], indirect=True)
def test_a_file_of_which_no_call_reads_what_another_wrote_is_accepted(module: Warm) -> None:
    functional(module)


@pytest.mark.parametrize("module", [quiet], indirect=True)
def test_what_outputs_do_not_depend_on_is_kept_from_the_caller_and_accepted(module: Warm) -> None:
    before = COUNT.get(), LOG.__dict__.get("calls"), os.environ.get("COUNTED_CALLS"), counted_elsewhere.tick()
    functional(module)
    assert (COUNT.get(), LOG.__dict__.get("calls"), os.environ.get("COUNTED_CALLS")) == before[:3]
    assert counted_elsewhere.tick() == before[3] + 1
