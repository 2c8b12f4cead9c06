"""A copy of a module shares nothing that a forward could write into."""

from __future__ import annotations

import functools
import sys
import types
import warnings
import weakref
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.copies.clone import clone_module


class Pair(NamedTuple):
    h: Tensor
    c: Tensor


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(2, 2)
        self.tied = self.one
        self.other = nn.Linear(2, 2)
        self.other.weight = self.one.weight
        self.register_buffer("table", torch.arange(3.0))
        self.counts = torch.arange(3)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.state = Pair(torch.zeros(2), torch.ones(2))
        self.many: Any = {"a": [torch.zeros(1)], "b": deque([self.state[0]])}
        self.by_default: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.ordered = OrderedDict(x=torch.zeros(1))
        self.helper = functools.partial(self.scale, factor=torch.ones(1))
        self.method = self.scale
        self.plain = object()

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(x)).view(len(x), -1)  # type: ignore[no-any-return]


def test_everything_is_copied_and_ties_are_kept() -> None:
    module = Model().train()
    copy: Any = clone_module(module)
    assert type(copy) is Model
    assert not copy.training
    assert module.training
    assert copy.one is copy.tied
    assert copy.one is not module.one
    assert copy.one.weight is copy.other.weight
    assert copy.one.weight is not module.one.weight
    assert torch.equal(copy.one.weight, module.one.weight)
    assert copy.one.weight.data_ptr() != module.one.weight.data_ptr()
    assert copy.one.weight.requires_grad
    assert not copy.frozen.requires_grad
    assert isinstance(copy.state, Pair)
    assert copy.state.h is not module.state.h
    assert copy.many["b"][0] is copy.state.h
    assert isinstance(copy.by_default, defaultdict)
    assert copy.by_default["new"] == []
    assert isinstance(copy.ordered, OrderedDict)
    assert copy.method.__self__ is copy
    assert copy.helper.func.__self__ is copy
    assert copy.plain is module.plain
    copy.table.add_(1)
    copy.one.weight.data.mul_(2)
    assert module.get_buffer("table")[0] == 0
    x = torch.ones(3, 2)
    assert not torch.equal(copy(x), module(x))


def test_a_converted_copy_leaves_integers_alone() -> None:
    copy: Any = clone_module(Model(), torch.float64)
    assert copy.one.weight.dtype == copy.table.dtype == copy.state.c.dtype == torch.float64
    assert copy.counts.dtype == torch.int64
    assert copy.one.weight is copy.other.weight


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")), "1.weight is on the meta device, where"),
        (nn.Sequential(nn.LazyLinear(3)), "0.weight has no shape yet, since its module is lazy; call the module once"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_weights_without_values_are_refused(module: nn.Module, problem: str) -> None:
    with pytest.raises(ExportError, match=problem):
        clone_module(module)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_export_and_verify_refuse_a_lazy_module(tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.GRU(3, 4), nn.LazyLinear(3)).eval(), torch.randn(2, 5, 3)
    with pytest.raises(ExportError, match=r"1\.weight has no shape yet"):
        lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=(x,))
    lstm_onnx.export(nn.GRU(3, 4), tmp_path / "m.onnx", example_inputs=(x,))
    with pytest.raises(ExportError, match=r"1\.weight has no shape yet"):
        lstm_onnx.verify(module, tmp_path / "m.onnx")


class _Memory:
    """A user's own object, which is not a container that torch knows."""

    def __init__(self) -> None:
        self.h = torch.zeros(1, 2, 5)


class _Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.memory = _Memory()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.memory.h = self.gru(x, self.memory.h)
        return y


def test_an_object_with_states_is_as_it_was(tmp_path: Path) -> None:
    module = _Remembers()
    held = module.memory.h
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=torch.randn(2, 4, 3))
    assert module.memory.h is held
    assert not held.any()


@pytest.mark.sweep(2)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it loads its compiler
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrappers_are_taken_off(wrap: Any, tmp_path: Path) -> None:
    module = nn.Sequential(nn.LSTM(3, 5, batch_first=True))
    lstm_onnx.export(wrap(module), tmp_path / "m.onnx", example_inputs=torch.randn(2, 4, 3), check=False)
    assert lstm_onnx.verify(wrap(module), tmp_path / "m.onnx", provider="cpu", threads=1)


def test_a_script_module_is_refused_by_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(nn.LSTM(3, 5, batch_first=True), torch.jit.script(nn.Identity()))
    with pytest.raises(ExportError, match=r"^1 is TorchScript, which keeps the weights and no Python code"):
        lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=torch.randn(2, 4, 3))


class Unanswering:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


UNANSWERING = Unanswering()


class ReadsGlobal(nn.Module):
    def forward(self, x: int) -> int:
        return x if UNANSWERING is not None else 0


