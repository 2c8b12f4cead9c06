"""Starts a server, and ends it when a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from ..errors import FileError, InputError
from .connections import quiet_options
from .http_app import HttpApp
from .logs import Log, ToLog, warnings_logged
from .service import Service
from .settings import Settings

_BACKLOG = 2048
_CLOSE_SECONDS = 3.0
"""The least seconds to wait for runs that go on after all requests are answered."""
_GRPC_SECONDS = 1.0
"""The least seconds that gRPC waits for its calls to end."""
_OTHER_FILES = 256
"""The number of open files to allow in addition to one for each stream: for requests, models and libraries."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True)
class Addresses:
    """The URLs at which a server listens; `grpc` is None if it has no gRPC."""

    http: str
    grpc: str | None


class _HttpServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handling to `serve`."""
        yield


def serve(files: dict[str, str], settings: Settings, log: Log, started: Callable[[Addresses], object]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        files: the models' files by name.
        settings: how to serve.
        log: where events are written.
        started: called once the server accepts requests.

    Returns:
        The number of requests still running after the settings' `drain_seconds`, including those answered at their
        deadline.  If it is not 0, the process must exit without waiting for them (`os._exit`).

    Raises:
        LSTMOnnxError: a model cannot be loaded, an address cannot be used, or a setting is not possible.
    """
    settings.require_safe()
    _allow_open_files(settings.max_streams * len(files) + _OTHER_FILES, log)
    listener = _listen(settings, settings.port, "--port")
    with contextlib.closing(listener), warnings_logged(log):
        if settings.grpc_port is not None:  # if gRPC cannot listen, it writes its own lines to stderr; so try first
            _listen(settings, settings.grpc_port, "--grpc-port, or --no-grpc").close()
        service = Service(files, settings, log)
        unfinished = 0
        try:
            service.repository.open_all()
            with _run_loop() as runner:
                unfinished = runner.run(_serve(service, listener, started))
        finally:
            closed = service.repository.close(0 if unfinished else max(service.drain_seconds_left, _CLOSE_SECONDS))
        if not closed and not unfinished:
            log.event("given_up", error="a run whose request was answered at its deadline has not ended")
        return unfinished or int(not closed)


def _run_loop() -> asyncio.Runner:
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(service: Service, listener: socket.socket, started: Callable[[Addresses], object]) -> int:
    settings = service.settings
    for name in ("uvicorn.error", "websockets.server", "grpc._cython.cygrpc"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [ToLog(service.log)]
        logger.setLevel(logging.WARNING)
    config = uvicorn.Config(
        HttpApp(service),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        backlog=_BACKLOG,
        **quiet_options(settings),
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise FileError(
            f"cannot be used for TLS: {error.strerror or error}",
            path=settings.tls_certificate,
            hint=f"it must be a certificate in PEM format, and {settings.tls_key} its key",
        ) from error
    server = _HttpServer(config)
    stopping = asyncio.Event()
    with _stopped_by_signals(stopping):
        grpc_server, grpc_address = None, None
        if settings.grpc_port is not None:
            from .grpc_server import start_grpc

            grpc_server, port = await start_grpc(service)
            grpc_address = f"{settings.host_in_url}:{port}"
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        idle = asyncio.create_task(service.close_idle_streams())
        while not server.started and not serving.done():
            await asyncio.sleep(0.001)
        scheme = "http" if settings.tls_certificate is None else "https"
        addresses = Addresses(f"{scheme}://{settings.host_in_url}:{listener.getsockname()[1]}", grpc_address)
        service.log.event("started", http=addresses.http, grpc=addresses.grpc, models=list(service.repository.entries))
        stop = asyncio.create_task(stopping.wait())
        try:
            started(addresses)
            await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            began = time.monotonic()
            unfinished = await _let_finish(service, server, grpc_server)
            server.should_exit = True
            await serving
            idle.cancel()
            stop.cancel()
            service.log.event("stopped", seconds=round(time.monotonic() - began, 3), unfinished=unfinished)
        return unfinished


async def _let_finish(service: Service, server: _HttpServer, grpc_server: Any) -> int:
    """Accept no new connections, and wait for running requests and unread answers; return how many were given up.

    A port left open would bring new requests for as long as there are clients.
    """
    for listening in server.servers:
        listening.close()
    seconds = max(service.settings.drain_seconds, _GRPC_SECONDS)
    stopping = None if grpc_server is None else asyncio.create_task(grpc_server.stop(seconds))
    began = time.monotonic()

    def unread() -> int:
        return sum(each.transport.get_write_buffer_size() > 0 for each in server.server_state.connections)

    unfinished = await service.drain(unread)
    if stopping is not None:
        await stopping
        if time.monotonic() - began >= seconds:  # it ended what was left
            unfinished = max(unfinished, 1)
    return unfinished


@contextlib.contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set `stopping` at the first signal, unless that is ignored; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    added = []
    for number in _SIGNALS:
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
            before = signal.getsignal(number)
            if before is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, stop, number)
            added.append((number, before))
    try:
        yield
    finally:
        for number, before in added:
            loop.remove_signal_handler(number)
            signal.signal(number, before)


def _allow_open_files(count: int, log: Log) -> None:
    """Raise the limit on open files, of which each connection is one; a shell's soft limit is often only 1024.

    A connection beyond the limit is closed without an answer and without a line in the log.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= count:
        return
    raised = count if most == resource.RLIM_INFINITY else min(count, most)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < count:
        text = (
            f"only {limit} files may be open, but as many streams as --max-streams allows need {count}: a connection "
        )
        log.event("warning", message=f"{text}beyond that is closed without an answer; raise ulimit -n")


def _listen(settings: Settings, port: int, option: str) -> socket.socket:
    """A socket that listens at the settings' host and `port`; `option` names the port's option in messages.

    Raises:
        InputError: it cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # disconnect clients that read nothing, to free their memory
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.deadline * 1000))
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        used = error.errno == errno.EADDRINUSE
        hint = f"end what uses it, or pass another {option}" if used else f"pass another --host or {option}"
        raise InputError(
            f"cannot listen at {settings.host} port {port}: {error.strerror or error}", hint=hint
        ) from error
    return listener
