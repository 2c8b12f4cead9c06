"""A websocket per stream, by our own clients and by a plain one."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.serving.client import open_stream

from ..runtime.models import randoms
from .servers import LONG, Server, serving
from .test_http import metric


def url(server: Server, model: str) -> str:
    return f"{server.http.replace('http', 'ws')}/v2/models/{model}/stream"


def test_streams_get_what_they_would_alone(server: Server, wide: Model) -> None:
    async def caller(number: int) -> None:
        alone = wide.stream()
        async with open_stream(server.http, "wide") as stream:
            assert stream.inputs == [{"name": "input", "datatype": "FP32", "shape": [1, -1, 80]}]
            for index in range(8):
                x = randoms(1, 1 + (number + index) % 4, 80, seed=100 * number + index)
                np.testing.assert_array_equal(await stream.step(x), alone(x))

    async def main() -> None:
        await asyncio.gather(*[caller(number) for number in range(20)])

    labels = '{kind="streams",model="wide"}'
    before = [metric(server, f"lstm_onnx_batch_size_{part}{labels}") for part in ("sum", "count")]
    asyncio.run(main())
    frames, batches = (
        metric(server, f"lstm_onnx_batch_size_{part}{labels}") - start
        for part, start in zip(("sum", "count"), before, strict=True)
    )
    assert frames == 20 * 8
    assert batches < frames  # they were stepped together


def test_frames_may_be_sent_ahead(server: Server, lstm: Model) -> None:
    frames = [randoms(1, 1, 4, seed=seed) for seed in range(30)]

    async def main() -> list[np.ndarray]:
        async with open_stream(server.http, "lstm") as stream:
            return await asyncio.gather(*[stream.step({"input": x}) for x in frames])

    alone = lstm.stream()
    for x, found in zip(frames, asyncio.run(main()), strict=True):
        np.testing.assert_array_equal(found["output"], alone(x))


def test_several_inputs_and_outputs(server: Server) -> None:
    async def main() -> None:
        async with open_stream(server.http, "sum") as stream:
            for total in (3, 6):
                found = await stream.step({"x": np.array([[3, 5]]), "keep": np.array([[True, False]])})
                assert found["total"].tolist() == [[total, 0]]
                assert found["negative"].tolist() == [[-total, 0]]

    asyncio.run(main())


def test_a_frame_that_does_not_fit_leaves_the_stream_alone(server: Server, lstm: Model) -> None:
    async def main() -> None:
        x = randoms(1, 1, 4)
        alone = lstm.stream()
        async with connect(url(server, "lstm")) as connection:
            assert json.loads(await connection.recv())["model"] == "lstm"
            await connection.send(x.tobytes())
            assert await connection.recv() == alone(x).tobytes()
            for wrong, message in (
                (x.tobytes()[:-1], "has 15 bytes; it must have 16, and 16 for each further step"),
                (b"", "has 0 bytes"),
                ("text", "must be binary"),
            ):
                await connection.send(wrong)
                assert message in json.loads(await connection.recv())["error"]
            await connection.send(x.tobytes())
            assert await connection.recv() == alone(x).tobytes()
        async with open_stream(server.http, "lstm") as stream:
            with pytest.raises(InputError, match="input is float64"):
                await stream.step(np.zeros((1, 1, 4)))

    asyncio.run(main())


def test_what_is_refused(server: Server) -> None:
    async def main() -> None:
        for model, message in (("nobody", "there is no model"), ("both", "has no streams")):
            with pytest.raises(RunError, match=message):
                async with open_stream(server.http, model):
                    pass
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{server.http.replace('http', 'ws')}/elsewhere"):
                pass
        assert caught.value.response.status_code == 404
        with pytest.raises(InvalidStatus) as caught:
            async with connect(url(server, "lstm"), origin="https://example.com"):
                pass
        assert caught.value.response.status_code == 403
        async with connect(url(server, "lstm"), origin=server.http):
            pass
        async with connect(url(server, "lstm")) as connection:
            await connection.recv()
            await connection.send(bytes(1_000_016))
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009  # too large

    asyncio.run(main())


def test_a_silent_stream_is_closed_and_told_so(folder: Path, lstm: Model) -> None:
    async def main(server: Server) -> None:
        x = randoms(1, 1, 4)
        async with open_stream(server.http, "lstm") as stream, open_stream(server.http, "lstm") as busy:
            await stream.step(x)
            alone = lstm.stream()
            end = time.monotonic() + 3
            while time.monotonic() < end:
                np.testing.assert_array_equal(await busy.step(x), alone(x))
                await asyncio.sleep(0.05)
            with pytest.raises(ConnectionError, match=r"closed after 1\.5 s without a frame"):
                await stream.step(x)

    with serving([folder / "lstm.onnx"], "--idle", "1.5", "--no-grpc") as server:
        asyncio.run(main(server))


def test_a_vanishing_client_frees_its_stream(folder: Path, lstm: Model) -> None:
    """With half a frame sent, and without a word; others get the slots."""

    async def main(server: Server) -> None:
        for _ in range(6):
            async with connect(url(server, "lstm")) as connection:
                await connection.recv()
                raw: socket.socket = connection.transport.get_extra_info("socket")
                # A masked binary frame of 16 bytes, of which 4 come.
                connection.transport.write(b"\x82\x90" + b"\0" * 8)
                await asyncio.sleep(0)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.transport.abort()
            end = time.monotonic() + LONG
            while True:
                try:
                    async with open_stream(server.http, "lstm") as stream:
                        x = randoms(1, 1, 4)
                        np.testing.assert_array_equal(await stream.step(x), lstm.stream()(x))
                    break
                except RunError:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.01)

    with serving([folder / "lstm.onnx"], "--max-streams", "1", "--no-grpc") as server:
        asyncio.run(main(server))


SCRIPT = """
import { openStream } from "%s/client.mjs";
const stream = await openStream("%s", "sum");
let found;
for (let index = 0; index < 3; index++)
  found = await stream.step({ x: new BigInt64Array([2n, 5n]), keep: new Uint8Array([1, 0]) });
