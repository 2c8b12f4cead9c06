"""Running a server: who may connect, TLS, a changed file, the end, what is too much."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.serving.client import open_stream
from lstm_onnx.serving.repository import files_by_name
from lstm_onnx.serving.settings import Settings

from ..runtime.models import accumulator, exported, randoms
from .servers import LONG, Server, command, serving
from .test_http import INFER, ask, error_of, infer

TOKEN = "0123456789abcdef-token"  # noqa: S105


def failed(*arguments: object) -> str:
    done = subprocess.run(command(arguments[:1], *map(str, arguments[1:])), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    return json.loads(done.stderr.splitlines()[-1])["error"]["message"]


def test_tokens(folder: Path, tmp_path: Path, lstm: Model) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# ours\n\n{TOKEN}\nanother-token-0123456789\n", encoding="utf-8")
    x = randoms(1, 1, 4)

    async def stream(server: Server, token: str | None) -> None:
        async with open_stream(server.http, "lstm", token=token) as stream:
            np.testing.assert_array_equal(await stream.step(x), lstm.stream()(x))

    with serving([folder / "lstm.onnx"], "--token-file", str(tokens)) as server:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/v2", "/metrics", "/v2/models/lstm"):
                assert error_of(ask(server, "GET", path, **wrong))[0] == 401
        assert ask(server, "GET", "/v2", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(server, "GET", "/v2/health/ready")[0] == 200
        assert ask(server, "POST", INFER, infer(), Authorization="bearer another-token-0123456789")[0] == 200
        asyncio.run(stream(server, TOKEN))
        with pytest.raises(RunError, match="a bearer token is needed"):
            asyncio.run(stream(server, None))
        path = "/inference.GRPCInferenceService/"
        with grpc.insecure_channel(server.grpc) as channel:
            assert channel.unary_unary(f"{path}ServerLive")(b"", timeout=LONG) == b"\x08\x01"
            for method in ("ServerMetadata", "ModelInfer"):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(f"{path}{method}")(b"", timeout=LONG)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as caught:
                next(channel.stream_stream(f"{path}ModelStreamInfer")(iter([b""]), timeout=LONG))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            metadata = [("authorization", f"Bearer {TOKEN}")]
            assert channel.unary_unary(f"{path}ServerMetadata")(b"", timeout=LONG, metadata=metadata)
        tokens.write_text("a-new-token-0123456789\n", encoding="utf-8")
        end = time.monotonic() + LONG
        while ask(server, "GET", "/v2", Authorization="Bearer a-new-token-0123456789")[0] != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert ask(server, "GET", "/v2", Authorization=f"Bearer {TOKEN}")[0] == 401
        assert TOKEN not in server.log.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_tls(folder: Path, tmp_path: Path, lstm: Model) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    x = randoms(1, 1, 4)

    async def main(server: Server) -> None:
        async with open_stream(server.http, "lstm", ssl=context) as stream:
            np.testing.assert_array_equal(await stream.step(x), lstm.stream()(x))

    with serving([folder / "lstm.onnx"], "--tls-cert", str(certificate), "--tls-key", str(key)) as server:
        assert server.http.startswith("https://")
        asyncio.run(main(server))
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(str(server.grpc), credentials) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert call(b"", timeout=LONG) == b"\x08\x01"


def test_a_changed_file_is_loaded_and_streams_keep_theirs(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    exported(file, seed=1)
    other = tmp_path / "other.onnx"
    exported(other, seed=2)
    x = randoms(1, 1, 4)

    async def main(server: Server) -> None:
        first, second = (load(path, "cpu", threads=1) for path in (file, other))
        old, sequence = first.stream(), first.stream()
        async with open_stream(server.http, "m") as stream:
            np.testing.assert_array_equal(await stream.step(x), old(x))
            assert whole(server, {"sequence_id": 1, "sequence_start": True}) == sequence(x).ravel().tolist()
            expected = second.run({"input": x})["output"].ravel().tolist()
            await asyncio.to_thread(os.replace, other, file)
            assert whole(server, {}) != expected
            assert await asyncio.to_thread(lambda: ask(server, "POST", load_path, {})[0]) == 200
            assert await asyncio.to_thread(lambda: ask(server, "POST", load_path, {})[0]) == 200
            assert whole(server, {}) == expected
            np.testing.assert_array_equal(await stream.step(x), old(x))
            assert whole(server, {"sequence_id": 1}) == sequence(x).ravel().tolist()
            assert whole(server, {"sequence_id": 2, "sequence_start": True}) == expected
            file.write_bytes(b"not a model")
            status, text = error_of(await asyncio.to_thread(lambda: ask(server, "POST", load_path, {})))
            assert (status, "the model that was loaded before is still served" in text) == (400, True)
            assert whole(server, {}) == expected
            np.testing.assert_array_equal(await stream.step(x), old(x))
            assert ask(server, "POST", load_path.replace("load", "unload"), {})[0] == 200
            assert error_of(ask(server, "POST", "/v2/models/m/infer", infer()))[0] == 503
            assert ask(server, "GET", "/v2/health/ready")[0] == 503
            index = json.loads(ask(server, "POST", "/v2/repository/index", {})[2])
            assert index[0]["state"] == "UNAVAILABLE"
            assert whole(server, {"sequence_id": 1, "sequence_end": True}) == sequence(x).ravel().tolist()
            np.testing.assert_array_equal(await stream.step(x), old(x))

    def whole(server: Server, parameters: dict) -> list[float]:
        status, _, body = ask(server, "POST", "/v2/models/m/infer", infer(x.ravel().tolist(), parameters=parameters))
        assert status == 200, body
        return json.loads(body)["outputs"][0]["data"]

    load_path = "/v2/repository/models/m/load"
    with serving([file], "--no-grpc") as server:
        asyncio.run(main(server))


def test_a_file_whose_weights_beside_it_changed_is_a_changed_one(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx", seed=1)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=100)
    weights = np.fromfile(tmp_path / "m.data", np.float32)
    found = []
    with serving([tmp_path / "m.onnx"], "--no-grpc") as server:
        for factor in (1, 1, -1):
            (tmp_path / "m.data").write_bytes((factor * weights).tobytes())
            assert ask(server, "POST", "/v2/repository/models/m/load", {})[0] == 200
            found.append(json.loads(ask(server, "POST", "/v2/models/m/infer", infer())[2])["outputs"][0]["data"])
        assert [event["changed"] for event in server.events() if event["event"] == "loaded"] == [False, False, True]
    (tmp_path / "m.data").write_bytes((-weights).tobytes())
    expected = load(tmp_path / "m.onnx", "cpu", threads=1).run({"input": np.float32([[[1, 2, 3, 4]]])})["output"]
    assert found[0] == found[1] != found[2] == expected.ravel().tolist()


def test_a_silent_sequence_is_closed_and_its_next_request_told_so(folder: Path) -> None:
    with serving([folder / "lstm.onnx"], "--idle", "0.3", "--no-grpc") as server:
        start = {"parameters": {"sequence_id": 3, "sequence_start": True}}
        assert ask(server, "POST", INFER, infer(**start))[0] == 200
        end = time.monotonic() + LONG
        while b'lstm_onnx_streams{model="lstm"} 0' not in ask(server, "GET", "/metrics")[2]:
            assert time.monotonic() < end
            time.sleep(0.05)
        text = error_of(ask(server, "POST", INFER, infer(parameters={"sequence_id": 3})))[1]
        assert "was closed after 0.3 s without a request; its states are gone" in text
        assert ask(server, "POST", INFER, infer(**start))[0] == 200


def test_a_deadline_and_half_a_body(folder: Path) -> None:
    with serving([folder / "lstm.onnx"], "--deadline", "2", "--no-grpc") as server:
        with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
            connection.sendall(b"POST /v2/models/lstm/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        x = randoms(300_000, 1, 4)
        request = infer(tensor={"shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}})
        head = json.dumps({**request, "parameters": {"timeout": 20_000}})  # microseconds: far less than it takes
        head = head.replace(', "data": [1, 2, 3, 4]', "")
        length = str(len(head))
        answer = ask(server, "POST", INFER, head.encode() + x.tobytes(), Inference_Header_Content_Length=length)
        assert error_of(answer) == (504, "no result within 0.02 s")


def test_what_is_refused_at_the_start(folder: Path, tmp_path: Path) -> None:
    file = folder / "lstm.onnx"
    assert "no token is required; name a file of bearer tokens" in failed(file, "--host", "0.0.0.0")  # noqa: S104
    short = tmp_path / "short"
    short.write_text("secret\n", encoding="utf-8")
    assert "shorter than 16 characters" in failed(file, "--token-file", short)
    assert "pass both --tls-cert and --tls-key" in failed(file, "--tls-cert", short)
    assert "cannot be used for TLS" in failed(file, "--tls-cert", short, "--tls-key", short)
    assert "must be a certificate in PEM format" in failed(file, "--tls-cert", short, "--tls-key", short)
    assert "absent: cannot be read as a file of tokens: No such" in failed(file, "--token-file", tmp_path / "absent")
    assert "no such file" in failed(tmp_path / "absent.onnx").lower()
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "lstm_onnx", "serve", str(file), "--port", port, "--no-grpc"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert f"cannot listen at 127.0.0.1 port {port}" in done.stderr
        done = subprocess.run(
            [sys.executable, "-m", "lstm_onnx", "serve", str(file), "--port", "0", "--grpc-port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr == (
            f"lstm-onnx: cannot listen at 127.0.0.1 port {port}: Address already in use; end what uses it, or pass "
            "another --grpc-port, or --no-grpc\n"
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_server_whose_addresses_nobody_gets_does_not_start(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command([folder / "lstm.onnx"], "--quiet"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert json.loads(line)["error"]["message"] == "stdout: cannot be written: No space left on device"


def test_one_port_for_both_is_refused() -> None:
    with pytest.raises(InputError, match="--port and --grpc-port are both 8000"):
        Settings(port=8000, grpc_port=8000).require_safe()
    Settings(port=0, grpc_port=0).require_safe()


def test_each_request_with_a_nan_is_logged(folder: Path) -> None:
    with serving([folder / "lstm.onnx"], "--no-grpc") as server:
        for _ in range(2):
            assert ask(server, "POST", INFER, infer((math.nan, 0, 0, 0)))[0] == 200
        logged = [event["message"] for event in server.events() if event["event"] == "warning"]
    assert len(logged) == 2
    assert all("input has a NaN or an infinity" in message for message in logged)


def test_names_of_models(tmp_path: Path) -> None:
    assert files_by_name(("a/b.onnx", "c=d/e.onnx")) == {"b": "a/b.onnx", "c": "d/e.onnx"}
    assert files_by_name((f"{tmp_path}/x=y.onnx",)) if (tmp_path / "x=y.onnx").exists() else True
    for wrong, message in (
        (("a.onnx", "b/a.onnx"), "two models have the name a"),
        (("a b.onnx",), "is not a model's name"),
    ):
        with pytest.raises(InputError, match=message):
            files_by_name(wrong)


def test_without_its_libraries_the_error_says_how_to_install_them(folder: Path) -> None:
    script = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] == 'uvicorn': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.argv = ['lstm-onnx', 'serve', sys.argv[1]]\n"
        "from lstm_onnx.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "lstm.onnx")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'lstm-onnx[serve]'" in done.stderr


def test_a_file_with_look_ahead_gives_its_last_outputs_at_the_end(tmp_path: Path) -> None:
    """What the answers of a sequence say, concatenated, is the whole sequence's output."""
    weights = np.random.default_rng(0).standard_normal((2, 2, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1])],
        "ahead",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, "time"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, "time"])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 18)]
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    onnx.save(whole, tmp_path / "whole.onnx")
    lstm_onnx.make_streaming(tmp_path / "whole.onnx", tmp_path / "ahead.onnx", time={"x": 2}, max_delay=1, trial=False)
    x = randoms(1, 2, 6)
    with load(tmp_path / "ahead.onnx", "cpu") as model, serving([tmp_path / "ahead.onnx"], "--no-grpc") as server:
        assert model.stream().delay == 1
        found = json.loads(ask(server, "GET", "/v2/models/ahead")[2])
        assert [tensor["name"] for tensor in found["inputs"]] == ["x"]
        tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
        status, _, body = ask(server, "POST", "/v2/models/ahead/infer", {"inputs": [tensor]})
        assert status == 200
        assert json.loads(body)["outputs"][0]["data"] == model.run({"x": x})["y"].ravel().tolist()
        parts = []
        for start, end in ((0, 1), (1, 4), (4, 6)):
            chunk = np.ascontiguousarray(x[:, :, start:end])
            tensor = {**tensor, "shape": list(chunk.shape), "data": chunk.ravel().tolist()}
            flags = {"sequence_id": 1, "sequence_start": start == 0, "sequence_end": end == 6}
            answer = ask(server, "POST", "/v2/models/ahead/infer", {"inputs": [tensor], "parameters": flags})
            (output,) = json.loads(answer[2])["outputs"]
            parts.append(np.array(output["data"], np.float32).reshape(output["shape"]))
        assert [part.shape[2] for part in parts] == [0, 3, 3]
        np.testing.assert_allclose(np.concatenate(parts, 2), model.run({"x": x})["y"], rtol=0, atol=1e-6)
        with pytest.raises(RunError, match="looks ahead"):
            asyncio.run(refused(server))


