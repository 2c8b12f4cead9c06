"""The client's stream that goes on after its connection or its server is lost, or says that it cannot."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from websockets.asyncio.client import ClientConnection

import lstm_onnx
from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.serving.client import open_stream
from lstm_onnx.serving.resuming_stream import ResumingStream

from ..runtime.models import exported, randoms
from .servers import Server, serving
from .test_http import metric

pytestmark = pytest.mark.sweep(2)


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
            lost(other_file.port, 1, "a different model, or a different version"),
            lost(other_file.port, 3, "a different model, or a different version"),
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
    "elements": {"x": [1, 0]},
    "snapshots": 2,
    "digest": "0" * 64,
}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("miscounts", "has run 3 frames, but answered 2"),
        ("answers too much", "a frame that it was not sent"),
        ("says nothing", "no answer for 0.5 s"),
        ("goes on elsewhere", "continues at a frame other than 2"),
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
        lstm_onnx.make_streaming(source, tmp_path / f"{name}.onnx", time={"x": 2}, trial=False)
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
