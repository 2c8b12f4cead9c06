"""Serves the Open Inference Protocol v2 over gRPC."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from ..errors import FileError, InputError
from .access import require_token
from .errors import RequestError
from .grpc_messages import read_request, write_response
from .protocol.messages import MESSAGES, METHODS, SERVICE
from .served_model import ServedModel
from .service import SERVER, Service, ending

_MOST_RUNNING = 64
"""The most requests of one ModelStreamInfer that run at the same time; the next is read when one is answered."""
_PUBLIC = ("ServerLive", "ServerReady")
"""Methods that need no token, for health checks."""
_SERIALIZED = operator.methodcaller("SerializeToString")


_FACTS: Mapping[str, Callable[[Service, Any], dict[str, Any]]] = {
    "ServerLive": lambda _service, _request: {"live": True},
    "ServerReady": lambda service, _request: {"ready": service.is_ready},
    "ServerMetadata": lambda _service, _request: SERVER,
    "ModelReady": lambda service, request: {"ready": service.is_model_ready(request.name, request.version)},
    "ModelMetadata": lambda service, request: _model(service, request).metadata(),
    "ModelConfig": lambda service, request: {"config": _model(service, request).config()},
    "ModelStatistics": lambda service, request: service.statistics(request.name or None, request.version),
    "RepositoryIndex": lambda service, request: {"models": service.repository.index(ready=request.ready)},
}
"""By method, the fields of its answer, for methods that change and run nothing."""


def _model(service: Service, request: Any) -> ServedModel:
    return service.repository.ready(request.name, request.version)


async def _answered(service: Service, method: str, request: Any) -> Any:
    """The answer to one request, both messages."""
    match method:
        case "ModelInfer":
            name, version = request.model_name, request.model_version
            service.repository.entry(name, version)
            return write_response(request, await service.infer("grpc", name, version, read_request(request)))
        case "RepositoryModelLoad":
            await service.load(request.model_name, request.parameters)
        case "RepositoryModelUnload":
            await service.unload(request.model_name)
    fields = _FACTS[method](service, request) if method in _FACTS else {}
    return json_format.ParseDict(fields, MESSAGES[METHODS[method][1]]())


def _parsed(method: str, data: bytes) -> Any:
    try:
        return MESSAGES[METHODS[method][0]].FromString(data)
    except DecodeError as error:
        raise RequestError(f"the request is not a {METHODS[method][0]}: {error}") from error


def _unary(service: Service, method: str) -> Any:
    async def handle(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            _require_token(service, method, context)
            with service.taking(len(data)):
                return await _answered(service, method, _parsed(method, data))
        except Exception as error:  # noqa: BLE001 - every error is answered
            failure = service.refused("grpc", error, method=method)
        await context.abort(grpc.StatusCode[failure.kind.code], str(failure))
        return None

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=_SERIALIZED)


class _OpenStream:
    """One ModelStreamInfer: each answer, or error, is sent when it is ready, those of a sequence in its order.

    Attributes:
        answers: messages to send; None at the end, or a RequestError if the server ends.
        room: a semaphore, acquired for each request until its answer is sent.
    """

    def __init__(self, service: Service, requests: AsyncIterator[bytes]) -> None:
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.room = asyncio.Semaphore(_MOST_RUNNING)
        self._service, self._requests = service, requests
        self._running: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(self._end_if_cancelled)  # a task may be cancelled before it starts
        self._service.reading.add(self._reading)

    async def _read(self) -> None:
        last = None
        try:
            async for data in self._requests:
                await self.room.acquire()
                task = asyncio.create_task(self._answer(data))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        except asyncio.CancelledError:
            if not self._service.draining:
                raise
            last = ending("request")
        self._service.reading.discard(self._reading)
        while self._running:
            await asyncio.wait(self._running)
        await self.answers.put(last)

    def _end_if_cancelled(self, reading: asyncio.Task[None]) -> None:
        if reading.cancelled():
            self.answers.put_nowait(ending("request"))

    async def _answer(self, data: bytes) -> None:
        found = MESSAGES["ModelStreamInferResponse"]()
        request = None
        try:
            request = _parsed("ModelInfer", data)
            with self._service.taking(len(data)):
                found.infer_response.CopyFrom(await _answered(self._service, "ModelInfer", request))
        except Exception as error:  # noqa: BLE001 - every error is answered
            found.error_message = str(self._service.refused("grpc", error, method="ModelStreamInfer"))
            if request is not None:
                found.infer_response.id = request.id
                found.infer_response.model_name = request.model_name
        await self.answers.put(found)

    def close(self) -> None:
        """Cancel what still runs, once the client has gone or has every answer."""
        self._service.reading.discard(self._reading)
        self._reading.cancel()
        for task in list(self._running):
            task.cancel()


def _stream(service: Service) -> Any:
    async def handle(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        method = "ModelStreamInfer"
        try:
            _require_token(service, method, context)
            if service.draining:
                raise ending("request")
        except RequestError as error:
            failure = service.refused("grpc", error, method=method)
            await context.abort(grpc.StatusCode[failure.kind.code], str(failure))
        stream = _OpenStream(service, requests)
        try:
            while (found := await stream.answers.get()) is not None:
                if isinstance(found, RequestError):
                    await context.abort(grpc.StatusCode[found.kind.code], str(found))
                yield found
                stream.room.release()
        finally:
            stream.close()

    return grpc.stream_stream_rpc_method_handler(handle, response_serializer=_SERIALIZED)


def _require_token(service: Service, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    if service.tokens is None or method in _PUBLIC:
        return
    header = dict(context.invocation_metadata() or ()).get("authorization")
    require_token(service.tokens, header if isinstance(header, str) else None)


async def start_grpc(service: Service) -> tuple[grpc.aio.Server, int]:
    """Start a server; return it and its port.

    Raises:
        InputError: the address cannot be used.
        FileError: the certificate or key cannot be read.
    """
    settings = service.settings
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ]
    )
    handlers = {name: _stream(service) if name == "ModelStreamInfer" else _unary(service, name) for name in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = f"{settings.host_in_url}:{settings.grpc_port}"
    try:
        if settings.tls_certificate is None or settings.tls_key is None:
            port = server.add_insecure_port(address)
        else:
            pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_certificate).read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except OSError as error:
        raise FileError(f"cannot be read: {error}", path=settings.tls_certificate) from error
    except RuntimeError as error:
        raise InputError(
            f"cannot listen at {address} for gRPC", hint="end what uses it, or pass another --grpc-port, or --no-grpc"
        ) from error
    await server.start()
    return server, port
