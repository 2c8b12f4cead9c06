"""Names in exported modules: for people, the same each time, and without a trace of the machine."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import X_LENGTHS, Made, X, agree, eager, made, signal, with_lengths
from tests.exporter.opaque.test_packed_sequences import Direct

pytestmark = pytest.mark.sweep(3)


class Model(nn.Module):
    """Two LSTMs with weights alike, and a constant used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.twin = nn.LSTM(4, 4, batch_first=True)
        self.twin.load_state_dict(self.lstm.state_dict())
        self.out = nn.Linear(4, 4)
        self.out_twin = nn.Linear(4, 4)
        self.out_twin.load_state_dict(self.out.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        return self.out(self.lstm(x)[0]) + self.out_twin(self.twin(x)[0])


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(Model().eval(), signal(2, 4), X, tmp_path_factory.mktemp("named"))


def test_two_exports_are_the_same_bytes(result: Made, tmp_path: Path) -> None:
    again = made(Model().eval(), signal(2, 4), X, tmp_path)
    assert again.path.read_bytes() == result.path.read_bytes()


def test_a_constant_is_not_named_like_an_output_of_its_node(tmp_path: Path) -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.lstm(x)[0]
            return y.cumprod(1), torch.arange(5.0).topk(2)[0] + y.sum()

    module = Products().eval()
    agree(made(module, signal(2, 4), {}, tmp_path).run(signal(2, 4)), eager(module, signal(2, 4)))


def test_nothing_of_the_machine_is_in_the_file(result: Made) -> None:
    content = result.path.read_bytes()
    places = [Path.home(), Path.cwd(), Path(__file__).parent, Path(torch.__file__).parent, result.path.parent]
    for place in places:
        if place != Path("/"):
            assert str(place).encode() not in content
    for word in (b"site-packages", b".py", sys.executable.encode(), b"pkg.torch"):
        assert word not in content


def test_values_are_named_after_their_modules(result: Made) -> None:
    names = [node.name for node in result.proto.graph.node]
    assert {"lstm/l0/LSTM", "twin/l0/LSTM", "encoder/1/Relu", "out/MatMul", "out_twin/Add"} <= set(names)
    assert len(names) == len(set(names))
    initializers = {tensor.name for tensor in result.proto.graph.initializer}
    assert {"lstm/l0/W", "lstm/l0/R", "lstm/l0/B"} <= initializers


def test_axes_have_names_even_when_nobody_gave_any(tmp_path: Path) -> None:
    model = made(Model().eval(), signal(2, 4), None, tmp_path).model
    assert model.inputs["x"].shape == ("batch", "time", 3)
    assert model.outputs["output"].shape == ("batch", "time", 4)
    lengths = made(Direct().eval(), with_lengths(2, 4), None, tmp_path).model
    assert {name: info.shape for name, info in lengths.inputs.items()} == {
        "x": ("batch", "time", 3),
        "lengths": ("batch",),
    }
    assert lengths.outputs["output"].shape == ("batch", "longest", 4)


def test_the_users_axis_names_are_kept(tmp_path: Path) -> None:
    shapes = {"x": {0: "rows", 1: torch.export.Dim("steps")}, "lengths": {0: "rows"}}
    model = made(Direct().eval(), with_lengths(2, 4), shapes, tmp_path).model
    assert model.inputs["x"].shape == ("rows", "steps", 3)
    assert model.outputs["output"].shape == ("rows", "longest", 4)
    assert shapes != X_LENGTHS


class Clashing(nn.Module):
    """A parameter, a buffer and operators that are called as inputs and outputs are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x = nn.Parameter(torch.randn(3))
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.register_buffer("table", torch.randn(4))

    def forward(self, x: Tensor) -> dict[str, Any]:
        out = self.lstm(x + self.x)[0]
        return {"table": out * self.table, "Add": out + 1, "buffer": self.table, "Mul": x}


def test_names_of_inputs_and_outputs_come_before_all_others(tmp_path: Path) -> None:
    module = Clashing().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    onnx.checker.check_model(result.proto, full_check=True)
    assert list(result.exported.outputs) == ["table", "Add", "buffer", "Mul"]
    agree(result.run(signal(3, 5)), eager(module, signal(3, 5)))
