"""The server as an application that another program runs, as one of several replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import uvicorn

from lstm_onnx.errors import InputError, ModelError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.file_digest import file_digest
from lstm_onnx.serving.client import open_stream
from lstm_onnx.serving.logs import Log
from lstm_onnx.serving.replica_app import ReplicaApp
from lstm_onnx.serving.settings import Settings

from ..runtime.models import randoms

FRAME = {"name": "input", "shape": [1, 1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def application(file: Path, **digests: str) -> ReplicaApp:
    settings = Settings(provider="cpu", threads=1, replicated=True)
    return ReplicaApp({"lstm": str(file)}, digests or {"lstm": file_digest(file)}, settings, Log(quiet=True))


@asynccontextmanager
async def running(app: ReplicaApp, root: str = "") -> AsyncIterator[str]:
    """The application under uvicorn, with the events of its life; gives its URL."""
    config = uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio", root_path=root)
    server = uvicorn.Server(config)
    server.capture_signals = lambda: asynccontextmanager(None)  # type: ignore[assignment,method-assign,arg-type]
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
        assert not task.done()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"  # uvicorn puts the root before the path
    server.should_exit = True
    await task


async def post(url: str, body: object) -> tuple[int, dict]:
    def ask() -> tuple[int, dict]:
        try:
            with urlopen(url, json.dumps(body).encode()) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            return error.code, json.loads(error.read())

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("root", ["", "/models"])
def test_streams_and_whole_sequences_but_nothing_that_would_reach_any_replica(
    folder: Path, lstm: Model, root: str
) -> None:
    async def main() -> None:
        x = randoms(2, 1, 4)
        async with running(application(folder / "lstm.onnx"), root) as url:
            async with open_stream(url, "lstm", snapshots=5) as stream:
                np.testing.assert_array_equal(await stream.step(x), lstm.stream()(x))
            status, found = await post(f"{url}/v2/models/lstm/infer", {"inputs": [FRAME]})
            assert status == 200
            assert len(found["outputs"][0]["data"]) == 5
            part = {"inputs": [FRAME], "parameters": {"sequence_id": 7, "sequence_start": True}}
            for path, body in (
                ("v2/models/lstm/infer", part),
                ("v2/repository/models/lstm/load", {}),
                ("v2/repository/models/lstm/unload", {}),
            ):
                status, found = await post(f"{url}/{path}", body)
                assert status == 501
                assert "one of several servers" in found["error"]

    asyncio.run(main())


def test_a_file_that_is_not_the_deployed_one_is_not_served(folder: Path) -> None:
    async def main() -> None:
        app = application(folder / "lstm.onnx", lstm="0" * 64)
        sent: list[dict] = []

        async def receive() -> dict:
            return {"type": "lifespan.startup"}

        async def send(message: dict) -> None:
            sent.append(message)

        with pytest.raises(ModelError, match="is not the file that was deployed"):
            await app({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
        assert sent[0]["type"] == "lifespan.startup.failed"

    asyncio.run(main())


def test_arguments_of_a_deployment(folder: Path) -> None:
    from lstm_onnx.ray.replicas import _replicas, _settings

    assert _replicas(3) == (3, 3)
    assert _replicas((1, 4)) == (1, 4)
    for wrong in (0, (2, 1), (1, 2, 3), "2"):
        with pytest.raises(InputError, match="replicas = "):
            _replicas(wrong)  # type: ignore[arg-type]
    found = _settings(9, {"tokens": "t", "idle_seconds": 5.0})
    assert (found.max_streams, found.threads, found.replicated, found.tokens) == (9, 1, True, "t")
    for name in ("port", "max_streams", "replicated", "anything"):
        with pytest.raises(InputError, match=f"{name} is not a setting of a deployment; settings are deadline"):
            _settings(9, {name: 1})
