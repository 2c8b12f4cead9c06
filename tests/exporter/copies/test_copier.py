"""Copies of values: what code could write into is another object, and everything else is the same one."""

from __future__ import annotations

import collections
import enum
import functools
import itertools
import random
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.copies.copier import Copier
from lstm_onnx.exporter.copies.rebuilt_code import derived_class

PACKAGES = frozenset({"tests"})


def copied(value: Any, dtype: torch.dtype | None = None) -> Any:
    return Copier(dtype, PACKAGES).of(value)


class Node:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.next: Any = self


class Closing:
    def __del__(self) -> None:
        """Would close what a copy shares."""


class Color(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    one: Any
    other: Any


class Checked(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("read only")


class Tagged(list[Any]):
    tag = ""


def test_containers_keep_their_classes_and_limits() -> None:
    tagged = Tagged([1, [2]])
    tagged.tag = "a"
    last = collections.deque([1, 2], maxlen=2)
    values = Checked(a=[1])
    for value in (tagged, last, values, collections.Counter("aab"), {1, 2}, bytearray(b"ab")):
        copy = copied(value)
        assert copy == value
        assert copy is not value
        assert type(copy) is type(value)
    assert copied(tagged).tag == "a"
    assert copied(tagged)[1] is not tagged[1]
    assert copied(values)["a"] is not values["a"]
    copy = copied(last)
    copy.append(3)
    assert list(copy) == [2, 3]
    assert list(last) == [1, 2]


def test_what_leads_back_to_itself_does_so_in_the_copy() -> None:
    node, items = Node(1), []
    items.append(items)

    def again() -> Any:
        return again

    copy, other, function = copied(node), copied(items), copied(again)
    assert copy is not node
    assert copy.next is copy
    assert other[0] is other
    assert function is not again
    assert function() is function


def test_functions_of_one_variable_share_it_in_the_copy() -> None:
    count = 0

    def up() -> None:
        nonlocal count
        count += 1

    def read() -> int:
        return count

    one, other = Copier(None).of((up, read))
    one()
    assert (other(), read()) == (1, 0)


def test_functions_without_variables_are_shared() -> None:
    def plain(x: Any) -> Any:
        return x

    class Own(nn.Module):
        def forward(self, x: Any) -> Any:
            super()  # a variable of the class's own
            return x

    shared: tuple[Any, ...] = (plain, len, torch.relu, nn.functional.max_pool1d, Own.forward, Color.RED, Node, (1, "a"))
    for value in shared:
        assert copied(value) is value
    keeps: Callable[..., Any] = lambda x, seen=[]: seen.append(x)  # noqa: E731
    copied(keeps)(1)
    assert keeps.__defaults__ == ([],)


def test_tensors_are_converted_wherever_they_are() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.special = True  # type: ignore[attr-defined]
    part = functools.partial(torch.add, other=weight)
    pair, function, other = copied((Pair(weight, Node(weight)), lambda: weight, part), torch.float64)
    assert type(pair) is Pair
    assert pair.one is pair.other.value is function() is other.keywords["other"]
    assert pair.one.dtype == torch.float64
    assert pair.one.special
    assert isinstance(pair.one, nn.Parameter)
    assert part.keywords["other"] is weight


def test_references_lead_to_the_copy() -> None:
    node, gone = Node(1), Node(2)
    held = Node([node, weakref.ref(node), weakref.proxy(node), weakref.proxy(gone)])
    gone.next = None  # which held it
    del gone
    value = copied(held).value
    assert value[1]() is value[0] is not node
    assert value[2].next is value[0]
    assert value[3] is None
    lonely = copied(weakref.ref(node))
    assert lonely().value == 1  # the copy lives as long as the reference


def test_a_copied_reference_may_be_the_last_that_holds_what_others_refer_to() -> None:
    """Which ended the process, where the garbage collector came upon an nn.LSTM's copy in a trace."""
    module = copied(nn.LSTM(3, 4))
    gone: list[Any] = []
    watching = [weakref.ref(weight, gone.append) for weight in module.parameters()]
    references = module._flat_weight_refs
    del module
    assert all(reference() is watch() is not None for reference, watch in zip(references, watching, strict=True))
    del references
    assert sorted(map(id, gone)) == sorted(map(id, watching))


def test_generators_draw_the_same_numbers_apart_from_the_original() -> None:
    own = (random.Random(1), np.random.default_rng(2), np.random.RandomState(3), torch.Generator().manual_seed(4))  # noqa: S311
    copies = copied(own)
    draws = (
        lambda g: g.random(),
        lambda g: g.random(),
        lambda g: g.rand(),
        lambda g: float(torch.rand(1, generator=g)),
    )
    assert [draw(one) for draw, one in zip(draws, copies, strict=True)] == [
        draw(one) for draw, one in zip(draws, own, strict=True)
    ]


def test_what_holds_more_than_attributes_is_shared() -> None:
    large = np.zeros(2**23 + 1, np.int16)
    for value in (threading.Lock(), Closing(), types.ModuleType("m"), random.SystemRandom()):
        assert copied(value) is value
    copy = copied(large)
    assert copy.base is large
    assert not copy.flags.writeable
    small = np.zeros(3)
    copied(small)[0] = 1
    assert small[0] == 0


def test_a_derived_class_enters_no_registry() -> None:
    registry = []

    class Registered(nn.Module):
        def __init_subclass__(cls) -> None:
            registry.append(cls)

    derived = derived_class(Registered, {"extra": 1})
    assert registry == []
    assert issubclass(derived, Registered)
    assert derived().extra == 1  # type: ignore[attr-defined]
    assert derived.__name__ == "Registered"


def test_methods_of_containers_are_those_of_their_copies() -> None:
    frames: list[int] = []
    items, push = copied((frames, frames.append))
    push(3)
    assert (items, frames) == ([3], [])
    assert copied(len) is len


def test_weak_dicts_have_the_copies_as_their_keys() -> None:
    layer = nn.Linear(2, 2)
    new, scales = copied((layer, weakref.WeakKeyDictionary({layer: 3.0})))
    assert new is not layer
    assert scales[new] == 3.0


@pytest.mark.parametrize("kind", [set, frozenset])
def test_sets_of_modules_keep_their_order(kind: Any) -> None:
    layers = kind(nn.Identity() for _ in range(20))
    for number, layer in enumerate(layers):
        layer.number = number
    new = copied(layers)
    assert isinstance(new, kind)
    assert [layer.number for layer in new] == list(range(20))


def test_an_iterator_is_refused_where_it_is_used() -> None:
    for value in (iter([1]), itertools.count(), (item for item in [1]), map(abs, [1])):
        new = copied(value)
        with pytest.raises(ExportError, match="takes the next item of an iterator"):
            next(new)
