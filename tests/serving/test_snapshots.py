"""Streams that survive their connection and their server, from snapshots that their clients keep."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import lstm_onnx
from lstm_onnx.errors import FileError, InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.serving.client import open_stream
from lstm_onnx.serving.errors import RequestError
from lstm_onnx.serving.resuming_stream import ResumingStream
from lstm_onnx.serving.snapshots import Snapshot, new_key, opened, read_key

from ..runtime.models import exported, randoms
from .servers import Server, serving
from .test_http import metric

STATES = {"h": np.arange(6, dtype=np.float32).reshape(2, 1, 3), "seen": np.array([[True, False]]), "n": np.array(7)}


def test_a_snapshot_is_what_was_signed() -> None:
    key = new_key()
    text = Snapshot("d" * 64, 12, STATES).signed(key)
    found = opened(text, key, "d" * 64)
    assert found.frame == 12
    assert found.states.keys() == STATES.keys()
    for name, array in STATES.items():
        np.testing.assert_array_equal(found.states[name], array)
        assert found.states[name].dtype == array.dtype


def test_every_changed_byte_is_refused() -> None:
    key = new_key()
    text = Snapshot("d" * 64, 12, STATES).signed(key)
    content = base64.b64decode(text)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(RequestError, match="was not signed"):
            opened(base64.b64encode(changed).decode(), key, "d" * 64)
    for wrong in (None, 5, "", "x", "é", text[:-4], text + "AAAA", base64.b64encode(content[:-32]).decode()):
        with pytest.raises(RequestError, match="was not signed"):
            opened(wrong, key, "d" * 64)
    with pytest.raises(RequestError, match="was not signed"):
        opened(text, new_key(), "d" * 64)
    with pytest.raises(RequestError, match="is of another model"):
        opened(text, key, "e" * 64)


def test_keys_that_are_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{'k' * 32}\n")
    assert read_key(str(tmp_path / "key")) == b"k" * 32
    (tmp_path / "key").write_text("secret\n")
    with pytest.raises(InputError, match="a key of 6 bytes; it must have 32"):
        read_key(str(tmp_path / "key"))
    with pytest.raises(FileError):
        read_key(str(tmp_path / "none"))


# --- the protocol -----------------------------------------------------------------------------------------------


def url(server: Server, query: str = "?snapshots=3") -> str:
    return f"{server.http.replace('http', 'ws')}/v2/models/lstm/stream{query}"


async def answers(connection: ClientConnection, frames: list[np.ndarray]) -> tuple[list[bytes], list[dict]]:
    """The answers to frames, and the texts between them."""
    binary: list[bytes] = []
    texts: list[dict] = []
    for x in frames:
        await connection.send(x.tobytes())
    while len(binary) < len(frames):
        message = await connection.recv()
        if isinstance(message, bytes):
            binary.append(message)
        else:
            texts.append(json.loads(message))
    return binary, texts


async def until_closed(connection: ClientConnection) -> list[bytes | str]:
    received = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            received.append(await connection.recv())
    return received


def test_a_snapshot_continues_the_stream_on_another_connection(server: Server, lstm: Model) -> None:
    frames = [randoms(1, 1, 4, seed=seed) for seed in range(8)]
    alone = lstm.stream()
    expected = [alone(x).tobytes() for x in frames]

    async def main() -> None:
        async with connect(url(server)) as connection:
            first = json.loads(await connection.recv())
            assert (first["snapshots"], len(first["digest"])) == (3, 64)
            found, texts = await answers(connection, frames[:7])
            assert found == expected[:7]
            assert [text["frame"] for text in texts] == [3, 6]
        for text, rest in zip(texts, (frames[3:], frames[6:]), strict=True):
            async with connect(url(server)) as connection:
                await connection.recv()
                await connection.send(json.dumps({"resume": text["snapshot"]}))
                assert json.loads(await connection.recv()) == {"resumed": text["frame"]}
                found, _ = await answers(connection, rest)
                assert found == expected[text["frame"] :]

    before = metric(server, 'lstm_onnx_resumed_streams_total{model="lstm",result="resumed"}')
    asyncio.run(main())
    assert metric(server, 'lstm_onnx_resumed_streams_total{model="lstm",result="resumed"}') == before + 2


def test_a_frame_that_is_refused_is_not_counted(server: Server) -> None:
    async def main() -> None:
        async with connect(url(server)) as connection:
            await connection.recv()
            await answers(connection, [randoms(1, 1, 4)] * 2)
            await connection.send(b"1")
            assert "1 bytes" in json.loads(await connection.recv())["error"]
            await answers(connection, [randoms(1, 1, 4)])
            assert json.loads(await connection.recv())["frame"] == 3

    asyncio.run(main())


def test_what_cannot_continue_ends_and_never_starts_from_zeros(server: Server) -> None:
    async def snapshot_of(model: str) -> str:
        async with connect(url(server).replace("lstm", model)) as connection:
            await connection.recv()
            frame = randoms(1, 1, 80) if model == "wide" else randoms(1, 1, 4)
            for _ in range(3):
                await connection.send(frame.tobytes())
                await connection.recv()
            return str(json.loads(await connection.recv())["snapshot"])

    async def main() -> None:
        own, other = await snapshot_of("lstm"), await snapshot_of("wide")
        x = randoms(1, 1, 4).tobytes()
        for messages, reason in (
            ([json.dumps({"resume": own[:-8] + "AAAAAAA="}), x], "was not signed"),
            ([json.dumps({"resume": None}), x], "was not signed"),
            ([json.dumps({"resume": other}), x], "is of another model"),
            ([x, json.dumps({"resume": own}), x], "before its first frame"),
            ([json.dumps({"resume": own}), json.dumps({"resume": own}), x], "before its first frame"),
        ):
            async with connect(url(server)) as connection:
                await connection.recv()
                for message in messages:
                    await connection.send(message)
                received = await until_closed(connection)
                assert connection.close_code == 4409
                last = json.loads(received[-1])
                assert reason in last["error"]
                assert last["closing"] is True
                assert len(received) <= 2
        for query in ("?snapshots=0", "?snapshots=", "?snapshots=x", "?snapshots=-1"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(server, query))
            assert refused.value.response.status_code == 400

    asyncio.run(main())


# --- the client ---------------------------------------------------------------------------------------------------


class Proxy:
    """Passes connections on to a server, and cuts them after a number of bytes, drawn anew for each."""

    def __init__(self, port: int, rng: np.random.Generator | None) -> None:
        self.target, self.rng = port, rng
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.cut()
        await self.server.wait_closed()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            further, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, onward}
        self.writers |= both
        left = [int(self.rng.integers(500, 6000)) if self.rng is not None else 10**12]

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while left[0] > 0 and (data := await source.read(300)):
                    sink.write(data[: left[0]])
                    left[0] -= len(data)
            finally:
                for each in both:
                    each.transport.abort()

        await asyncio.gather(pump(reader, onward), pump(further, writer), return_exceptions=True)
        self.writers -= both


@pytest.mark.parametrize("every", [1, 4])
def test_cut_connections_are_not_noticed(server: Server, lstm: Model, every: int) -> None:
    """Frames are sent one by one and ahead; each answer is that of the uninterrupted stream."""

    async def caller(number: int, port: int) -> int:
        rng = np.random.default_rng(number)
        alone = lstm.stream()
        async with open_stream(f"http://127.0.0.1:{port}", "lstm", snapshots=every) as stream:
            assert stream.inputs[0]["name"] == "input"
            for burst in range(15):
                frames = [randoms(int(rng.integers(1, 4)), 1, 4, seed=1000 * number + 10 * burst + i) for i in range(4)]
                if burst % 5 == 4:
                    with pytest.raises(InputError):
                        await stream.step(np.zeros((1, 1, 3), np.float32))
                for x, found in zip(frames, await asyncio.gather(*map(stream.step, frames)), strict=True):
                    np.testing.assert_array_equal(found, alone(x))
            assert isinstance(stream, ResumingStream)
            return stream.resumed

    async def main() -> None:
        async with Proxy(server.port, np.random.default_rng(every)) as proxy:
            resumed = await asyncio.gather(*[caller(number, proxy.port) for number in range(6)])
            assert min(resumed) >= 1
            assert sum(resumed) >= 15

    asyncio.run(main())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef" * 4)
    return path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_stream_survives_its_server(folder: Path, lstm: Model, key: Path, ending: signal.Signals) -> None:
    """Another one with the same key takes its place, at the same address."""
    options = ["--no-grpc", "--snapshot-key", str(key)]

    async def main(servers: Iterator[Server]) -> None:
        first = next(servers)
        async with Proxy(first.port, None) as proxy:
            streams = [open_stream(f"http://127.0.0.1:{proxy.port}", "lstm", snapshots=4) for _ in range(5)]
            entered = [await stream.__aenter__() for stream in streams]
            alone = [lstm.stream() for _ in streams]

            async def step(number: int, seed: int) -> None:
                x = randoms(1, 1, 4, seed=seed)
                np.testing.assert_array_equal(await entered[number].step(x), alone[number](x))

            for seed in range(6):
                await asyncio.gather(*[step(number, 10 * number + seed) for number in range(5)])
            first.process.send_signal(ending)
            pending = [asyncio.create_task(step(number, 7)) for number in range(5)]
            await asyncio.to_thread(first.process.wait)
            second = await asyncio.to_thread(next, servers)
            proxy.target = second.port
            await asyncio.gather(*pending)
            for seed in range(5):
                await asyncio.gather(*[step(number, 90 * number + seed) for number in range(5)])
            assert metric(second, 'lstm_onnx_resumed_streams_total{model="lstm",result="resumed"}') == 5
            for stream in streams:
                await stream.__aexit__(None, None, None)

    def servers() -> Iterator[Server]:
        with serving([folder / "lstm.onnx"], *options) as first:
            yield first
            with serving([folder / "lstm.onnx"], *options) as second:
                yield second

    found = servers()
    asyncio.run(main(found))
    found.close()


def test_a_stream_that_nothing_can_continue_is_lost_and_says_so(server: Server, folder: Path, tmp_path: Path) -> None:
    """Another key; another file of that name, before the first snapshot and after it; no server at all."""
    exported(tmp_path / "lstm.onnx", num_layers=2, seed=1)
    x = randoms(1, 1, 4)

    async def lost(target: int, steps: int, reason: str, reconnect: float = 30) -> None:
        async with (
            Proxy(server.port, None) as proxy,
            open_stream(f"http://127.0.0.1:{proxy.port}", "lstm", snapshots=2, reconnect=reconnect) as stream,
        ):
            for _ in range(steps):
                await stream.step(x)
            proxy.target = target
            proxy.cut()
            for _ in range(2):
                with pytest.raises(ConnectionError, match=f"the stream is lost.*{reason}"):
                    await stream.step(x)

    async def main(other_key: Server, other_file: Server) -> None:
        await asyncio.gather(
            lost(other_key.port, 3, "was not signed with this server's key"),
            lost(other_file.port, 1, "another model, or another version"),
            lost(other_file.port, 3, "another model, or another version"),
            lost(free_port(), 3, r"no answer for 0\.3 s; .*", reconnect=0.3),
        )
        with pytest.raises(ConnectionError):
            async with open_stream(f"http://127.0.0.1:{free_port()}", "lstm", snapshots=2):
                pass
        with pytest.raises(RunError, match="there is no model"):
            async with open_stream(server.http, "nobody", snapshots=2):
                pass

    with (
        serving([folder / "lstm.onnx"], "--no-grpc") as other_key,
        serving([tmp_path / "lstm.onnx"], "--no-grpc") as other_file,
    ):
        asyncio.run(main(other_key, other_file))


async def scripted(
    handler: Callable[[ClientConnection], Awaitable[None]], use: Callable[[ResumingStream], Awaitable[None]]
) -> None:
    """A client beside a server that answers as `handler` does."""
    from websockets.asyncio.server import serve

    async with serve(handler, "127.0.0.1", 0) as found:
        port = next(iter(found.sockets)).getsockname()[1]
        async with open_stream(f"http://127.0.0.1:{port}", "m", snapshots=2, reconnect=0.5) as stream:
            assert isinstance(stream, ResumingStream)
            await use(stream)


FIRST = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
    "snapshots": 2,
    "digest": "0" * 64,
}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("miscounts", "has run 3 frames, and answered 2"),
        ("answers too much", "a frame that it was not sent"),
        ("says nothing", "no answer for 0.5 s"),
        ("goes on elsewhere", "goes on at another frame than 2"),
        ("talks nonsense", "the stream is lost"),
    ],
)
def test_a_client_notices_a_server_that_counts_wrongly(fault: str, reason: str) -> None:
    connections = 0

    async def handler(connection: ClientConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(json.dumps(FIRST))
        number = 0
        async for message in connection:
            if isinstance(message, str):
                await connection.send(json.dumps({"resumed": 5}))
                continue
            if fault == "says nothing":
                continue
            number += 1
            await connection.send(message)
            if fault == "answers too much":
                await connection.send(message)
            if fault == "talks nonsense":
                await connection.send("{")
            if number == 2:
                await connection.send(json.dumps({"snapshot": "s", "frame": 3 if fault == "miscounts" else 2}))
                if fault == "goes on elsewhere":
                    return

    async def use(stream: ResumingStream) -> None:
        x = np.ones(1, np.float32)

        async def steps() -> None:
            for _ in range(10):
                assert await stream.step(x) == x
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError, match=reason):
            await steps()

    asyncio.run(scripted(handler, use))  # type: ignore[arg-type]
    assert connections < 20


def test_states_of_every_kind_continue(tmp_path: Path, folder: Path) -> None:
    """Caches of a convolution, counted steps of one with a stride, integers, and a model with a fixed batch."""
    from ..streaming.test_convert import conv_lstm, saved

    for name, stride in (("causal", 1), ("strided", 3)):
        source = saved(conv_lstm((2, 0), stride=stride), tmp_path / f"{name}-whole.onnx")
        lstm_onnx.make_streaming(source, tmp_path / f"{name}.onnx", time={"x": 2})
    model = onnx.load(folder / "lstm.onnx")
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "batch":
                dim.dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    files = [*(tmp_path / f"{name}.onnx" for name in ("causal", "strided", "one")), folder / "sum.onnx"]

    async def check(server: Server, path: Path, every: int) -> None:
        alone = lstm_onnx.load(path, "cpu", threads=1).stream()
        rng = np.random.default_rng(every)
        async with (
            Proxy(server.port, None) as proxy,
            open_stream(f"http://127.0.0.1:{proxy.port}", path.stem, snapshots=every) as stream,
        ):
            for step in range(24):
                x: dict[str, np.ndarray] = {}
                for item in stream.inputs:
                    shape = [int(rng.integers(1, 5)) if size == -1 else size for size in item["shape"]]
                    kind = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}[item["datatype"]]
                    x[item["name"]] = rng.integers(-9, 9, shape).astype(kind)
                found, expected = await stream.step(x), alone.run(x)
                for name, array in found.items():
                    np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-6)
                if step % 5 == 3:
                    proxy.cut()
            assert isinstance(stream, ResumingStream)
            assert stream.resumed >= 4

    async def main(server: Server) -> None:
        await asyncio.gather(*[check(server, path, every) for path in files for every in (1, 2, 7)])

    with serving(files, "--no-grpc") as server:
        asyncio.run(main(server))
