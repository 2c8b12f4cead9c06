from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_onnx import ConfigError
from lstm_onnx.input_spec import (
    INPUT_DTYPES,
    InputSpec,
    axes,
    draw,
    is_name,
    longest_first,
    named_sizes,
    unbounded_inputs,
)

from .strategies import SEEDS

INTEGERS = tuple(dtype for dtype in INPUT_DTYPES if "int" in dtype)
FLOATS = tuple(dtype for dtype in INPUT_DTYPES if "float" in dtype)
LENGTHS = InputSpec("lengths", ("batch",), "int64", 1, "time")


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _one(spec: InputSpec, seed: int = 0, **sizes: int) -> np.ndarray:
    return draw([spec], sizes, _rng(seed))[spec.name]


@st.composite
def _bounds(draw_: st.DrawFn, dtype: str) -> tuple[Any, Any]:
    if dtype == "bool" or draw_(st.booleans()):
        return None, None
    if dtype in FLOATS:
        largest = float(np.finfo(dtype).max)
        low, high = sorted(draw_(st.floats(-largest, largest)) for _ in range(2))
        return low, high
    limits = np.iinfo(dtype)
    low, high = sorted(draw_(st.integers(int(limits.min), int(limits.max))) for _ in range(2))
    return (1, "time") if draw_(st.booleans()) else (low, high)


@st.composite
def _specs(draw_: st.DrawFn) -> InputSpec:
    dtype = draw_(st.sampled_from(INPUT_DTYPES))
    low, high = draw_(_bounds(dtype))
    dims = st.one_of(st.integers(1, 5), st.sampled_from(["batch", "time"]))
    return InputSpec("x", tuple(draw_(st.lists(dims, max_size=3))), dtype, low, high)


