"""Streams that survive their connection and their server, from snapshots that their clients keep."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lstm_onnx.errors import FileError, InputError
from lstm_onnx.runtime import Model
from lstm_onnx.serving.errors import RequestError
from lstm_onnx.serving.snapshots import Snapshot, new_key, opened, read_key

from ..runtime.models import randoms
from .servers import Server
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
    with pytest.raises(RequestError, match="is of a different model"):
        opened(text, key, "e" * 64)


def test_keys_that_are_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{'k' * 32}\n")
    assert read_key(str(tmp_path / "key")) == b"k" * 32
    (tmp_path / "key").write_text("secret\n")
    with pytest.raises(InputError, match="a key of 6 bytes; a key must have 32"):
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
            ([json.dumps({"resume": other}), x], "is of a different model"),
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
