"""Random requests: each is answered, none with a 500, and a sequence beside them never gets a wrong number."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from lstm_onnx.runtime import Model

from ..runtime.models import randoms
from .servers import LONG, Server, serving

MODELS = ("lstm", "wide", "sum", "both", "lengths")
INPUTS = {
    "lstm": {"input": ("FP32", 4)},
    "wide": {"input": ("FP32", 80)},
    "both": {"input": ("FP32", 4)},
    "sum": {"x": ("INT64", 2), "keep": ("BOOL", 2)},
    "lengths": {"input": ("FP32", 4)},
}
DATATYPES = ["FP32", "INT64", "BOOL", "INT32", "FP16", "FP64", "BYTES", "UINT8", "", 5, None]
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        1e400,
        -0.0,
        1.5,
        "",
        "x",
        "\0",
        "é" * 50,
        [],
        {},
        [[]],
        [None],
    ),
    *({"a": 1}, [1, [2]], "NaN", [1e39], ["NaN", 1], [True, 2]),
]


def tensor(rng: random.Random, name: str, datatype: str, width: int) -> dict[str, Any]:
    """A tensor that fits, or nearly."""
    if rng.random() < 0.6:
        shape = [1, width] if datatype != "FP32" else [1, 1, width]
        data = [rng.random() < 0.5 if datatype == "BOOL" else rng.randrange(-3, 3) for _ in range(width)]
        return {"name": name, "shape": shape, "datatype": datatype, "data": data}
    shape: Any = [rng.choice([1, 1, 1, 2, 0, 3, -1, 4]), rng.choice([1, 1, 2, 5]), rng.choice([4, 4, 80, 2])]
    if rng.random() < 0.3:
        shape = shape[: rng.randrange(4)]
    size = int(np.prod([max(int(dim), 0) for dim in shape]))
    data: Any = [rng.choice([0, 1, -2.5, True, 7]) for _ in range(min(size, 400))]
    found = {"name": name, "shape": shape, "datatype": rng.choice(DATATYPES[:4]), "data": data}
    if rng.random() < 0.3:
        found[rng.choice([*found, "parameters"])] = rng.choice(ODD)
    if rng.random() < 0.1:
        del found[rng.choice(list(found))]
    return found


def request(rng: random.Random, model: str) -> dict[str, Any]:
    """A request that is right in most of its parts."""
    found: dict[str, Any] = {"inputs": [tensor(rng, name, *what) for name, what in INPUTS[model].items()]}
    if rng.random() < 0.5:
        found["parameters"] = {
            "sequence_id": rng.choice([1, 2, "a", "b", 0, "", *ODD[:8]]),
            "sequence_start": rng.choice([True, True, False, 1]),
            "sequence_end": rng.choice([True, False, False, "x"]),
        }
    if rng.random() < 0.3:
        found["outputs"] = [{"name": rng.choice(["output", "hn", "total", "y", 5])} for _ in range(rng.randrange(3))]
    if rng.random() < 0.3:
        found[rng.choice(["inputs", "outputs", "parameters", "id", "x"])] = rng.choice(ODD)
    return found


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The same with some bytes changed, left out or repeated."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        end = at + rng.randrange(12)
        changed[at:end] = rng.choice([b"", rng.randbytes(3), changed[at:end] * 2])
    return bytes(changed)


def ask(connection: http.client.HTTPConnection, rng: random.Random) -> tuple[int, bytes]:
    model = rng.choice(MODELS)
    path = f"/v2/models/{model}/infer"
    body = json.dumps(request(rng, model)).encode()
    headers: dict[str, str] = {}
    kind = rng.random()
    if kind < 0.25:
        body = mutated(rng, body)
    elif kind < 0.4:
        headers["Inference-Header-Content-Length"] = str(len(body) + rng.randrange(-3, 4))
        body += rng.randbytes(rng.randrange(64))
    elif kind < 0.45:
        headers["Content-Encoding"] = rng.choice(["gzip", "deflate", "br"])
    elif kind < 0.55:
        path = rng.choice(["/v2/models/", "/v2/repository/", "/v2/", "/"]) + rng.choice(
            ["%00", "..", "lstm/x", "a/b/c", ""]
        )
    connection.request(rng.choice(["POST"] * 9 + ["GET", "DELETE"]), path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


class Survivor:
    """A sequence beside everything else."""

    def __init__(self, connection: http.client.HTTPConnection, model: Model) -> None:
        self.connection, self.alone, self.steps = connection, model.stream(), 0

    def step(self) -> None:
        x = randoms(1, 1, 4, seed=self.steps)
        head = {
            "inputs": [{"name": "input", "shape": [1, 1, 4], "datatype": "FP32", "data": x.ravel().tolist()}],
            "parameters": {"sequence_id": "survivor", "sequence_start": self.steps == 0},
        }
        self.connection.request("POST", "/v2/models/lstm/infer", json.dumps(head))
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        assert found["outputs"][0]["data"] == self.alone(x).ravel().tolist()
        self.steps += 1


@contextlib.contextmanager
def connected(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(server.address, timeout=LONG)
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture(scope="module")
def fuzzed(folder: Any) -> Iterator[Server]:
    """A server whose deaths and tracebacks are no other test's."""
    with serving([folder / f"{name}.onnx" for name in MODELS], "--max-streams", "8", "--idle", "5") as running:
        yield running


