"""A module as a function: the same each time, at any size, in any precision."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.attribute_states import initial_tensors
from lstm_onnx.exporter.functional.call_with_states import call_with_states
from lstm_onnx.exporter.functional.functional_module import FixedSizeError, FunctionalModule, trace_sizes
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.functional.resized_example import resize_example
from lstm_onnx.metadata import Metadata, Origin
from tests.exporter.helpers import X, signal


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)


class Plain(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class MakesZeros(Base):
    """Makes tensors of the default dtype."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(1, x.size(0), 4)
        return self.lstm(x, (h, h))[0]


class Dropping(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.lstm(x)[0], 0.5)


class Noisy(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x + torch.randn_like(x))[0]


class Kept(Base):
    def __init__(self) -> None:
        super().__init__()
        self.state: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out, self.state = self.lstm(x, self.state)
        return out


def functional(module: nn.Module, batch: int = 2, time: int = 4, **options: Any) -> FunctionalModule:
    return make_functional(module, bind_arguments(module, signal(batch, time), X), **options)


LINES = {Dropping: r"F\.dropout\(self\.lstm\(x\)", Noisy: r"torch\.randn_like\(x\)"}


class Counting(nn.Module):
    """Counts in a global variable."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        COUNTS.append(1)
        return self.lstm(x)[0] * len(COUNTS)


COUNTS: list[int] = []


class Complex(Counting):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(self.lstm(x)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Counting, "output depends on what earlier calls left in a list outside of the module, which a file cannot"),
        (Complex, r"output is complex64, which a file's outputs cannot be; return torch\.view_as_real\(\.\.\.\)"),
    ],
)
def test_what_a_file_cannot_give_is_refused(make: type[nn.Module], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        functional(make().eval())


@pytest.mark.parametrize("make", LINES)
def test_random_numbers_are_refused(make: type[nn.Module]) -> None:
    with pytest.raises(
        ExportError, match=rf"^at test_functional_module\.py:\d+: .*{LINES[make]}.*: draws random numbers in eval mode"
    ):
        functional(make())


def test_a_converted_copy_makes_its_own_tensors_of_that_dtype() -> None:
    wide = functional(MakesZeros(), dtype=torch.float64)
    outputs, _ = wide.run(wide.arguments.tensors, {})
    assert outputs["output"].dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32
    assert wide.dtype == torch.float64


def test_an_axis_of_one_is_never_traced() -> None:
    first, second = trace_sizes(functional(Plain(), 1, 1))
    assert first == {"batch": 2, "time": 3}
    assert second == {"batch": 11, "time": 15}
    assert trace_sizes(functional(Plain(), 2, 4))[0] == {"batch": 2, "time": 4}


def test_axes_that_are_alike_are_traced_apart_in_the_end() -> None:
    assert trace_sizes(functional(Plain(), 4, 4)) == [
        {"batch": 4, "time": 4},
        {"batch": 19, "time": 19},
        {"batch": 19, "time": 20},
    ]


def test_states_grow_with_their_batch() -> None:
    found = functional(Kept(), 1, 4)
    assert {name: tuple(state.shape) for name, state in initial_tensors(found.attribute_states).items()} == {
        "state.h0": (1, 1, 4),
        "state.c0": (1, 1, 4),
    }
    inputs, states = resize_example(found, {"batch": 3, "time": 5})
    assert inputs["x"].shape == (3, 5, 3)
    assert states["state.h0"].shape == (1, 3, 4)


def test_sizes_at_which_the_module_fails_are_told() -> None:
    class Fixed(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0].reshape(2, 16)

    with pytest.raises(FixedSizeError, match=r"the module fails at batch 3, time 5, so nothing shows that these axes"):
        resize_example(functional(Fixed()), {"batch": 3, "time": 5})


def test_an_output_never_has_the_name_of_an_input() -> None:
    class Echo(Base):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": self.lstm(x)[0]}

    assert functional(Echo()).outputs == ("x.out",)
    assert functional(Echo(), output_names=("y",)).outputs == ("y",)


def test_explicit_states_take_the_place_of_those_that_the_code_passes() -> None:
    found = functional(Plain())
    metadata = Metadata(
        states={"lstm.h0": "lstm.hn", "lstm.c0": "lstm.cn"},
        origins={"lstm.h0": Origin("lstm", 0, 0, 0), "lstm.c0": Origin("lstm", 0, 0, 1)},
    )
    states = {"lstm.h0": torch.ones(1, 2, 4), "lstm.c0": torch.zeros(1, 2, 4)}
    results = call_with_states(found, metadata, found.arguments.tensors, states)
    module = Plain().eval()
    out, (h, c) = module.lstm(*signal(2, 4), (states["lstm.h0"], states["lstm.c0"]))
    assert torch.allclose(results["output"], out)
    assert torch.allclose(results["lstm.hn"], h)
    assert torch.allclose(results["lstm.cn"], c)
    assert not found.recurrent_modules["lstm"].override


def test_states_of_another_module_are_refused() -> None:
    found = functional(Plain())
    metadata = Metadata(states={"a.h0": "a.hn"}, origins={"a.h0": Origin("a", 0, 0, 0)})
    with pytest.raises(ExportError, match="the file has a state of a, which does not exist in the module"):
        call_with_states(found, metadata, found.arguments.tensors, {"a.h0": torch.ones(1)})
