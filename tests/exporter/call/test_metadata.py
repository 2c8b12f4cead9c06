"""A call as JSON and back: every container, constants, classes of the module's code, and what a file may not do."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import subprocess
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ConfigError, ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.call.metadata import call_from_json, call_to_json
from lstm_onnx.exporter.call.structure import as_dynamic_shapes, put_together

X = torch.arange(6.0).reshape(2, 3)


class Pair(NamedTuple):
    h: Tensor
    c: Tensor | None = None


class States(NamedTuple):
    pi: Pair
    vf: Pair


@dataclasses.dataclass
class Batch:
    words: Tensor
    state: States | None = None
    count: int = 0

    def __post_init__(self) -> None:
        self.count += 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Tensor


class Mode(enum.Enum):
    SUM = "sum"
    CAT = "cat"


class Level(enum.IntEnum):
    LOW = 1


class AttrDict(dict[str, Any]):
    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


class Plain:
    def __init__(self, x: Tensor) -> None:
        self.x, self.scale = x, 2.0


class Slots:
    __slots__ = ("x",)

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Net(nn.Module):
    def forward(self, a: Batch | States | Plain | Frozen | AttrDict, b: Mode = Mode.SUM, *, c: Any = Level.LOW) -> None:
        """Names the classes."""


class Many(nn.Module):
    def forward(self, *xs: Any, **options: Any) -> None: ...


class Late(nn.Module):
    def forward(self, x: Any, hx: Any = None, return_state: bool = False, horizon: int = 1) -> None: ...


def _again(module: nn.Module, inputs: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """The call of `inputs`, before and after JSON, with "@NAME" in the place of each tensor."""
    found = bind_arguments(module, inputs, None)
    places = {name: f"@{name}" for name in found.tensors}
    call, replaced = call_from_json(json.loads(json.dumps(call_to_json(found.call), sort_keys=True)), module)
    return put_together(found.call, places), put_together(call, places), replaced


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (Late(), (X,), (("@x",), {})),
        (Late(), (X, None, True, 4), (("@x", None, True, 4), {})),
        (Late(), {"x": X, "horizon": 4}, (("@x",), {"horizon": 4})),
        (
            Late(),
            {"x": {"b": [X, None], "a": (1, {2: X})}},
            (({"b": ["@x.b.0", None], "a": (1, {2: "@x.a.1.2"})},), {}),
        ),
        (Late(), {"x": [{"h": X}, {"h": X}]}, (([{"h": "@x.0.h"}, {"h": "@x.1.h"}],), {})),
        (Late(), (X, (X, X), "flag", float("inf")), (("@x", ("@hx.0", "@hx.1"), "flag", float("inf")), {})),
        (Late(), (X, torch.float64, torch.Size([2, 3])), (("@x", torch.float64, torch.Size([2, 3])), {})),
        (Late(), (X, torch.device("cpu")), (("@x", torch.device("cpu")), {})),
        (Many(), (X, None, X), (("@xs.0", None, "@xs.2"), {})),
        (Many(), {"x": X, "k": None, "deep": [X]}, ((), {"x": "@x", "k": None, "deep": ["@deep.0"]})),
        (Net(), (States(Pair(X, X), Pair(X)),), ((States(Pair("@a.pi.h", "@a.pi.c"), Pair("@a.vf.h")),), {})),  # type: ignore[arg-type]
        (Net(), {"a": X, "b": Mode.CAT}, (("@a", Mode.CAT), {})),
        (Net(), {"a": X, "b": Mode.CAT, "c": Level.LOW}, (("@a", Mode.CAT), {"c": Level.LOW})),
        (Net(), (Frozen(X),), ((Frozen("@a.x"),), {})),  # type: ignore[arg-type]
        (Net(), (SimpleNamespace(x=X, k=3),), ((SimpleNamespace(x="@a.x", k=3),), {})),
        (
            Net(),
            (collections.OrderedDict([("z", X), ("a", X)]),),
            ((collections.OrderedDict([("z", "@a.z"), ("a", "@a.a")]),), {}),
        ),
    ],
)
def test_a_call_comes_back(module: nn.Module, inputs: Any, expected: Any) -> None:
    before, after, replaced = _again(module, inputs)
    assert before == expected
    assert after == expected
    assert str(after) == str(expected)  # the order of keys, too
    assert [type(value) for value in after[0]] == [type(value) for value in expected[0]]
    assert replaced == ()


def test_a_dataclass_is_made_without_a_second_post_init() -> None:
    before, after, replaced = _again(Net(), (Batch(X, States(Pair(X), Pair(X)), 4),))
    for (made,), _ in (before, after):
        assert type(made) is Batch
        assert (made.words, made.count) == ("@a.words", 5)
        assert made.state == States(Pair("@a.state.pi.h"), Pair("@a.state.vf.h"))  # type: ignore[arg-type]
    assert replaced == ()


def test_an_object_is_taken_apart_by_its_attributes() -> None:
    before, after, _ = _again(Net(), (Plain(X),))
    for (made,), _ in (before, after):
        assert type(made) is Plain
        assert vars(made) == {"x": "@a.x", "scale": 2.0}


def test_a_dict_with_attribute_access_keeps_it() -> None:
    found = bind_arguments(Net(), (AttrDict(x=X, n=2),), {"a": {"x": {0: "batch"}, "n": None}})
    ((made,), _) = found.args_and_kwargs({"a.x": "@"})
    assert (type(made), made.x, made.n) == (AttrDict, "@", 2)
    assert found.axes == {"a.x": {0: "batch"}}


def test_the_example_is_neither_kept_nor_changed() -> None:
    state = [X, {"k": [X]}]
    found = bind_arguments(Late(), (X, state), None)
    _, made = found.args_and_kwargs(found.tensors)[0]
    made[1]["k"].append(3)
    made.clear()
    assert len(state) == 2
    assert len(state[1]["k"]) == 1  # type: ignore[arg-type, index]


def test_dynamic_shapes_can_be_pasted() -> None:
    found = bind_arguments(Many(), (States(Pair(X, X), Pair(X)), Batch(X), [X, 3], None), None)
    shapes = as_dynamic_shapes(found.call, found.axes)
    words = {"words": {0: "xs_1_words_0"}, "state": None, "count": None}
    assert shapes == {
        "xs": (
            (({0: "xs_0_pi_h_0"}, {0: "xs_0_pi_c_0"}), ({0: "xs_0_vf_h_0"}, None)),
            words,
            [{0: "xs_2_0_0"}, None],
            None,
        )
    }
    inputs = (States(Pair(X, X), Pair(X)), Batch(X), [X, 3], None)
    assert bind_arguments(Many(), inputs, shapes).axes == found.axes


class Outside(NamedTuple):
    x: Any


def test_a_class_that_the_code_does_not_name_is_replaced() -> None:
    class Local(nn.Module):
        def forward(self, x: Any) -> None: ...

    local = collections.namedtuple("local", "a b")
    _, ((made,), _), replaced = _again(Local(), (local(X, 2),))
    assert (made.a, made.b, type(made).__name__) == ("@x.a", 2, "local")
    assert replaced == ("local",)


def test_nothing_is_made_because_a_file_says_so() -> None:
    """Classes that the module's code can reach, but that are no such containers, and others, are not used."""
    fields = [["args", {"value": "true"}]]
    for kind in ("dataclass", "namedtuple"):
        entries = [["a", "positional", {kind: "Popen", "items": fields}]]
        call, replaced = call_from_json(entries, Net())
        ((made,), _) = put_together(call, {})
        assert not isinstance(made, subprocess.Popen)
        assert replaced == ("Popen",)
        # A NamedTuple with other fields than the file says is not the file's.
        call, replaced = call_from_json([["a", "positional", {kind: "Pair", "items": fields}]], Net())
        ((made,), _) = put_together(call, {})
        assert type(made) is not Pair
        assert replaced == ("Pair",)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"enum": "Mode", "member": "NONE"}, "Mode.NONE in the export, .* names no such class; pass example_inputs"),
        ({"enum": "Popen", "member": "SUM"}, "pass example_inputs"),
        ({"unknown": "Codec"}, "a was a Codec in the export, which the metadata cannot hold; pass example_inputs"),
        ({"other": 1}, "lstm_onnx.call is damaged"),
        ({"tensor": 3}, "is damaged"),
        ({"value": [1]}, "is damaged"),
        ({"dtype": "nn"}, "is damaged"),
        ({"device": "moon"}, "is damaged"),
        ({"namedtuple": "Pair", "items": [["__class__ = 1", {"value": 1}]]}, "is damaged"),
        ({"namedtuple": "Pair"}, "is damaged"),
        ({"dict": [1]}, "is damaged"),
        ({}, "is damaged"),
        (3, "is damaged"),
    ],
)
def test_what_cannot_be_read_is_named(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        call_from_json([["a", "positional", value]], Net())


def test_deep_metadata_is_refused() -> None:
    value: Any = {"value": 1}
    for _ in range(200):
        value = {"list": [value]}
    with pytest.raises(ConfigError, match="nested too deep"):
        call_from_json([["a", "positional", value]], Net())
    for entries in ([["a", "sideways", {"value": 1}]], [["a", "*", {"list": []}]], [[]], [3]):
        with pytest.raises(ConfigError, match="is damaged"):
            call_from_json(entries, Net())


@pytest.mark.parametrize("value", [Slots(X), {X}, [Slots(X)], Plain(Slots(X))])  # type: ignore[arg-type]
def test_tensors_that_cannot_be_replaced_are_refused(value: Any) -> None:
    """They would be constants in the file."""
    with pytest.raises(ExportError, match="holds tensors in an unknown way"):
        bind_arguments(Late(), (X, value), None)


def test_keys_that_give_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"two tensors of example_inputs would be named x\.a\.b; rename a key"):
        bind_arguments(Late(), ({"a.b": X, "a": {"b": X}},), None)


def test_a_container_that_holds_itself_is_refused() -> None:
    value: list[Any] = [X]
    value.append(value)
    with pytest.raises(ConfigError, match="x holds containers nested more than 50 deep"):
        bind_arguments(Late(), (value,), None)