if (found.total[0] !== 6n || found.negative[0] !== -6n || found.total[1] !== 0n) throw new Error(String(found.total));
let refused = "";
const wrong = { x: new BigInt64Array(3), keep: new Uint8Array([1, 0]) };
await stream.step(wrong).catch((error) => (refused = error.message));
if (!refused.includes("bytes")) throw new Error(refused);
const shifted = { x: new BigInt64Array(1), keep: new Uint8Array(10) }; // together of as many bytes as right ones
await stream.step(shifted).catch((error) => (refused = error.message));
if (refused !== "x has 8 bytes; it must have 16") throw new Error(refused);
const lstm = await openStream("%s", "lstm");
await lstm.step({ input: new Float32Array(6) }).catch((error) => (refused = error.message));
if (!refused.startsWith("input has 24 bytes; it must have 16, and 16 for each further step")) throw new Error(refused);
if ((await lstm.step({ input: new Float32Array(12) })).output.length !== 15) throw new Error("three steps");
lstm.close();
stream.close();
const gone = await openStream("%s", "nobody").catch((error) => error.message);
if (!String(gone).includes("refused")) throw new Error(gone);
console.log("done");
"""


def test_the_client_for_browsers(server: Server, tmp_path: Path) -> None:
    node = shutil.which("node")
    version = (
        0 if node is None else int(subprocess.check_output([node, "--version"], text=True).strip("v").split(".")[0])
    )
    if version < 20:
        pytest.skip("needs Node 20 or later, which has WebSocket")
    flags = ["--experimental-websocket"] if version < 22 else []
    from urllib.request import urlopen

    with urlopen(f"{server.http}/client.mjs") as answer:  # noqa: S310
        assert answer.headers["content-type"].startswith("text/javascript")
        (tmp_path / "client.mjs").write_bytes(answer.read())
    script = tmp_path / "script.mjs"
    script.write_text(SCRIPT % (".", *[server.http] * 3), encoding="utf-8")
    done = subprocess.run(
        [str(node), *flags, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\n", done.stderr
