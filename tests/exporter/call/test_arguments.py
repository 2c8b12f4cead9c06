"""What a forward is called with: names, constants, dynamic axes, and what does not fit."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lstm_onnx import ConfigError, ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments, draw_arguments
from lstm_onnx.exporter.call.metadata import call_to_json
from lstm_onnx.exporter.call.structure import constants
from lstm_onnx.exporter.functional.attribute_states import named_tensors
from lstm_onnx.input_spec import InputSpec

DYNAMIC, AUTO, STATIC = torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO, torch.export.Dim.STATIC
TOKENS, SIGNAL = torch.arange(12).reshape(3, 4), torch.zeros(3, 4, 2)


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Batch:
    """Registered in pytree without names of its items, as most classes are; `train` is none of them."""

    words: Tensor
    state: Any = None
    train: bool = False


class Both:
    """Registered, too; no attributes hold its items."""

    def __init__(self, *items: Any) -> None:
        self._items = items


pytree.register_pytree_node(
    Batch, lambda one: ([one.words, one.state], one.train), lambda items, train: Batch(*items, train)
)
pytree.register_pytree_node(Both, lambda one: (list(one._items), None), lambda items, _: Both(*items))


class Slotted:
    __slots__ = ("words",)

    def __init__(self, words: Tensor) -> None:
        self.words = words


class PartlySlotted(Slotted):
    """With attributes elsewhere, too."""

    def __init__(self, words: Tensor, signal: Tensor) -> None:
        super().__init__(words)
        self.signal = signal


class Takes(nn.Module):
    def forward(self, x: Any, y: Any = None, *, flag: bool = False) -> None: ...


class TakesMany(nn.Module):
    def forward(self, *xs: Tensor, **options: Any) -> None: ...


def test_names_follow_the_containers() -> None:
    found = bind_arguments(Takes(), ({"a": TOKENS, "b": [SIGNAL, 3]}, Pair(SIGNAL, (TOKENS,))), None)
    assert list(found.tensors) == ["x.a", "x.b.0", "y.a", "y.b.0"]
    assert [value for _, value in constants(found.call)][:1] == [3]
    args, kwargs = found.args_and_kwargs(dict.fromkeys(found.tensors, "t"))
    assert args == ({"a": "t", "b": ["t", 3]}, Pair("t", ("t",)))
    assert kwargs == {}


def test_names_in_classes_that_are_registered_without_keys() -> None:
    found = bind_arguments(Takes(), (Batch(TOKENS, [SIGNAL], train=True), Both(SIGNAL, TOKENS)), None)
    assert list(found.tensors) == ["x.words", "x.state.0", "y.0", "y.1"]
    args, _ = found.args_and_kwargs({name: tensor + 1 for name, tensor in found.tensors.items()})
    assert (args[0].train, args[1]._items[1].equal(TOKENS + 1)) == (True, True)
    result = Batch(TOKENS), [Both(SIGNAL, Pair(TOKENS, None))]
    names = ["output.0.words", "output.1.0.0", "output.1.0.1.a"]
    assert [name for name, _ in named_tensors(result)] == names


def test_names_in_objects_with_slots_and_attributes() -> None:
    found = bind_arguments(Takes(), PartlySlotted(TOKENS, SIGNAL), None)
    assert set(found.tensors) == {"x.words", "x.signal"}
    (one,), _ = found.args_and_kwargs({name: name for name in found.tensors})
    assert (type(one), one.words, one.signal) == (PartlySlotted, "x.words", "x.signal")


def test_what_a_registered_class_has_beside_its_items_is_not_left_out_of_the_metadata() -> None:
    for train in (False, True):
        call = bind_arguments(Takes(), (Batch(TOKENS, train=train),), None).call
        kept = "unknown" not in str(call_to_json(call))
        assert kept is not train


def test_positional_and_keyword_arguments_of_any_number() -> None:
    found = bind_arguments(TakesMany(), (TOKENS, SIGNAL), None)
    assert list(found.tensors) == ["xs.0", "xs.1"]
    found = bind_arguments(TakesMany(), {"mask": TOKENS, "k": 2}, None)
    assert found.args_and_kwargs({"mask": "m"}) == ((), {"mask": "m", "k": 2})


def test_a_dict_may_be_the_only_argument() -> None:
    class One(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> None: ...

    assert list(bind_arguments(One(), {"tokens": TOKENS}, None).tensors) == ["batch.tokens"]


@pytest.mark.parametrize(
    ("asked", "axes"),
    [
        ({"x": {0: "batch", 1: "time"}}, {0: "batch", 1: "time"}),
        ({"x": {-1: "time"}}, {1: "time"}),
        ({"x": ("batch", None)}, {0: "batch"}),
        ({"x": [4, torch.export.Dim("time")]}, {1: "time"}),
        ({"x": {0: DYNAMIC, 1: AUTO}}, {0: "x_0", 1: "x_1"}),
        ({"x": {0: STATIC, 1: 4}}, {}),
        ({"x": None}, {}),
        ({}, {}),
        (({0: "batch"},), {0: "batch"}),
        (None, {0: "x_0", 1: "x_1"}),
    ],
)
def test_every_way_to_open_axes(asked: Any, axes: dict[int, str]) -> None:
    assert bind_arguments(Takes(), (TOKENS,), asked).axes["x"] == axes


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({"x": {0: torch.export.Dim("batch"), 1: "time"}}, {}),
        ({"x": {0: torch.export.Dim("batch", min=2)}}, {"batch": (2, None)}),
        ({"x": {1: torch.export.Dim("time", max=9)}}, {"time": (1, 9)}),
        ({"x": [None, torch.export.Dim("time", min=3, max=9)]}, {"time": (3, 9)}),
        ({"x": {-1: DYNAMIC(min=2, max=9)}}, {"x_1": (2, 9)}),
        ({"x": {1: torch.export.Dim("time", max=2**31)}}, {}),
        ({"x": {0: torch.export.Dim("n", min=2)}, "y": {0: torch.export.Dim("n", max=9)}}, {"n": (2, 9)}),
        (None, {}),
    ],
)
def test_limits_are_those_of_the_dims(asked: Any, limits: dict[str, tuple[int, int | None]]) -> None:
    assert bind_arguments(Takes(), (TOKENS, TOKENS), asked).limits == limits


def test_limits_bound_sizes_and_fix_those_with_one_left() -> None:
    found = bind_arguments(Takes(), (TOKENS,), {"x": {0: "batch", 1: "time"}})
    batch, time = TOKENS.shape
    bounded = found.with_limits({"batch": (2, 9)})
    assert [bounded.within("batch", size) for size in (1, 5, 10)] == [2, 5, 9]
    assert bounded.within("time", 1000) == 1000
    assert bounded.with_limits({"batch": (1, 5)}).limits == {"batch": (2, 5)}
    fixed = found.with_limits({"time": (time, time), "batch": (1, None)})
    assert fixed.axes == {"x": {0: "batch"}}
    assert fixed.limits == {}
    with pytest.raises(ConfigError, match=f"the axis batch has size {batch} in the example, and must be 4 or more"):
        found.with_limits({"batch": (4, None)})


def test_what_is_open_when_nothing_is_said() -> None:
    found = bind_arguments(Takes(), (SIGNAL, torch.ones(3, dtype=torch.bool)), None)
    assert found.axes == {"x": {0: "x_0", 1: "x_1"}, "y": {0: "y_0"}}
    assert found.unnamed == {"x_0", "x_1", "y_0"}
    assert bind_arguments(Takes(), (torch.tensor(3.0), torch.ones(3)), None).axes == {"x": {}, "y": {0: "y_0"}}


def test_shapes_of_namedtuples_are_tuples_or_their_own_kind() -> None:
    for shapes in (({0: "batch"}, {1: "time"}), Pair({0: "batch"}, {1: "time"}), {"a": {0: "batch"}, "b": {1: "time"}}):
        found = bind_arguments(Takes(), (Pair(TOKENS, SIGNAL),), {"x": shapes})
        assert found.axes == {"x.a": {0: "batch"}, "x.b": {1: "time"}}


@pytest.mark.parametrize(
    ("inputs", "asked", "kind", "problem"),
    [
        ((TOKENS,), {"z": {0: "batch"}}, ConfigError, "dynamic_shapes names z, but the arguments are x"),
        ((TOKENS,), {"x": {2: "batch"}}, ConfigError, "dynamic_shapes of x has axis 2, and the tensor has 2 axes"),
        ((TOKENS,), {"x": {True: "batch"}}, ConfigError, "has axis True"),
        ((TOKENS,), {"x": {0: "n", -2: "m"}}, ConfigError, "dynamic_shapes of x names axis 0 twice, n and m"),
        ((TOKENS,), {"x": ("batch",)}, ConfigError, "has 1 entries for x, which has 2 axes"),
        ((TOKENS,), {"x": "batch"}, ConfigError, "it must be a dict of axes to names, such as {0: 'batch'}"),
        ((TOKENS,), {"x": {0: "a b"}}, ConfigError, "axis 0: 'a b' is not a name for an axis; use one such as 'batch'"),
        ((TOKENS, SIGNAL[:2]), {"x": {0: "n"}, "y": {0: "n"}}, ConfigError, "the axis n has size 3 in one input and 2"),
        (({"a": TOKENS},), {"x": {0: "n"}}, ConfigError, "no entry for x.a; it must be nested as the inputs are"),
        (([TOKENS],), {"x": []}, ConfigError, "no entry for x.0"),
        ((TOKENS,), ("a", "b"), ConfigError, "must be a dict by argument, or have one entry for each of x, in this"),
        ((TOKENS,) * 4, None, ExportError, "example_inputs do not fit Takes.forward(x: "),
        ({"q": TOKENS}, None, ConfigError, "nothing"),
        ((3,), None, ExportError, "example_inputs hold no tensor"),
        (
            (SIGNAL[:0],),
            {"x": {0: "n"}},
            ExportError,
            "x has size 0 along n; give an example with at least one",
        ),
        ((SIGNAL.bfloat16(),), None, ExportError, "pass x.float(), and a precision for a bfloat16 module"),
        ((SIGNAL.to(torch.complex64),), None, ExportError, "pass torch.view_as_real(x), and call"),
    ],
)
def test_what_does_not_fit_is_named(inputs: Any, asked: Any, kind: type[Exception], problem: str) -> None:
    if problem == "nothing":  # a dict that fits no arguments by name is taken for the first argument
        assert list(bind_arguments(Takes(), inputs, asked).tensors) == ["x.q"]
        return
    with pytest.raises(kind) as caught:
        bind_arguments(Takes(), inputs, asked)
    assert problem in str(caught.value)


def test_other_sizes_repeat_or_cut() -> None:
    found = bind_arguments(Takes(), (TOKENS,), {"x": {0: "batch", 1: "time"}})
    assert found.sizes == {"batch": 3, "time": 4}
    larger = found.resize({"batch": 1, "time": 6})["x"]
    assert larger.tolist() == [[0, 0, 1, 2, 2, 3]]


def test_indices_stay_below_each_size() -> None:
    found = bind_arguments(Takes(), (TOKENS % 3,), {"x": {0: "batch", 1: "time"}})
    assert found.resize_indices({"batch": 3, "time": 4}) is None
    within = found.resize_indices({"batch": 2, "time": 3})
    assert within is not None
    assert within["x"].tolist() == [[0, 1, 1], [1, 1, 0]]


def test_lengths_stay_sorted_and_may_fill_the_axis() -> None:
    lengths = torch.tensor([4, 2, 1])
    found = bind_arguments(Takes(), (TOKENS, lengths), {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}})
    sizes = {"batch": 5, "time": 6}
    assert found.resize(sizes)["y"].tolist() == [4, 4, 2, 2, 1]
    filled = found.resize_filled(sizes)
    assert filled is not None
    assert filled["y"].tolist() == [6, 6, 4, 4, 3]
    assert filled["x"].shape == (5, 6)
    shorter = found.resize_filled({"batch": 3, "time": 2})
    assert shorter is not None
    assert shorter["y"].tolist() == [2, 1, 1]
    assert found.resize_filled({"batch": 3, "time": 4}) is None  # nothing changes
    assert bind_arguments(Takes(), (TOKENS,), {"x": {0: "batch", 1: "time"}}).resize_filled(sizes) is None


def test_specs_describe_the_example() -> None:
    found = bind_arguments(Takes(), (TOKENS, SIGNAL), {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}})
    assert found.specs() == (
        InputSpec("x", ("batch", "time"), "int64", 0, 11),
        InputSpec("y", ("batch", 4, 2), "float32"),
    )


def test_arguments_can_be_drawn_from_a_description() -> None:
    specs = [
        InputSpec("x.ids", ("batch", "time"), "int64", 0, 5),
        InputSpec("x.parts.0", ("batch", 2)),
        InputSpec("y", ("batch",), "bool"),
    ]
    found = draw_arguments(Takes(), specs, {"batch": 2, "time": 3})
    assert {name: tuple(tensor.shape) for name, tensor in found.tensors.items()} == {
        "x.ids": (2, 3),
        "x.parts.0": (2, 2),
        "y": (2,),
    }
    assert found.axes["x.ids"] == {0: "batch", 1: "time"}
    args, _ = found.args_and_kwargs(found.tensors)
    assert isinstance(args[0]["parts"], tuple)


@pytest.mark.parametrize(("order", "kind"), [((1, 0), tuple), ((0, 2), dict), ((1,), dict)])
def test_entries_that_are_described_in_another_order_keep_their_names(order: tuple[int, ...], kind: type) -> None:
    specs = [InputSpec(f"x.{place}", (f"axis_{place}", place + 1)) for place in order]
    found = draw_arguments(Takes(), specs, {f"axis_{place}": 4 for place in order})
    assert {name: (tuple(tensor.shape), found.axes[name]) for name, tensor in found.tensors.items()} == {
        f"x.{place}": ((4, place + 1), {0: f"axis_{place}"}) for place in order
    }
    args, _ = found.args_and_kwargs(found.tensors)
    assert isinstance(args[0], kind)


def test_axes_that_follow_from_others() -> None:
    time = torch.export.Dim("time", max=90)
    wave, spec = torch.zeros(2, 4), torch.zeros(2, 3, 5)
    for derived in (4 * time - 16, "4*time - 16"):
        found = bind_arguments(Takes(), (wave, spec), {"x": {1: derived}, "y": {2: time}})
        assert found.axes == {"x": {1: "4*time - 16"}, "y": {2: "time"}}
        assert found.sizes == {"time": 5}
        assert found.limits == {"time": (5, 90)}
        assert {name: tensor.shape[-1] for name, tensor in found.resize({"time": 9}).items()} == {"x": 20, "y": 9}
    with pytest.raises(ConfigError, match=r"the axis 2\*time has size 10 in one input and 4 in x"):
        bind_arguments(Takes(), (wave, spec), {"x": {1: "2*time"}, "y": {2: "time"}})
    with pytest.raises(ConfigError, match=r"the axis 2\*time of x needs an axis named time in dynamic_shapes, too"):
        bind_arguments(Takes(), (wave, spec), {"x": {1: "2*time"}})
    with pytest.raises(ConfigError, match=r"where no input has it, export a module whose x .* x\.flatten\(1, 2\) on$"):
        bind_arguments(Takes(), (wave, spec), {"x": {1: "2*time*batch"}, "y": {0: "batch"}})
    fixed = bind_arguments(Takes(), (wave, spec), {"x": {1: "4*time - 16"}, "y": {2: "time"}}).with_limits(
        {"time": (5, 5)}
    )
    assert fixed.axes == {"x": {}, "y": {}}
