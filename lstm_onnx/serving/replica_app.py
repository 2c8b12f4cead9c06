"""The server as an ASGI application, for a program that runs several replicas of it behind a router."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..errors import ModelError
from .http_app import HttpApp, Receive, Scope, Send
from .logs import Log
from .service import Service
from .settings import Settings


class ReplicaApp:
    """One replica.  The program that runs it must send ASGI's lifespan events."""

    def __init__(self, files: Mapping[str, str], digests: Mapping[str, str], settings: Settings, log: Log) -> None:
        """Loads no model yet; the lifespan's startup does.

        Args:
            files: the models' files by name.
            digests: the files' digests by name, so that no two replicas serve different files.
            settings: how to serve; host, ports and TLS are left to the program that listens.
            log: where events are written.
        """
        self._service = Service(dict(files), settings, log)
        self._digests = dict(digests)
        self._app = HttpApp(self._service)
        self._idle: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start, end, or answer one request or websocket."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        root = scope.get("root_path", "")
        if root and scope["path"].startswith(root):
            scope = {**scope, "path": scope["path"].removeprefix(root)}
        await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            try:
                await (self._start() if kind == "lifespan.startup" else self._end())
            except Exception as error:
                await send({"type": f"{kind}.failed", "message": str(error)})
                raise
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _start(self) -> None:
        repository = self._service.repository
        await asyncio.to_thread(repository.open_all)
        for name, entry in repository.entries.items():
            if entry.served is None or entry.served.digest != self._digests[name]:
                raise ModelError("is not the file that was deployed", path=entry.file, hint="deploy it again")
        self._idle = asyncio.create_task(self._service.close_idle_streams())

    async def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        unfinished = await self._service.drain()
        self._service.repository.close(0 if unfinished else self._service.drain_seconds_left)
