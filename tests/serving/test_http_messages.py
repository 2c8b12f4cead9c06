"""The bodies of requests and answers as text, without a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lstm_onnx.serving.errors import RequestError
from lstm_onnx.serving.http_messages import json_object, read_inference, write_inference

ASKED = b'{"inputs": [], "id": "a", "parameters": {"sequence_id": 5}}'


def request(data: str, datatype: str = "FP32") -> bytes:
    tensor = f'{{"name": "x", "shape": [2], "datatype": "{datatype}", "data": {data}}}'
    return f'{{"inputs": [{tensor}]}}'.encode()


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 10_000])
def test_an_answer_is_json_of_all_numbers_in_their_order(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    n = np.arange(size)
    longest = 0
    dumps = json.dumps

    def counted(value: Any, **options: Any) -> str:
        nonlocal longest
        longest = max(longest, len(value))
        return dumps(value, **options)

    monkeypatch.setattr(json, "dumps", counted)
    body, headers = write_inference("m", read_inference(ASKED, None), {"y": y, "n": n})
    assert headers == {"content-type": "application/json"}
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "1",
        "id": "a",
        "parameters": {"sequence_id": 5},
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, size], "data": y.ravel().tolist()},
            {"name": "n", "datatype": "INT64", "shape": [size], "data": n.tolist()},
        ],
    }
    assert longest <= 4096  # the server's other requests wait for each call


def test_numbers_that_json_lacks_are_text_wherever_they_are() -> None:
    y = np.zeros(9000, np.float32)
    y[[0, 5000, 8999]] = np.nan, np.inf, -np.inf
    body, _ = write_inference("m", read_inference(ASKED, None), {"y": y})
    data = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["outputs"][0]["data"]
    assert (data[0], data[5000], data[8999], len(data)) == ("NaN", "Infinity", "-Infinity", 9000)


@pytest.mark.parametrize(
    ("data", "datatype", "numeral"), [("[1e999, 1]", "FP32", "1e999"), ("[1, -1.5e400]", "FP64", "-1.5e400")]
)
def test_a_numeral_that_would_be_read_as_infinity_is_refused(data: str, datatype: str, numeral: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_inference(request(data, datatype), None)
    assert str(refused.value) == f"the body has the number '{numeral}', which is too large for every datatype"


def test_infinity_by_its_name_is_an_infinity() -> None:
    for data in ('["Infinity", 1]', "[Infinity, 1]", "[-Infinity, 1e3]"):
        x = read_inference(request(data), None).request.inputs["x"]
        assert np.isinf(x).tolist() == [True, False]


def test_a_key_that_occurs_twice_is_refused() -> None:
    for body in (b'{"inputs": [], "inputs": []}', b'{"parameters": {"sequence_id": 1, "sequence_id": 2}}'):
        with pytest.raises(RequestError, match=r"the body has the key '(inputs|sequence_id)' twice in one object"):
            json_object(body)


def test_many_names_take_no_time_that_grows_with_their_square() -> None:
    names = [f"n{number}" for number in range(200_000)]
    outputs = [{"name": name} for name in (*names, names[-1])]
    with pytest.raises(RequestError, match="the output 'n199999' is asked for twice"):
        read_inference(json.dumps({"outputs": outputs}).encode(), None)
    with pytest.raises(RequestError, match="the key 'n199999' twice"):
        json_object(("{" + ", ".join(f'"{name}": 1' for name in (*names, names[-1])) + "}").encode())


@pytest.mark.parametrize("data", ["[1.5, true]", "[[1], [true]]", '["NaN", true]'])
def test_true_among_numbers_is_refused(data: str) -> None:
    with pytest.raises(RequestError, match="x has data that are not numbers of its datatype FP32"):
        read_inference(request(data), None)


@pytest.mark.parametrize(
    ("data", "datatype", "numbers"),
    [
        ("[9223372036854775809, 1]", "UINT64", [2**63 + 1, 1]),
        ("[100000000000000000000, -1]", "FP64", [1e20, -1]),  # as JavaScript writes 1e20
        ("[9007199254740993, -1]", "INT64", [2**53 + 1, -1]),
    ],
)
def test_large_integers_beside_small_ones(data: str, datatype: str, numbers: list[float]) -> None:
    assert read_inference(request(data, datatype), None).request.inputs["x"].ravel().tolist() == numbers


@pytest.mark.parametrize(
    ("data", "datatype"), [("[-1, 1]", "UINT8"), ("[1, 9223372036854775808]", "INT64"), (f"[1, 1{'0' * 400}]", "FP32")]
)
def test_integers_that_no_datatype_of_a_kind_holds_are_refused(data: str, datatype: str) -> None:
    with pytest.raises(RequestError, match=f"x has a number that {datatype} cannot hold"):
        read_inference(request(data, datatype), None)
