"""Many websocket streams from one process, as cheaply as possible, so that the server is what is measured.

``python -m tests.benchmarks.websocket_client PORT PATH STREAMS ACTIVE SECONDS INTERVAL BYTES`` prints the seconds of
each answer as JSON.  Each active stream sends a frame as soon as the last one was answered, and INTERVAL seconds after
the last at the earliest; the others are open and silent, after one frame.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
import time

import uvloop


def handshake(port: int, path: str) -> bytes:
    head = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return head.encode()


def masked(payload: bytes) -> bytes:
    """A binary frame, with a mask of zeros."""
    length = struct.pack(">BBH", 0x82, 0x80 | 126, len(payload))
    return length + bytes(4) + payload


async def message(reader: asyncio.StreamReader) -> bytes:
    _, size = await reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
    return await reader.readexactly(size)


async def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]
    streams, active = int(sys.argv[3]), int(sys.argv[4])
    seconds, interval, size = float(sys.argv[5]), float(sys.argv[6]), int(sys.argv[7])
    frame = masked(struct.pack("<f", 0.5) * (size // 4))
    opened = []
    for _ in range(streams):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(handshake(port, path))
        await reader.readuntil(b"\r\n\r\n")
        await message(reader)
        writer.write(frame)
        await message(reader)
        opened.append((reader, writer))
    print("open", flush=True)
    sys.stdin.readline()
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(random.random() * interval)  # noqa: S311
        while (began := time.perf_counter()) < end:
            writer.write(frame)
            await message(reader)
            done = time.perf_counter()
            times.append(done - began)
            if began + interval > done:
                await asyncio.sleep(began + interval - done)

    await asyncio.gather(*[stream(*pair) for pair in opened[:active]])
    print(json.dumps(times), flush=True)
    sys.stdin.readline()
    for _, writer in opened:
        writer.transport.abort()


if __name__ == "__main__":
    uvloop.run(main())