def test_a_spec_has_the_defaults_of_most_inputs() -> None:
    assert InputSpec("x", ("batch", 4)) == InputSpec("x", ("batch", 4), "float32", None, None)
    assert InputSpec("rate", ()).shape == ()
    assert InputSpec("gain", (1,), "float16", -65504, 65504.0).low == -65504
    assert InputSpec("a-dict.key", ("größe",)).shape == ("größe",)
    assert InputSpec("same", (2,), "int8", -128, -128).high == -128


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, ["name = ''", "without spaces"]),
        ({"name": "a b"}, ["name = 'a b'"]),
        ({"name": "a\n"}, ["name = 'a\\n'"]),
        ({"name": "\ud800"}, ["name = '\\ud800'"]),
        ({"name": 3}, ["name = 3", "a string"]),
        ({"shape": [2]}, ["shape = [2]", "sizes of 1 or more and axis names"]),
        ({"shape": "batch"}, ["shape = 'batch'"]),
        ({"shape": None}, ["shape = None"]),
        ({"shape": (0,)}, ["shape = [0]"]),
        ({"shape": (-1,)}, ["shape = [-1]"]),
        ({"shape": (2**31,)}, ["shape = [2147483648]"]),
        ({"shape": (True,)}, ["shape = [True]"]),
        ({"shape": (2.0,)}, ["shape = [2.0]"]),
        ({"shape": (None,)}, ["shape = [None]"]),
        ({"shape": ("batch size",)}, ["shape = ['batch size']"]),
        ({"shape": ("",)}, ["shape = ['']"]),
        ({"shape": ("2n",)}, ["shape = ['2n']"]),
        ({"shape": (1,) * 65}, ["up to 64 sizes"]),
        ({"dtype": "int"}, ["dtype = 'int'", '"int64"', '"bool"']),
        ({"dtype": "bfloat16"}, ["dtype = 'bfloat16'"]),
        ({"dtype": np.dtype("float32")}, ["dtype = dtype('float32')"]),
        ({"dtype": ["float32"]}, ["dtype = ['float32']"]),
        # Ranges: both ends or neither, in order, of the dtype's kind and within it.
        ({"low": 1.0}, ["range = [1.0, None]", "two numbers"]),
        ({"high": 1.0}, ["range = [None, 1.0]"]),
        ({"low": 2, "high": 1.5}, ["range = [2, 1.5]", "low <= high"]),
        ({"low": float("nan"), "high": 1}, ["range = [nan, 1]"]),
        ({"low": 0, "high": float("nan")}, ["range = [0, nan]"]),
        ({"low": 0, "high": float("inf")}, ["range = [0, inf]"]),
        ({"low": 0, "high": 10**400}, ["range = [0, 1000", "float32 can hold"]),
        ({"dtype": "float16", "low": 0, "high": 65505}, ["range = [0, 65505]", "float16 can hold"]),
        ({"low": False, "high": True}, ["range = [False, True]"]),
        ({"low": 1, "high": "time"}, ["range = [1, 'time']", "two numbers"]),
        ({"dtype": "int64", "low": 0, "high": 1.0}, ["range = [0, 1.0]", "two integers"]),
        ({"dtype": "int64", "low": 0.0, "high": 1}, ["range = [0.0, 1]", "two integers"]),
        ({"dtype": "int64", "low": False, "high": True}, ["range = [False, True]"]),
        ({"dtype": "int64", "low": 3, "high": 2}, ["range = [3, 2]", "low <= high"]),
        ({"dtype": "int64", "low": 0, "high": 2**63}, ["range = [0, 9223372036854775808]"]),
        ({"dtype": "uint8", "low": -1, "high": 2}, ["range = [-1, 2]", "from 0 to 255"]),
        ({"dtype": "int8", "low": 0, "high": 128}, ["range = [0, 128]", "from -128 to 127"]),
        ({"dtype": "int64", "low": 1, "high": "a b"}, ["range = [1, 'a b']", "the name of an axis"]),
        ({"dtype": "int64", "low": "time", "high": "time"}, ["range = ['time', 'time']"]),
        ({"dtype": "int64", "low": None, "high": "time"}, ["range = [None, 'time']"]),
        ({"dtype": "int64", "low": 1.0, "high": "time"}, ["range = [1.0, 'time']"]),
        ({"whole": True}, ["whole = True", "a range of integers"]),
        ({"whole": True, "low": 0, "high": 1.5}, ["whole = True"]),
        ({"whole": 1, "low": 0, "high": 2}, ["whole = 1", "true or false"]),
        ({"whole": True, "dtype": "int64", "low": 0, "high": 2}, ["whole = True", "only for floats"]),
        ({"dtype": "bool", "low": 0, "high": 1}, ["range = [0, 1]", "a bool has none"]),
        ({"dtype": "bool", "low": False, "high": True}, ["range = [False, True]", "a bool has none"]),
    ],
)
def test_an_impossible_spec_says_what_is_allowed(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        InputSpec(**{"name": "x", "shape": ("batch", 4), **fields})
    message = str(caught.value)
    assert " is not possible; it must be " in message
    assert [word for word in words if word not in message] == []


def test_names() -> None:
    assert all(is_name(name) for name in ("x", "batch.tokens", "a-b", "größe", "l0/W"))
    assert not any(is_name(name) for name in ("", " ", "a b", "a\tb", "a\0", "\u00a0", None, 3, b"x", ["x"]))


@given(_specs())
def test_a_spec_comes_back_from_json(spec: InputSpec) -> None:
    back = InputSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert (type(back.low), type(back.high)) == (type(spec.low), type(spec.high))
    assert hash(back) == hash(spec)


def test_the_json_of_a_spec() -> None:
    assert LENGTHS.to_dict() == {"name": "lengths", "shape": ["batch"], "dtype": "int64", "low": 1, "high": "time"}
    assert InputSpec("x", (2,)).to_dict() == {"name": "x", "shape": [2], "dtype": "float32"}


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (None, "is a NoneType"),
        ([], "is a list"),
        ("x", "is a str"),
        ({}, "lacks name, shape, dtype"),
        ({"name": "x", "dtype": "float32"}, "lacks shape"),
        ({"name": "x", "shape": [2]}, "lacks dtype"),
        ({"name": "x", "shape": [2], "dtype": "float32", "size": 3}, "unknown field 'size'"),
        ({"name": "x", "shape": [2], "dtype": "float32", 3: 3}, "unknown field '3'"),
        ({"name": "x", "shape": "batch", "dtype": "float32"}, "shape = 'batch'"),
        ({"name": "x", "shape": {"batch": 1}, "dtype": "float32"}, "shape = "),
        ({"name": "x", "shape": [[2]], "dtype": "float32"}, "shape = "),
        ({"name": "x", "shape": [2], "dtype": "complex64"}, "dtype = 'complex64'"),
        ({"name": "x", "shape": [2], "dtype": "float32", "low": 1}, "range = "),
        ({"name": 3, "shape": [2], "dtype": "float32"}, "name = 3"),
    ],
)
def test_a_damaged_description_is_refused(damaged: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InputSpec.from_dict(damaged)
    assert words in str(caught.value)


def test_axes_in_order_of_appearance() -> None:
    specs = [InputSpec("x", (3, "time", "batch")), InputSpec("y", ("batch", "other"))]
    assert axes(specs) == ("time", "batch", "other")
    assert axes([LENGTHS]) == ("batch", "time")
    assert axes([InputSpec("rate", ())]) == ()


@given(st.lists(_specs(), max_size=3), st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_what_is_drawn_fits(specs: list[InputSpec], batch: int, time: int, seed: int) -> None:
    named = [InputSpec(f"x{i}", s.shape, s.dtype, s.low, s.high) for i, s in enumerate(specs)]
    sizes = {"batch": batch, "time": time}
    arrays = draw(named, sizes, _rng(seed))
    again = draw(named, sizes, _rng(seed))
    assert list(arrays) == [spec.name for spec in named]
    for spec in named:
        array = arrays[spec.name]
        assert isinstance(array, np.ndarray)
        assert array.dtype == spec.dtype
        assert array.shape == tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
        assert np.array_equal(array, again[spec.name])
        assert np.isfinite(array).all()
        if spec.low is not None:
            high = sizes[spec.high] if isinstance(spec.high, str) else spec.high
            # A float's bounds are rounded to its dtype, as what is drawn is.
            assert (array >= np.asarray(spec.low, spec.dtype)).all()
            assert (array <= np.asarray(high, spec.dtype)).all()


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(INTEGERS), SEEDS)
def test_lengths_hold_a_whole_sequence_and_a_shorter_one(batch: int, time: int, dtype: str, seed: int) -> None:
    lengths = _one(InputSpec("lengths", ("batch",), dtype, 1, "time"), seed, batch=batch, time=time)
    assert lengths.min() >= 1
    assert lengths.max() == time
    if batch > 1 and time > 1:
        assert lengths.min() < time


def test_lengths_reach_every_size_and_their_places_vary() -> None:
    drawn = np.array([_one(LENGTHS, seed, batch=3, time=4) for seed in range(200)])
    for column in drawn.T:
        assert set(column) == {1, 2, 3, 4}


def test_lengths_that_leave_no_choice() -> None:
    assert _one(LENGTHS, batch=1, time=7).tolist() == [7]
    assert _one(LENGTHS, batch=3, time=1).tolist() == [1, 1, 1]
    assert _one(InputSpec("n", ("batch",), "int64", 4, "time"), batch=3, time=4).tolist() == [4, 4, 4]
    assert _one(InputSpec("n", (), "int32", 1, "time"), time=9) == 9


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_reach_both_ends(dtype: str) -> None:
    assert set(_one(InputSpec("x", (200,), dtype, 2, 5))) == {2, 3, 4, 5}
    assert set(_one(InputSpec("x", (200,), dtype))) == {0, 1}
    limits = np.iinfo(dtype)
    whole = _one(InputSpec("x", (200,), dtype, int(limits.min), int(limits.max)))
    assert len(set(whole)) > 50


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_standard_normal_or_uniform(dtype: str) -> None:
    normal = _one(InputSpec("x", (20_000,), dtype)).astype(np.float64)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    uniform = _one(InputSpec("x", (20_000,), dtype, -2, 6.0)).astype(np.float64)
    assert -2 <= uniform.min() < -1.98
    assert 5.98 < uniform.max() <= 6
    assert abs(uniform.mean() - 2) < 0.1
    assert abs(uniform.std() - 8 / np.sqrt(12)) < 0.1
    largest = float(np.finfo(dtype).max)
    assert np.isfinite(_one(InputSpec("x", (100,), dtype, -largest, largest))).all()
    assert (_one(InputSpec("x", (5,), dtype, 3, 3)) == 3).all()
    assert (_one(InputSpec("x", (5,), "float32", 10**30, 10**30)) == np.float32(1e30)).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_may_be_whole_numbers(dtype: str) -> None:
    spec = InputSpec("x", (200,), dtype, -1, 2, whole=True)
    drawn = _one(spec)
    assert drawn.dtype == dtype
    assert set(drawn.tolist()) == {-1, 0, 1, 2}
    assert spec.to_dict()["whole"] is True
    assert InputSpec.from_dict(spec.to_dict()) == spec


def test_no_row_of_a_mask_is_all_of_one_kind() -> None:
    masks = _one(InputSpec("mask", (200, 3, "n"), "bool"), n=2)
    assert (masks.sum(axis=-1) == 1).all()
    assert 0.3 < masks[..., 0].mean() < 0.7
    assert not _one(InputSpec("mask", (50, "n"), "bool"), n=1).any()


def test_the_longest_sequences_first() -> None:
    specs = [
        InputSpec("x", ("batch", "time", 3)),
        InputSpec("lengths", ("batch",), "int32", 1, "time"),
        InputSpec("mask", ("batch", "time"), "bool"),
        InputSpec("ends", ("batch", "time"), "int64", 0, 1),
        InputSpec("words", ("batch", "time"), "int64", 0, 9),
        InputSpec("starts", ("batch",), "bool"),
    ]
    arrays = draw(specs, {"batch": 5, "time": 7}, np.random.default_rng(0))
    found = list(longest_first(specs, arrays))
    assert len(found) == 3
    for ordered in found:
        assert all(ordered[name].dtype == array.dtype for name, array in arrays.items())
        np.testing.assert_array_equal(ordered["lengths"], np.sort(arrays["lengths"])[::-1])
        assert all(np.array_equal(ordered[name], arrays[name]) for name in ("x", "words", "starts"))
    assert np.array_equal(found[0]["mask"], arrays["mask"])
    for ordered, within in zip(found[1:], (1, 0), strict=True):
        for name in ("mask", "ends"):
            counts = (ordered[name] == within).sum(axis=1)
            assert counts[0] == 7
            assert 1 <= counts[-1] < 7
            assert (np.diff(counts) <= 0).all()
            np.testing.assert_array_equal(ordered[name] == within, np.arange(7) < counts[:, None])
    assert list(longest_first(specs[:1], {"x": arrays["x"]})) == []


def test_bools_are_fair_coins() -> None:
    coins = _one(InputSpec("x", ("n",), "bool"), n=10_000)
    assert 0.47 < coins.mean() < 0.53
    # An axis that is always 1 is there to broadcast: whether each environment's episode goes on.
    for shape in (("n", 1), ("n", 1, 1), (5, "n", 1)):
        assert 0.47 < _one(InputSpec("x", shape, "bool"), n=10_000).mean() < 0.53


@pytest.mark.parametrize("dtype", INPUT_DTYPES)
def test_an_input_without_axes_is_an_array(dtype: str) -> None:
    array = _one(InputSpec("x", (), dtype))
    assert isinstance(array, np.ndarray)
    assert (array.shape, array.dtype) == ((), np.dtype(dtype))


def test_two_draws_from_one_generator_differ() -> None:
    rng, specs = _rng(), [InputSpec("x", (8,)), InputSpec("y", (8,))]
    first, second = draw(specs, {}, rng), draw(specs, {}, rng)
    assert not np.array_equal(first["x"], second["x"])
    assert not np.array_equal(first["x"], first["y"])


@pytest.mark.parametrize(
    ("specs", "sizes", "words"),
    [
        ([InputSpec("x", ("batch", "time"))], {"batch": 2}, "x needs a size for the axis time; sizes are given for: b"),
        ([InputSpec("x", ("batch",))], {}, "sizes are given for: none"),
        ([LENGTHS], {"batch": 2}, "lengths needs a size for the axis time"),
        ([InputSpec("x", ("batch",))], {"batch": 0}, "the axis batch = 0"),
        ([InputSpec("x", ("batch",))], {"batch": -1}, "the axis batch = -1"),
        ([InputSpec("x", ("batch",))], {"batch": 2**31}, "the axis batch = 2147483648"),
        ([InputSpec("x", (1,)), InputSpec("x", (2,))], {}, "two inputs are named x"),
        ([InputSpec("n", (2,), "int64", 5, "time")], {"time": 4}, "n is from 5 to time, and time is 4 here"),
        ([InputSpec("n", (2,), "int8", 1, "time")], {"time": 128}, "n is int8, which cannot hold time = 128"),
        ([InputSpec("x", (2**31 - 1,) * 4)], {}, "does not fit into memory"),
        ([InputSpec("x", (2**31 - 1, 2**28))], {}, "does not fit into memory"),
    ],
)
def test_what_cannot_be_drawn(specs: list[InputSpec], sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        draw(specs, sizes, _rng())


def test_an_axis_that_follows_from_another_one_is_drawn_with_it() -> None:
    specs = (InputSpec("wave", ("batch", 1, "4*time - 16")), InputSpec("spec", ("batch", 3, "time")))
    assert axes(specs) == ("batch", "time")
    arrays = draw(specs, {"batch": 2, "time": 9}, np.random.default_rng(0))
    assert {name: array.shape for name, array in arrays.items()} == {"wave": (2, 1, 20), "spec": (2, 3, 9)}
    assert InputSpec.from_dict(specs[0].to_dict()) == specs[0]
    with pytest.raises(ConfigError, match=r"wave has no entries along 4\*time - 16 at time = 4; it must be 1 or more"):
        draw(specs, {"batch": 2, "time": 4}, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="shape"):
        InputSpec("wave", ("batch", "time**2"))


def test_sizes_of_named_axes_are_those_of_arrays():
    specs = [InputSpec("x", ("batch", 3, "time"), "float32"), InputSpec("h", (1, "batch"), "float32")]
    assert named_sizes(specs, {"x": np.zeros((2, 3, 7))}) == {"batch": 2, "time": 7}
    assert named_sizes(specs, {"other": np.zeros(4)}) == {}


def test_inputs_without_a_range_are_floats():
    specs = [
        InputSpec("x", ("batch",), "float32"),
        InputSpec("scaled", ("batch",), "float16", 0, 1),
        InputSpec("tokens", ("batch",), "int64"),
    ]
    assert unbounded_inputs(specs) == ["x"]
