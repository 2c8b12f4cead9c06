"""The protocol over HTTP in detail: bodies, limits, errors, always ``{"error": ...}``."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
import zlib
from typing import Any

import numpy as np
import pytest

from lstm_onnx.runtime import Model

from ..runtime.models import randoms
from .servers import LONG, Server

INFER = "/v2/models/lstm/infer"


def ask(
    server: Server, method: str, path: str, body: bytes | dict | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(server.address, timeout=LONG)
    try:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def error_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    status, headers, body = answer
    found = json.loads(body)
    assert list(found) == ["error"]
    assert headers["content-type"] == "application/json"
    return status, found["error"]


def infer(data: Any = (1, 2, 3, 4), **changes: Any) -> dict:
    tensor = {"name": "input", "shape": [1, 1, 4], "datatype": "FP32", "data": data}
    tensor.update(changes.pop("tensor", {}))
    return {"inputs": [tensor], **changes}


def test_numbers_may_be_flat_or_nested(server: Server, lstm: Model) -> None:
    x = np.array([[[1, 2.5, -3, 1e-3]]], np.float32)
    expected = lstm.run({"input": x})["output"].ravel().tolist()
    for data in ([1, 2.5, -3, 1e-3], [[[1, 2.5, -3, 1e-3]]]):
        status, _, body = ask(server, "POST", INFER, infer(data))
        assert status == 200
        assert json.loads(body)["outputs"][0]["data"] == expected


def test_numbers_that_json_lacks_have_names(server: Server) -> None:
    status, _, body = ask(server, "POST", INFER, infer([1, "NaN", "-Infinity", 2]))
    assert status == 200
    json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    x = {"name": "state", "shape": [1, 1], "datatype": "FP32", "data": ["Infinity"]}
    assert "is not an input" in error_of(ask(server, "POST", INFER, infer(inputs=[x])))[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensor": {"datatype": "FP33"}}, "input has datatype 'FP33'; it must be one of BOOL"),
        ({"tensor": {"datatype": "BYTES"}}, "input has datatype 'BYTES'"),
        ({"tensor": {"datatype": "FP64"}}, "input has datatype FP64; it must be FP32"),
        ({"tensor": {"shape": [1, 1, 5]}}, r"input has data of shape \[4\], but its shape is \[1, 1, 5\]"),
        ({"tensor": {"shape": [1, -1, 4]}}, "every size must be a non-negative integer"),
        ({"tensor": {"shape": [1, True, 4]}}, "every size must be a non-negative integer"),
        ({"tensor": {"shape": [2**62, 2**62, 4]}}, "its shape is"),
        ({"tensor": {"shape": "x"}}, "it must be a list of at most 32 integers"),
        ({"tensor": {"shape": [0, 1, 4], "data": []}}, "the axis time is empty"),
        ({"tensor": {"data": [1, 2, "x", 4]}}, "data that are neither a list of numbers"),
        ({"tensor": {"data": [[1, 2], [3]]}}, "data that are neither a list of numbers"),
        ({"tensor": {"data": [1, 2, 3, 1e60]}}, r"has the number 1e\+60, which FP32 cannot represent"),
        ({"tensor": {"data": {"a": 1}}}, "it must be a list"),
        ({"tensor": {"data": [None, 1, 2, 3]}}, "data that are not numbers"),
        ({"tensor": {"name": 5}}, "an input has the name 5"),
        ({"tensor": {"parameters": {"binary_data_size": 16}}}, "both data and the parameter binary_data_size"),
        ({"tensor": {"parameters": []}}, "the parameters of input must be a JSON object"),
        ({"inputs": 5}, "inputs must be a list of JSON objects"),
        ({"inputs": []}, "missing input: input float32"),
        ({"outputs": [{"name": "output"}, {"name": "output"}]}, "the output 'output' is asked for twice"),
        ({"outputs": [{}]}, "an output has the name None"),
        ({"id": 5}, "id is 5; it must be a string"),
        ({"parameters": {"sequence_id": 1.5}}, "sequence_id is 1.5; it must be an integer or a string"),
        ({"parameters": {"sequence_id": -1}}, "must be from 0 to"),
        ({"parameters": {"sequence_id": True}}, "sequence_id is True"),
        ({"parameters": {"sequence_id": "x" * 300}}, "sequence_id has 300 characters"),
        ({"parameters": {"sequence_start": True}}, "need a sequence_id other than 0"),
        ({"parameters": {"sequence_id": 1, "sequence_start": 1}}, "sequence_start is 1; it must be true or false"),
        ({"parameters": {"timeout": -5}}, "timeout is -5"),
    ],
)
def test_requests_that_do_not_fit(server: Server, changes: dict, message: str) -> None:
    status, text = error_of(ask(server, "POST", INFER, infer(**changes)))
    assert status == 400
    import re

    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", {}, 400, "the body is not JSON"),
        (b"[" * 100_000, {}, 400, "the body is not JSON"),
        (b"5", {}, 400, "the body must be a JSON object"),
        (b"\xff\xfe", {}, 400, "the body is not JSON"),
        (b"{}", {"Inference_Header_Content_Length": "-1"}, 400, "it must be an integer"),
        (b"{}", {"Inference_Header_Content_Length": "3"}, 400, "is 3, but the body has 2 bytes"),
        (b"{}xx", {"Inference_Header_Content_Length": "2"}, 400, "2 bytes after the inputs belong to none"),
        (b"{}", {"Content_Encoding": "br"}, 415, "Content-Encoding is 'br'"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "the body is not gzip"),
        (gzip.compress(b"{}", mtime=0)[:-4], {"Content_Encoding": "gzip"}, 400, "the body is cut off"),
        (zlib.compress(bytes(2_000_000)), {"Content_Encoding": "deflate"}, 413, "more than 1000000 bytes"),
        (bytes(1_000_001), {}, 413, "the body has more than 1000000 bytes; see --max-request-bytes"),
    ],
)
def test_bodies_that_are_refused(server: Server, body: bytes, headers: dict, status: int, message: str) -> None:
    found, text = error_of(ask(server, "POST", INFER, body, **headers))
    assert found == status
    assert message in text


def test_binary_inputs_that_do_not_fit(server: Server) -> None:
    head = json.dumps(infer(tensor={"parameters": {"binary_data_size": 12}}) | {"outputs": []})
    head = head.replace(', "data": [1, 2, 3, 4]', "")
    for size, message in ((12, "input has 12 bytes; FP32 [1, 1, 4] takes 16"), (4, "but 4 bytes are left")):
        body = head.encode() + bytes(size)
        status, text = error_of(ask(server, "POST", INFER, body, Inference_Header_Content_Length=str(len(head))))
        assert (status, message in text) == (400, True), text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("PUT", "/metrics", 405),
        ("GET", "/v2/models/lstm/elsewhere", 404),
        ("GET", "/v2/models/lstm/stream", 426),
        ("GET", "/v2/models/nobody/stream", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/lstm/versions/2", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/repository/models/nobody/load", 404),
    ],
)
def test_paths_and_methods(server: Server, method: str, path: str, status: int) -> None:
    assert error_of(ask(server, method, path))[0] == status


def test_a_model_is_loaded_from_its_own_file_alone(server: Server) -> None:
    path = "/v2/repository/models/lstm/load"
    assert ask(server, "POST", path, {})[0] == 200
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}):
        status, text = error_of(ask(server, "POST", path, {"parameters": parameters}))
        assert (status, "takes no parameters" in text) == (501, True)


def test_pages_of_other_origins_and_names_are_refused(server: Server) -> None:
    for headers in (
        {"Host": "evil.example:8000"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Host": "[", "Origin": "http://["},
        {"Origin": f"http://localhost:{server.port}x"},
    ):
        assert error_of(ask(server, "POST", "/v2/repository/models/lstm/unload", {}, **headers))[0] == 403
    status, message = error_of(ask(server, "GET", "/v2", Host="api.example"))
    assert (status, "Host: localhost" in message, "--token-file" in message) == (403, True, True)
    assert ask(server, "GET", "/v2", Origin=server.http)[0] == 200
    assert ask(server, "GET", "/v2", Host=f"localhost:{server.port}")[0] == 200


def test_the_page_and_the_metrics(server: Server) -> None:
    status, headers, body = ask(server, "GET", "/")
    assert (status, b"page.mjs" in body) == (200, True)
    assert "default-src 'self'" in headers["content-security-policy"]
    assert ask(server, "HEAD", "/page.mjs")[2] == b""
    before = metric(server, 'lstm_onnx_requests_total{model="both",protocol="http",result="done"}')
    refused = metric(server, 'lstm_onnx_refusals_total{protocol="http",reason="not_found"}')
    assert ask(server, "POST", "/v2/models/both/infer", infer())[0] == 200
    assert ask(server, "GET", "/v3")[0] == 404
    assert metric(server, 'lstm_onnx_requests_total{model="both",protocol="http",result="done"}') == before + 1
    assert metric(server, 'lstm_onnx_refusals_total{protocol="http",reason="not_found"}') == refused + 1
    assert metric(server, 'lstm_onnx_batch_size_sum{kind="whole",model="both"}') >= 1


def metric(server: Server, name: str) -> float:
    text = ask(server, "GET", "/metrics")[2].decode()
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)


@pytest.mark.parametrize(
    "data", [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100, b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000]
)
def test_what_is_not_http(server: Server, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert list(json.loads(body)) == ["error"]


def test_many_connections_that_are_dropped_harm_nobody(server: Server, lstm: Model) -> None:
    x = randoms(1, 1, 4)
    alone = lstm.stream()
    body = {"parameters": {"sequence_id": "survivor", "sequence_start": True}}
    for number in range(400):
        connection = socket.create_connection(("127.0.0.1", server.port), LONG)
        if number % 3:
            connection.sendall(
                b"POST /v2/models/lstm/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{"
            )
        connection.close()
        if number % 100 == 0:
            status, _, answer = ask(server, "POST", INFER, infer(x.ravel().tolist(), **body))
            assert status == 200
            assert json.loads(answer)["outputs"][0]["data"] == alone(x).ravel().tolist()
            body = {"parameters": {"sequence_id": "survivor"}}
    end = time.monotonic() + LONG
    while ask(server, "GET", "/v2/health/ready")[0] != 200:
        assert time.monotonic() < end


def test_a_warning_is_an_event_of_the_log(server: Server) -> None:
    assert ask(server, "POST", INFER, infer(["NaN", 2, 3, 4]))[0] == 200
    assert all(line.startswith("{") for line in server.log.read_text(encoding="utf-8").splitlines())
    assert any("input has a NaN" in event.get("message", "") for event in server.events())