def fuzz_http(server: Server, model: Model, count: int, seed: int) -> dict[int, int]:
    rng = random.Random(seed)  # noqa: S311
    statuses: dict[int, int] = {}
    with connected(server) as connection, connected(server) as other:
        survivor = Survivor(other, model)
        for number in range(count):
            status, body = ask(connection, rng)
            statuses[status] = statuses.get(status, 0) + 1
            if status != 200:
                assert status in (400, 404, 405, 413, 415, 501, 503), (status, body)
                assert list(json.loads(body)) == ["error"]
            if number % 25 == 0:
                survivor.step()
    return statuses


def test_http(fuzzed: Server, lstm: Model) -> None:
    statuses = fuzz_http(fuzzed, lstm, 400, seed=1)
    assert statuses[200] > 20
    assert statuses[400] > 100


@pytest.mark.slow
def test_http_at_length(fuzzed: Server, lstm: Model) -> None:
    for seed in range(10, 20):
        fuzz_http(fuzzed, lstm, 2_000, seed)


KINDS: dict[type, str] = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


def message(rng: random.Random, messages: Any) -> bytes:
    model = rng.choice(MODELS)
    fields = request(rng, model)
    found = messages["ModelInferRequest"](model_name=rng.choice([model] * 9 + ["nobody"]), id=str(rng.random()))
    tensors = fields["inputs"] if isinstance(fields["inputs"], list) else []
    for item in tensors:
        if not isinstance(item, dict):
            continue
        with contextlib.suppress(TypeError, ValueError, KeyError, OverflowError):
            added = found.inputs.add()
            added.name = item["name"]
            added.datatype = item["datatype"]
            added.shape.extend(item["shape"])
            if rng.random() < 0.3:
                added.contents.fp32_contents.extend(item["data"])
            else:
                found.raw_input_contents.append(packed(item))
    parameters = fields.get("parameters")
    if isinstance(parameters, dict):
        for name, value in parameters.items():
            with contextlib.suppress(TypeError, ValueError):
                kind = KINDS.get(type(value))
                if kind:
                    setattr(found.parameters[name], kind, value)
    data: bytes = found.SerializeToString()
    return mutated(rng, data) if rng.random() < 0.3 else data


def packed(item: dict[str, Any]) -> bytes:
    """The data of a tensor as raw bytes; in another type where it has none that is known."""
    dtype = {"INT64": np.int64, "BOOL": np.bool_}.get(item["datatype"], np.float32)
    with np.errstate(over="ignore"):
        data: bytes = np.array(item["data"], dtype).tobytes()
    return data


def fuzz_grpc(server: Server, model: Model, count: int, seed: int) -> dict[str, int]:
    from lstm_onnx.serving.protocol.messages import MESSAGES

    rng = random.Random(seed)  # noqa: S311
    codes: dict[str, int] = {}
    with grpc.insecure_channel(server.grpc) as channel, connected(server) as other:
        survivor = Survivor(other, model)
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for number in range(count):
            code = "OK"
            try:
                infer(message(rng, MESSAGES), timeout=LONG)
            except grpc.RpcError as error:
                code = error.code().name
            codes[code] = codes.get(code, 0) + 1
            if number % 25 == 0:
                survivor.step()
        assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        sent = [message(rng, MESSAGES) for _ in range(count // 4)]
        answers = [MESSAGES["ModelStreamInferResponse"].FromString(data) for data in stream(iter(sent), timeout=240)]
        assert len(answers) == len(sent)
        assert all("the server failed" not in answer.error_message for answer in answers)
        survivor.step()
    return codes


def test_grpc(fuzzed: Server, lstm: Model) -> None:
    codes = fuzz_grpc(fuzzed, lstm, 300, seed=1)
    assert codes["OK"] > 3
    assert codes["INVALID_ARGUMENT"] > 100


@pytest.mark.slow
def test_grpc_at_length(fuzzed: Server, lstm: Model) -> None:
    for seed in range(10, 20):
        fuzz_grpc(fuzzed, lstm, 2_000, seed)
