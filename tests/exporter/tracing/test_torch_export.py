"""What the tracer cannot follow is told with the line of the user's code and what to write instead."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import io
import logging
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.attribute_states import initial_tensors
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.tracing import torch_export as trace
from lstm_onnx.exporter.tracing import torch_logs as remarks
from lstm_onnx.exporter.tracing.size_decisions import changes
from tests.exporter.helpers import X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(12)


class Held:
    """No nn.Module."""

    def __init__(self) -> None:
        self.lstm = nn.LSTM(4, 4, batch_first=True)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.position = nn.Parameter(torch.randn(4, 4))
        self.held = Held()


class CellBase(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)


Forward = Callable[[Any, Tensor], Any]
REFUSED: list[tuple[type[nn.Module], Forward, str]] = []


def refused(problem: str, base: type[nn.Module] = Base) -> Callable[[Forward], Forward]:
    def add(forward: Forward) -> Forward:
        REFUSED.append((base, forward, problem))
        return forward

    return add


NUMBERS = "the code depends on the numbers in a tensor (an if on a value"
SHORTER = (
    "a Python loop over a dynamic axis cannot be exported as a loop: it makes a step for several entries of time; "
)
FIXED_TIME = "time of x (always 4) would be fixed: the module's code turns the size into a constant"


@refused(NUMBERS)
def while_on_a_value(self: Base, x: Tensor) -> Tensor:
    while x.sum() > 0:  # here
        x = x - 1
    return self.lstm(x)[0]


@refused(NUMBERS)
def integer_as_a_size(self: Base, x: Tensor) -> Tensor:
    count = int(x.abs().sum())  # here
    return self.lstm(x[:, :count])[0]


@refused(SHORTER, CellBase)
def loop_over_cells(self: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(x.size(0), 4)
    out = []
    for step in range(0, x.size(1), 2):
        h, c = self.cell(x[:, step], (h, c))  # here
        out.append(h)
    return torch.stack(out, 1)


@refused(SHORTER, CellBase)
def loop_over_parts(self: Any, x: Tensor) -> Tensor:
    state = None
    for step in x.unbind(1)[::2]:
        state = self.cell(step, state)  # here
    assert state is not None
    return state[0]


@refused(SHORTER)
def loop_over_time(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    total = torch.zeros(x.size(0), 4)
    for step in range(0, x.size(1), 2):
        total = total + out[:, step]  # here
    return total


@refused("at batch 2, time 4, so it was not kept; at test_torch_export.py:")
def if_on_a_size(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    if x.size(1) == 4:  # here
        out = out * 2
    return out


@refused("batch of x (always 2) would be fixed")
def number_in_view(self: Base, x: Tensor) -> Tensor:
    return self.lstm(x)[0].reshape(2, -1, 4)  # here


@refused(FIXED_TIME)
def parameter_of_that_size(self: Base, x: Tensor) -> Tensor:
    return self.lstm(x)[0] + self.position  # here


@refused("lstm is called, but not by a submodule of the module; assign the nn.LSTM (GRU, RNN, cell) to an attribute")
def torch_lstm(self: Base, x: Tensor) -> Tensor:
    h = torch.zeros(1, x.size(0), 4)
    weights = [parameter.detach() for parameter in self.lstm.parameters()]
    return self.lstm(x)[0] + torch.lstm(x, (h, h), weights, True, 1, 0.0, False, False, True)[0]  # here


@refused("lstm is called, but not by a submodule")
def lstm_in_a_plain_object(self: Base, x: Tensor) -> Tensor:
    return self.held.lstm(self.lstm(x)[0])[0]  # here


@refused("numpy computes outside of the graph")
def numpy_inside(self: Base, x: Tensor) -> Tensor:
    return self.lstm(x)[0] * torch.from_numpy(np.tanh(x.numpy()))[:, :, :1]  # here


@refused("a recurrent module is called within torch.cond or another such operator at ")
def within_a_branch(self: Base, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda v: self.lstm(v)[0], lambda v: self.lstm(-v)[0], (x,))  # here


@refused("the module's forward fails at ")
def error_of_its_own(self: Base, x: Tensor) -> Tensor:
    raise KeyError("mine")  # here


@refused("RuntimeError: ")
def wrong_features(self: Base, x: Tensor) -> Tensor:
    return self.lstm(x[..., :2])[0]  # here


@refused("aten.pad of complex numbers has no translation to ONNX; use it on their real and imaginary parts")
def pad_of_complex_numbers(self: Base, x: Tensor) -> Tensor:
    numbers = torch.view_as_complex(self.lstm(x)[0].unflatten(2, (2, 2)))
    return torch.view_as_real(torch.nn.functional.pad(numbers, (0, 0, 2, 0)))


@refused("aten._linalg_svd has no translation to ONNX in this version of torch; use other operations")
def no_translation(self: Base, x: Tensor) -> Tensor:
    return torch.linalg.svd(self.lstm(x)[0])[1]


@refused(NUMBERS)
def numbers_compared(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out if torch.allclose(out, x[..., :1]) else -out  # here


@refused("a tensor is computed where the tracer cannot see it, such as in another thread")
def another_thread(self: Base, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    out = self.lstm(x)[0]
    thread = threading.Thread(target=lambda: found.append(out * 2))
    thread.start()
    thread.join()
    return found[0]


@refused("no output of the module depends on its recurrent modules")
def unused(self: Base, x: Tensor) -> Tensor:
    self.lstm(x)
    return x * 2


@pytest.mark.parametrize(("base", "forward", "problem"), REFUSED, ids=[forward.__name__ for _, forward, _ in REFUSED])
def test_a_refusal_names_the_line_and_the_remedy(
    base: type[nn.Module], forward: Any, problem: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = type("Module", (base,), {"forward": forward})()
    with pytest.raises(ExportError) as caught:
        made(module, signal(2, 4), X, tmp_path)
    message = str(caught.value)
    assert problem in message
    assert "\n" not in message
    if forward not in (another_thread, no_translation, pad_of_complex_numbers, unused):
        first = forward.__code__.co_firstlineno
        lines = Path(__file__).read_text().splitlines()
        number = next(number for number in range(first, len(lines)) if lines[number - 1].endswith("# here"))
        assert f"test_torch_export.py:{number}: {lines[number - 1].strip()}" in message
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_an_operator_without_a_translation_names_the_line(tmp_path: Path) -> None:
    class Decomposing(Base):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svd(self.lstm(x)[0])[1]

    with pytest.raises(ExportError, match=r"^at test_torch_export\.py:\d+: return torch\.linalg\.svd.*no translation"):
        made(Decomposing(), signal(2, 4), X, tmp_path)


def test_the_size_of_a_result_may_be_data(tmp_path: Path) -> None:
    class Selecting(Base):
        def forward(self, x: Tensor) -> Tensor:
            out = self.lstm(x)[0]
            return out[out > 0]

    module = Selecting().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    for size in ((1, 5), (3, 7)):
        agree(result.run(signal(*size)), eager(module, signal(*size)))
    assert result.model.outputs["output"].shape == ("count",)


def test_axes_are_named_within_nested_arguments(tmp_path: Path) -> None:
    class Nested(Base):
        def forward(self, batch: dict[str, Any], *, more: list[Tensor]) -> Tensor:
            return self.lstm(batch["x"])[0] * more[1].reshape(2, 1, 1)

    (x,) = signal(2, 4)
    shapes = {"batch": {"x": {0: "batch", 1: "time"}}, "more": [{0: "other"}, {0: "rows"}]}
    with pytest.raises(ExportError, match=r"rows of more.1 \(always 2\)"):
        made(Nested(), {"batch": {"x": x}, "more": [torch.ones(3), torch.ones(2)]}, shapes, tmp_path)
    shapes["more"] = None  # type: ignore[assignment]
    with pytest.raises(ExportError, match=r"batch of batch.x \(always 2\)"):
        made(Nested(), {"batch": {"x": x}, "more": [torch.ones(3), torch.ones(2)]}, shapes, tmp_path)


def test_axes_without_names_are_numbered(tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": parameter_of_that_size})()
    with pytest.raises(ExportError, match=r"axis 1 of x \(always 4\) would be fixed"):
        made(module, signal(2, 4), {"x": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}, tmp_path)
    module = type("Module", (Base,), {"forward": number_in_view})()
    with pytest.raises(ExportError, match=r"batch of x \(always 2\) would be fixed"):
        made(module, signal(2, 4), None, tmp_path)


def test_lines_are_those_of_the_users_code_and_not_of_the_caller(tmp_path: Path) -> None:
    # nn.Sequential is torch's: there is no line of the user's in its forward
    with pytest.raises(ExportError, match=r"the module's forward fails: RuntimeError: input.size"):
        made(nn.Sequential(nn.Linear(3, 5), nn.LSTM(4, 4)), signal(2, 4), {"input": {0: "batch"}}, tmp_path)


def test_torch_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Kept(Base):
        def __init__(self) -> None:
            super().__init__()
            self.state: Any = None

        def forward(self, x: Tensor) -> Tensor:
            out, self.state = self.lstm(x, self.state)
            first, _ = out.split([1, 3], dim=2)
            return first

    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        made(Kept(), signal(1, 4), {"x": {1: "time"}}, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not remarks


def test_other_threads_records_pass_and_ours_do_not() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        with remarks.record_guards():
            logger.warning("ours")
            foreign = logging.LogRecord(logger.name, logging.WARNING, "", 1, "theirs", None, None)
            foreign.thread = -1
            logger.handle(foreign)
            quiet = logging.LogRecord(logger.name, logging.INFO, "", 1, "too low", None, None)
            quiet.thread = -1
            logger.handle(quiet)
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "theirs\n"
    assert not logger.filters


def test_what_sizes_decided_is_told_with_its_line() -> None:
    class Long(Base):
        def forward(self, x: Tensor) -> Tensor:
            out = self.lstm(x)[0]
            if x.size(1) > 9 or x.size(0) < 2:  # here
                out = out * 2
            return F.avg_pool1d(out, 3, stride=1, padding=0).transpose(1, 2) if x.size(1) > 3 else out

    module = Long().eval()
    functional = make_functional(module, bind_arguments(module, signal(5, 6), X))
    traced = trace.trace(functional, functional.arguments.tensors, initial_tensors(functional.attribute_states), 18)
    own = {("x", 0): 5, ("x", 1): 6}
    decided = {
        size: decision.line
        for decision in traced.facts.decisions
        for size in changes(decision, ("x", 1), own)
        if decision.choice and not decision.holds({**own, ("x", 1): size})
    }
    assert set(decided) == {3, 10}
    assert str(decided[10]).endswith("if x.size(1) > 9 or x.size(0) < 2:  # here")
    below = [decision for decision in traced.facts.decisions if not decision.holds({**own, ("x", 1): 3})]
    assert any("if x.size(1) > 3 else out" in str(decision.line) for decision in below)
    assert traced.facts.texts == ()


def test_sizes_made_text_are_told_and_torch_is_as_it_was() -> None:
    def text(self: Any, x: Tensor) -> Tensor:
        words = f"{x.shape[0]} rows"
        return self.lstm(x)[0] + len(words) * 0

    before = torch.SymInt.__str__, torch.SymInt.__repr__
    module = type("Module", (Base,), {"forward": text})().eval()
    functional = make_functional(module, bind_arguments(module, signal(5, 6), X))
    traced = trace.trace(functional, functional.arguments.tensors, initial_tensors(functional.attribute_states), 18)
    assert [line.partition(": ")[2] for line in traced.facts.texts] == ['words = f"{x.shape[0]} rows"']
    assert (torch.SymInt.__str__, torch.SymInt.__repr__) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("\n first line \n second"), r"torch.onnx cannot translate the module: RuntimeError: first line"),
        (
            ModuleNotFoundError("No module named 'onnxscript._framework_apis'"),
            r"torch \S+ and onnxscript \S+ and onnx-ir \S+ do not work together: .*; pip install -U onnxscript onnx-ir",
        ),
        (AttributeError("module 'onnx_ir' has no attribute 'schemas'"), r"torch .* do not work together: .*; pip .*"),
    ],
)
def test_a_translation_that_fails_otherwise_is_an_error_in_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    module = type("Module", (Base,), {"forward": lambda self, x: self.lstm(x)[0]})()
    functional = make_functional(module, bind_arguments(module, signal(2, 4), X))
    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(lstm_onnx.LSTMOnnxError, match=f"^{message}$"):
        trace.trace(functional, functional.arguments.tensors, {}, 18)


def test_a_layer_of_tracing_leaves_no_mark_on_torch(tmp_path: Path) -> None:
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state()
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level, filters = logger.level, list(logger.filters)
    module = type("Module", (Base,), {"forward": while_on_a_value})()
    state = torch.get_rng_state()
    with pytest.raises(lstm_onnx.ExportError):
        made(module, signal(2, 4), X, tmp_path)
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before[:2]
    assert torch.equal(torch.get_rng_state(), state)
    assert (logger.level, logger.filters) == (level, filters)


def test_an_error_that_is_explained_has_no_traceback_of_torchs(tmp_path: Path) -> None:
    for forward in (while_on_a_value, if_on_a_size):
        module = type("Module", (Base,), {"forward": forward})()
        with pytest.raises(ExportError) as caught:
            made(module, signal(2, 4), X, tmp_path)
        shown = "".join(traceback.format_exception(caught.value))
        assert "During handling" not in shown
        assert "direct cause" not in shown
        assert str(caught.value) in shown
