"""Replicas on Ray Serve: one of two is killed under load.  Ray is large, and these run only where it is installed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx.ray
from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import load
from lstm_onnx.serving.client import open_stream
from lstm_onnx.serving.resuming_stream import ResumingStream

from ..runtime.models import exported, randoms

ray = pytest.importorskip("ray")
serve = pytest.importorskip("ray.serve")
pytestmark = pytest.mark.filterwarnings("default")
MOST = 14


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deployed") / "m.onnx"
    exported(path, num_layers=2)
    return path


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        application = lstm_onnx.ray.deployment(model, replicas=2, streams=MOST, provider="cpu")
        serve.run(application, name="tested", route_prefix="/models")
        yield f"http://127.0.0.1:{port}/models"
    finally:
        serve.shutdown()
        ray.shutdown()


def replicas() -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "ray::ServeReplica:tested" in line]


def test_a_killed_replica_harms_no_stream(url: str, model: Path) -> None:
    alone = load(model, "cpu", 1)
    resumed = []
    stopped = False

    async def caller(number: int) -> None:
        expected, seed = alone.stream(), 1000 * number
        async with open_stream(url, "m", snapshots=5) as stream:
            while not stopped:
                seed += 1
                x = randoms(2, 1, 4, seed=seed)
                np.testing.assert_array_equal(await stream.step(x), expected(x))
                await asyncio.sleep(0.05)
            assert isinstance(stream, ResumingStream)
            resumed.append(stream.resumed)
            assert seed > 1000 * number + 20

    async def main() -> None:
        nonlocal stopped
        tasks = [asyncio.create_task(caller(number)) for number in range(MOST)]
        await asyncio.sleep(3)
        found = replicas()
        assert len(found) == 2
        os.kill(found[0], signal.SIGKILL)
        await asyncio.sleep(5)
        stopped = True
        await asyncio.gather(*tasks)
        assert 0 < sum(resumed) <= len(tasks)

    asyncio.run(main())


def test_full_replicas_say_so(url: str) -> None:
    async def main() -> None:
        end = time.monotonic() + 60
        while len(replicas()) < 2:  # the killed one is replaced
            assert time.monotonic() < end
            await asyncio.sleep(0.2)
        streams = [open_stream(url, "m") for _ in range(2 * MOST + 4)]
        opened = []
        refused: list[str] = []
        for stream in streams:
            try:
                await asyncio.wait_for(stream.__aenter__(), 30)
                opened.append(stream)
            except RunError as error:
                refused.append(str(error))
        assert len(refused) >= 4
        assert all(f"all {MOST} streams of m are open" in text for text in refused)
        for stream in opened:
            await stream.__aexit__(None, None, None)

    asyncio.run(main())


def test_arguments(model: Path) -> None:
    with pytest.raises(InputError, match="port is not a setting of a deployment"):
        lstm_onnx.ray.deployment(model, port=3)
    with pytest.raises(InputError, match="the least is more than the most"):
        lstm_onnx.ray.deployment(model, replicas=(2, 1))