def test_global_variables_are_not_asked_for_attributes() -> None:
    assert clone_module(ReadsGlobal())(3) == 3


class PerModule:
    """A descriptor with a value for each module."""

    def __init__(self) -> None:
        self.values: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()

    def __get__(self, owner: Any, kind: Any = None) -> float:
        return self.values.get(owner, 1.0)

    def __set__(self, owner: Any, value: float) -> None:
        self.values[owner] = value


SCALES: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


class Described(nn.Module):
    scale = PerModule()

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Registered(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        SCALES[self] = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * SCALES.get(self, 1.0)


class Outer(Registered):
    def __init__(self, part: nn.Module) -> None:
        super().__init__(5.0)
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.part(x))


class Addressed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Identity()
        self.scales, self.doubled, self.main = {id(self.part): 3.0}, [id(self.part)], id(self)

    def forward(self, x: Tensor) -> Tensor:
        factor = 2 if id(self.part) in self.doubled else 1
        return x * self.scales.get(id(self.part), 1.0) * factor * (5 if self.main == id(self) else 1)


@pytest.mark.parametrize(
    "module",
    [Described(3.0), Outer(Registered(7.0)), Outer(Described(7.0)), Addressed()],
    ids=["descriptor", "global", "both", "id"],
)
def test_a_copy_finds_itself_where_the_module_was_registered(module: Any) -> None:
    assert torch.equal(clone_module(module)(torch.ones(1)), module(torch.ones(1)))
    assert torch.equal(clone_module(clone_module(module))(torch.ones(1)), module(torch.ones(1)))


class Store:
    scales: dict[Any, float] = {}  # noqa: RUF012


class Stored(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * Store.scales.get(self, 1.0)


@pytest.mark.parametrize("key", [lambda module: module, id])
def test_a_class_that_knows_the_module_is_refused(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Stored()
    clone_module(module)
    monkeypatch.setitem(Store.scales, key(module), 2.0)
    with pytest.raises(ExportError, match=r"^Store.scales has the module or a part of it as a key"):
        clone_module(module)


T = TypeVar("T")
MASKS: dict[int, Tensor] = {}


class Masks(Generic[T]):
    def mask(self, size: int) -> Tensor:
        return MASKS.setdefault(size, torch.ones(size))


class Masked(Masks[int], nn.Module):
    __slots__ = ("size",)

    def forward(self, x: Tensor) -> Tensor:
        self.size = len(x)
        return x * self.mask(self.size)


class Doubled(Masked):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def test_methods_that_super_calls_write_into_copies_as_well() -> None:
    copy = clone_module(Doubled())
    assert copy(torch.ones(3)).tolist() == [2, 2, 2]
    assert isinstance(copy, Doubled)
    assert MASKS == {}


class Compared(Masked):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if type(self) is Compared else 1)


def test_a_class_that_is_compared_is_refused_where_the_copy_has_another() -> None:
    with pytest.raises(ExportError, match=r"use isinstance\(\.\.\., Compared\)"):
        clone_module(Compared())


class InATable(Masked):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * FACTORS.get(self.__class__, 1)


FACTORS: dict[type, int] = {InATable: 2}


class InItsTable(Masked):
    factors: ClassVar[dict[type, int]] = {}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factors.get(type(self), 1)


InItsTable.factors[InItsTable] = 2


@pytest.mark.parametrize("kind", [InATable, InItsTable])
def test_a_class_that_is_looked_up_is_refused_where_the_copy_has_another(kind: type[nn.Module]) -> None:
    with pytest.raises(ExportError, match=rf"use isinstance\(\.\.\., {kind.__name__}\)"):
        clone_module(kind())


class Viewing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"drop": nn.Dropout()})
        self.views = self.parts.values(), types.MappingProxyType(self.parts._modules)
        self.counts = {"calls": 0}
        self.seen = self.counts.items()


def test_views_of_a_dict_show_its_copy() -> None:
    copy: Any = clone_module(Viewing())
    assert list(copy.views[0]) == [copy.views[1]["drop"]] == [copy.parts["drop"]]
    copy.counts["calls"] = 1
    assert list(copy.seen) == [("calls", 1)]


def test_objects_of_the_users_other_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = nn.Linear(2, 2)
    for folder, copied in (("src", True), ("site-packages", False)):
        name = f"helper_in_{folder.replace('-', '_')}"
        other: Any = types.ModuleType(name)
        other.__file__ = str(tmp_path / folder / f"{name}.py")
        exec("class Counter:\n    calls = 0", vars(other))  # noqa: S102
        monkeypatch.setitem(sys.modules, name, other)
        module.counter = other.Counter()
        copy: Any = clone_module(module)
        assert (copy.counter is not module.counter) == copied