async def refused(server: Server) -> None:
    async with open_stream(server.http, "ahead"):
        pass


def test_streams_of_a_model_whose_batch_is_fixed(folder: Path, tmp_path: Path) -> None:
    """They are stepped one by one: sequences and websockets, each as alone."""
    model = onnx.load(folder / "sum.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")

    async def caller(server: Server, number: int) -> None:
        async with open_stream(server.http, "one") as stream:
            total = 0
            for index in range(5):
                x = np.array([[number, index]])
                found = await stream.step({"x": x, "keep": np.array([[True, False]])})
                total += number
                assert found["total"].tolist() == [[total, 0]]

    async def main(server: Server) -> None:
        await asyncio.gather(*[caller(server, number) for number in range(6)])

    with serving([tmp_path / "one.onnx"], "--no-grpc", "--max-streams", "7") as server:
        asyncio.run(main(server))
        keep = {"name": "keep", "shape": [1, 2], "datatype": "BOOL", "data": [True, True]}
        for index in range(3):
            x = {"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [1, 10]}
            flags = {"sequence_id": "a", "sequence_start": index == 0, "sequence_end": index == 2}
            body = {"inputs": [x, keep], "parameters": flags, "outputs": [{"name": "total"}]}
            status, _, answer = ask(server, "POST", "/v2/models/one/infer", body)
            assert status == 200
            assert json.loads(answer)["outputs"][0]["data"] == [index + 1, 10 * (index + 1)]
            wrong = {**body, "inputs": [{**x, "shape": [1, 1], "data": [1]}, keep], "parameters": {"sequence_id": "a"}}
            assert error_of(ask(server, "POST", "/v2/models/one/infer", wrong))[0] == 400


def test_states_of_a_file_that_does_not_name_them(tmp_path: Path) -> None:
    file = accumulator(tmp_path / "sum.onnx")
    assert "--state state=nothing fits no model" in failed(file, "--state", "state=nothing")
    assert "'state' is not INPUT=OUTPUT" in failed(file, "--state", "state")
    with serving([file], "--state", "state=stateN", "--no-grpc") as server:
        sums = []
        for number in range(3):
            inputs = [
                {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]},
                {"name": "scale", "shape": [], "datatype": "INT64", "data": [1]},
            ]
            parameters = {"sequence_id": 7, "sequence_start": number == 0, "sequence_end": number == 2}
            body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
            status, _, answer = ask(server, "POST", "/v2/models/sum/infer", body)
            assert status == 200, answer
            sums.append(json.loads(answer)["outputs"][0]["data"])
    assert sums == [[1, 2, 3], [2, 4, 6], [3, 6, 9]]
