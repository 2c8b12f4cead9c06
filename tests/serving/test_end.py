"""How a server ends: what runs is finished, and nothing is waited for in vain."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from lstm_onnx.errors import InputError
from lstm_onnx.serving.client import open_stream
from lstm_onnx.serving.errors import RequestError
from lstm_onnx.serving.grpc_server import _OpenStream
from lstm_onnx.serving.protocol.messages import MESSAGES

from ..cli.test_interrupts import endless
from ..runtime.models import exported, randoms
from .servers import LONG, Server, command, serving
from .test_http import INFER, ask, error_of, infer

SIGNALS = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]


def used(server: Server) -> float:
    """The CPU time of the server; 0 where that is not known."""
    if sys.platform != "linux":
        return 0.0
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until_used(server: Server, seconds: float) -> None:
    """Wait until the server has used so much CPU time, as for a request that is under way."""
    if sys.platform != "linux":
        time.sleep(0.5)
        return
    end = time.monotonic() + LONG
    while used(server) < seconds:
        assert time.monotonic() < end
        time.sleep(0.01)


def until_children(server: Server) -> list[Path]:
    """The server's child processes in /proc, once there are some."""
    end = time.monotonic() + LONG
    threads = Path(f"/proc/{server.process.pid}/task")
    while not (found := " ".join(path.read_text() for path in threads.glob("*/children")).split()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return [Path(f"/proc/{pid}") for pid in found]


@contextlib.contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Within it, new processes handle a signal so: they inherit what is ignored, as these tests do of nohup."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("number", SIGNALS)
def test_the_end_lets_what_runs_finish(folder: Path, number: signal.Signals) -> None:
    """A running request is answered, and its connection closed; a websocket is told; and the exit code is 0."""
    x = randoms(60_000, 1, 4)

    async def main(server: Server) -> None:
        async with open_stream(server.http, "lstm") as stream:
            await stream.step(randoms(1, 1, 4))
            request = json.dumps(infer(tensor={"shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}))
            head = request.replace(', "data": [1, 2, 3, 4]', "").encode()
            before = used(server)
            running = asyncio.create_task(
                asyncio.to_thread(
                    ask, server, "POST", INFER, head + x.tobytes(), Inference_Header_Content_Length=str(len(head))
                )
            )
            await asyncio.to_thread(until_used, server, before + 0.03)
            server.process.send_signal(number)
            status, headers, body = await running
            assert (status, headers.get("connection")) == (200, "close")
            assert len(json.loads(body)["outputs"][0]["data"]) == 60_000 * 5
            # By its close code, or by the answer to a frame that came just before.
            with pytest.raises((ConnectionError, InputError), match="the server is ending"):
                await stream.step(randoms(1, 1, 4))

    with handled(number, signal.SIG_DFL), serving([folder / "lstm.onnx"]) as server:
        asyncio.run(main(server))
        assert server.process.wait(LONG) == 0
        assert [event["event"] for event in server.events()][-1] == "stopped"


@pytest.mark.skipif(len(SIGNALS) < 2, reason="Windows has no SIGHUP")
def test_a_signal_that_is_to_be_ignored_is(folder: Path) -> None:
    """As nohup has it."""
    with handled(signal.SIGHUP, signal.SIG_IGN), serving([folder / "lstm.onnx"], "--no-grpc") as server:
        server.process.send_signal(signal.SIGHUP)
        for _ in range(3):
            assert ask(server, "GET", "/v2/health/ready")[0] == 200


def test_clients_that_go_on_asking_do_not_keep_it_from_ending(folder: Path) -> None:
    """Over new connections and over old ones; each gets all of its answers, or none."""
    done: list[int] = []
    errors: list[Exception] = []
    x = randoms(2000, 1, 80)
    head = json.dumps(infer(tensor={"shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}))
    head = head.replace(', "data": [1, 2, 3, 4]', "")

    def client(server: Server) -> None:
        path = "/v2/models/wide/infer"
        while not errors:
            try:
                answer = ask(
                    server, "POST", path, head.encode() + x.tobytes(), Inference_Header_Content_Length=str(len(head))
                )
                done.append(answer[0])
            except ConnectionRefusedError:
                return
            except (OSError, http.client.HTTPException) as error:
                errors.append(error)

    with serving([folder / "wide.onnx"], "--max-request-bytes", "1000000", "--no-grpc") as server:
        threads = [threading.Thread(target=client, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + LONG
        while len(done) < 8:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
        assert server.events()[-1]["unfinished"] == 0
    assert set(done) == {200}
    assert all(isinstance(error, ConnectionError) for error in errors)  # of a connection that it had not yet accepted


def test_an_answer_is_read_to_its_end_however_slowly(folder: Path) -> None:
    x = randoms(60_000, 1, 4)
    tensor = {"shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps(infer(tensor=tensor, parameters={"binary_data_output": False}))
    head = head.replace(', "data": [1, 2, 3, 4]', "")
    connection = http.client.HTTPConnection("127.0.0.1", 1, timeout=LONG)
    with serving([folder / "lstm.onnx"], "--no-grpc") as server, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        reader.settimeout(LONG)
        reader.connect(("127.0.0.1", server.port))
        connection.sock = reader
        connection.request(
            "POST", INFER, head.encode() + x.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
        )
        answer = connection.getresponse()
        server.process.terminate()
        time.sleep(1.5)
        assert len(json.loads(answer.read())["outputs"][0]["data"]) == 60_000 * 5
        assert server.process.wait(LONG) == 0


def test_a_stream_of_grpc_is_answered_and_ended(folder: Path) -> None:
    request = MESSAGES["ModelInferRequest"](
        model_name="lstm",
        inputs=[{"name": "input", "datatype": "FP32", "shape": [1, 1, 4]}],
        raw_input_contents=[bytes(16)],
    ).SerializeToString()
    requests: queue.Queue[bytes] = queue.Queue()
    with serving([folder / "lstm.onnx"]) as server, grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        answers = stream(iter(requests.get, b""), timeout=LONG)
        requests.put(request)
        next(answers)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8  # and not the 10 s of --drain
        with pytest.raises(grpc.RpcError, match="the server is ending, and accepts no new request") as caught:
            next(answers)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        requests.put(b"")


def test_a_stream_of_grpc_that_has_just_begun_is_ended_as_well() -> None:
    async def main() -> object:
        service = SimpleNamespace(reading=set(), draining=True)
        stream = _OpenStream(cast("Any", service), cast("Any", None))
        for task in service.reading:
            task.cancel()
        return await asyncio.wait_for(stream.answers.get(), LONG)

    assert isinstance(asyncio.run(main()), RequestError)


def test_a_log_of_json_has_nothing_else(folder: Path) -> None:
    arguments = [each for each in command([folder / "lstm.onnx"], "--no-grpc") if each != "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("serving lstm at http://127.0.0.1:")
        process.terminate()
        _, log = process.communicate(timeout=LONG)
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["started", "stopped"]


def _minutes(folder: Path) -> tuple[Path, np.ndarray]:
    """A model whose steps cost time and hardly any memory, and an input for which it takes minutes on any machine."""
    exported(folder / "slow.onnx", input_size=1, hidden_size=256, proj_size=1)
    return folder / "slow.onnx", np.zeros((2_000_000, 1, 1), np.float32)


def _ask_for(server: Server, x: np.ndarray, parameters: dict[str, object]) -> tuple[int, object, bytes]:
    tensor = {"shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps(infer(tensor=tensor, parameters={"binary_data_output": True, **parameters}))
    head = head.replace(', "data": [1, 2, 3, 4]', "")
    body = head.encode() + x.tobytes()
    return ask(server, "POST", "/v2/models/slow/infer", body, Inference_Header_Content_Length=str(len(head)))


@pytest.mark.sweep(2)
@pytest.mark.parametrize("parameters", [{}, {"sequence_id": 7, "sequence_start": True}], ids=["whole", "a sequence"])
def test_the_end_does_not_wait_for_ever(tmp_path: Path, parameters: dict[str, object]) -> None:
    """A run that takes longer than --drain is given up, and the exit code says so."""
    model, x = _minutes(tmp_path)
    answers = []
    with serving([model], "--drain", "0.1", "--no-grpc") as server:
        before = used(server)
        asking = threading.Thread(target=lambda: answers.append(_ask_for(server, x, parameters)))
        asking.start()
        until_used(server, before + 0.3)
        assert server.stop() == 143
        asking.join()
        assert error_of(answers[0]) == (503, "the server ended before the request was finished")
        assert server.events()[-1]["unfinished"] == 1


def test_the_end_does_not_wait_for_a_run_that_is_answered(tmp_path: Path) -> None:
    """At its deadline: the run goes on, since a Scan cannot be ended."""
    model, x = _minutes(tmp_path)
    with serving([model], "--drain", "0.1", "--deadline", "0.5", "--no-grpc") as server:
        assert error_of(_ask_for(server, x, {})) == (504, "no result within 0.5 s")
        assert server.stop() == 143
        assert server.events()[-1]["event"] == "given_up"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as Linux has them")
def test_the_end_does_not_wait_for_a_load(tmp_path: Path) -> None:
    """Of a file of others that hangs, which its trial in a child process would end after 20 s."""
    exported(tmp_path / "m.onnx")
    answers = []

    def load(server: Server) -> None:
        with grpc.insecure_channel(server.grpc) as channel:
            method = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
            with pytest.raises(grpc.RpcError) as caught:
                method(b"\x12\x01m", timeout=LONG)
            answers.append(caught.value.code())

    with serving([tmp_path / "m.onnx"], "--drain", "0.1") as server:
        endless(tmp_path / "m.onnx")
        asking = threading.Thread(target=load, args=(server,))
        asking.start()
        (child,) = until_children(server)
        began = time.monotonic()
        assert server.stop() == 143
        assert time.monotonic() - began < 15
        asking.join()
        assert answers in ([grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.CANCELLED])
        assert server.events()[-1]["unfinished"] == 1
    end = time.monotonic() + LONG
    while child.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
