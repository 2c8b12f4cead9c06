"""Serves the Open Inference Protocol v2 over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ParamSpec, TypeVar

from ..errors import shown
from .access import require_access
from .errors import Kind, RequestError
from .http_messages import HEADER_LENGTH, compressed, decompressed, json_object, read_inference, write_inference
from .metrics import CONTENT_TYPE
from .service import SERVER, Service
from .vanished import VanishedError, unless_gone
from .websocket import handle_websocket

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
P = ParamSpec("P")
T = TypeVar("T")
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_IN_THREAD = 2**18
"""Size in bytes from which a body is read or written in a thread, so that it does not hold up other requests."""
_MOST_DISCARDED = 2**30
_DISCARD_SECONDS = 5.0
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class HttpRequest:
    """A request without its body, which is read only where it is needed.

    Attributes:
        taken: how many bytes were counted for its body, as read so far and decompressed; see `Service.take_bytes`.
    """

    method: str
    path: str
    headers: dict[str, str]
    receive: Receive
    taken: list[int] = field(default_factory=list)

    async def gone(self) -> bool:
        """Wait until the client, whose body has been read, closes the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        return True


class HttpApp:
    """The application; uvicorn calls it once for each request and each websocket."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one websocket."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1").strip(" \t") for name, value in scope["headers"]
        }
        if scope["type"] == "websocket":
            await handle_websocket(self.service, scope, headers, receive, send)
            return
        self.service.answering += 1
        request = HttpRequest(scope["method"], scope["path"], headers, receive)
        try:
            await self._respond(request, send)
        finally:
            self.service.answering -= 1
            self.service.pending_bytes -= sum(request.taken)

    async def _respond(self, request: HttpRequest, send: Send) -> None:
        try:
            if request.method == "OPTIONS" and self._shared(request):
                asked = request.headers.get("access-control-request-headers", "")
                allowed = {"access-control-allow-methods": "GET, HEAD, POST", "access-control-allow-headers": asked}
                answer = Answer(headers=allowed)  # a browser asks so, without the token, before it sends JSON
            else:
                require_access(self.service, request.path, request.headers)
                answer = await self._answer(request)
        except VanishedError:
            return
        except asyncio.CancelledError:
            if not self.service.draining:
                raise
            text = "the server ended before the request was finished"
            answer = self._refusal(request, RequestError(text, Kind.UNAVAILABLE))
        except Exception as error:  # noqa: BLE001 - every error is answered
            answer = self._refusal(request, error)
        await self._send(answer, request, send)

    def _refusal(self, request: HttpRequest, error: Exception) -> Answer:
        failure = self.service.refused("http", error, path=request.path)
        headers = dict(_JSON)
        if failure.kind in (Kind.TOO_LARGE, Kind.INCOMPLETE) or isinstance(error, _UnreadError):
            headers["connection"] = "close"  # the rest of the body is not read
        if failure.kind is Kind.UNAUTHENTICATED:
            headers["www-authenticate"] = "Bearer"
        if failure.kind is Kind.UPGRADE:
            headers |= {"upgrade": "websocket", "connection": "Upgrade"}
        if failure.kind is Kind.FULL:
            headers["retry-after"] = "1"
        return Answer(json.dumps({"error": str(failure)}).encode(), headers, failure.kind.status)

    def _shared(self, request: HttpRequest) -> dict[str, str]:
        """The headers with which a browser lets a page of an origin that is allowed read an answer (CORS)."""
        origin = request.headers.get("origin", "")
        if origin not in self.service.settings.origins:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": HEADER_LENGTH,
            "vary": "origin",
        }

    async def _send(self, answer: Answer, request: HttpRequest, send: Send) -> None:
        body, headers = answer.body, {**answer.headers, **self._shared(request)}
        accepted = request.headers.get("accept-encoding", "")
        if accepted and body:
            body, encoding = await _computed(len(body), compressed, body, accepted)
            if encoding:
                headers["content-encoding"] = encoding
        headers["content-length"] = str(len(body))
        if self.service.draining:
            headers.setdefault("connection", "close")  # the server ends before it could read another request here
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    # --- routes -----------------------------------------------------------------------------------------------

    async def _answer(self, request: HttpRequest) -> Answer:
        parts = request.path.strip("/").split("/")
        match parts:
            case ["v2", "health", "live"]:
                return _get(request, Answer())
            case ["v2", "health", "ready"]:
                return _get(request, Answer(status=200 if self.service.is_ready else 503))
            case ["v2"]:
                return _get(request, _json(SERVER))
            case ["metrics"]:
                return _get(request, Answer(self.service.metrics.text(), {"content-type": CONTENT_TYPE}))
            case ["v2", "models", "stats"]:
                return _get(request, _json(self.service.statistics()))
            case ["v2", "models", name, "versions", version, *rest]:
                return await self._model(request, name, version, rest)
            case ["v2", "models", name, *rest]:
                return await self._model(request, name, "", rest)
            case ["v2", "repository", *rest]:
                return await self._repository(request, rest)
            case [name] if (found := page(name)) is not None:
                return _get(request, Answer(found[0], {"content-type": found[1], **_PAGE_HEADERS}))
        raise _not_found(request)

    async def _model(self, request: HttpRequest, name: str, version: str, rest: list[str]) -> Answer:
        repository = self.service.repository
        match rest:
            case []:
                return _get(request, _json(repository.ready(name, version).metadata()))
            case ["ready"]:
                ready = self.service.is_model_ready(name, version)
                return _get(request, Answer(status=200 if ready else 503))
            case ["config"]:
                return _get(request, _json(repository.ready(name, version).config()))
            case ["stats"]:
                return _get(request, _json(self.service.statistics(name, version)))
            case ["infer"]:
                _require_method("POST", request)
                return await self._infer(request, name, version)
            case ["stream"]:
                repository.ready(name, version)
                text = "is a websocket, but the request has no Upgrade: websocket; does a proxy drop that header?"
                raise RequestError(f"{shown(request.path)} {text}", Kind.UPGRADE)
        raise _not_found(request)

    async def _repository(self, request: HttpRequest, rest: list[str]) -> Answer:
        match rest:
            case ["index"]:
                _require_method("POST", request)
                ready = (await self._small_object(request)).get("ready", False)
                return _json(self.service.repository.index(ready=ready is True))
            case ["models", name, "load"]:
                _require_method("POST", request)
                await self.service.load(name, (await self._small_object(request)).get("parameters"))
                return _json({})
            case ["models", name, "unload"]:
                _require_method("POST", request)
                await self._small_object(request)
                await self.service.unload(name)
                return _json({})
        raise _not_found(request)

    async def _infer(self, request: HttpRequest, name: str, version: str) -> Answer:
        service = self.service
        service.repository.entry(name, version)
        body = await self._body(request)
        header_length = request.headers.get(HEADER_LENGTH)
        encoding = request.headers.get("content-encoding", "").strip().lower()
        if encoding:
            body = await asyncio.to_thread(decompressed, body, encoding, service.settings.max_request_bytes)
            service.take_bytes(len(body))
            request.taken.append(len(body))
        inference = await _computed(len(body), read_inference, body, header_length)
        outputs = await unless_gone(service.infer("http", name, version, inference.request), request.gone)
        size = sum(array.nbytes for array in outputs.values())
        return Answer(*await _computed(size, write_inference, name, inference, outputs))

    async def _small_object(self, request: HttpRequest) -> dict[str, Any]:
        """A body that is a JSON object, or empty."""
        body = await self._body(request)
        return json_object(body) if body.strip() else {}

    async def _body(self, request: HttpRequest) -> bytes:
        """The body of a request (RequestError where it is too large, or not complete in time)."""
        limit = self.service.settings.max_request_bytes
        large = RequestError(f"the body has more than {limit} bytes; see --max-request-bytes", Kind.TOO_LARGE)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18:
            raise large
        if int(length) > limit:
            await self._discard(request, int(length))
            raise large
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.service.settings.deadline):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise VanishedError
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > limit:
                        raise large
                    self._take(request, len(chunks[-1]))
                    if not message.get("more_body"):
                        return b"".join(chunks)
        except TimeoutError:
            deadline = self.service.settings.deadline
            raise RequestError(f"the body was not complete within {deadline:g} s", Kind.INCOMPLETE) from None

    def _take(self, request: HttpRequest, size: int) -> None:
        try:
            self.service.take_bytes(size)
        except RequestError as error:
            raise _UnreadError(str(error), error.kind) from error
        request.taken.append(size)

    async def _discard(self, request: HttpRequest, size: int) -> None:
        """Read and drop a body that is too large, within limits: many clients read no answer before it is all sent."""
        if size > _MOST_DISCARDED or "expect" in request.headers:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                message: MutableMapping[str, Any] = {"more_body": True}
                while message.get("more_body"):
                    message = await request.receive()


async def _computed(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a function that processes `size` bytes; run in a thread if it would hold up other requests."""
    if size > _IN_THREAD:
        return await asyncio.to_thread(function, *args, **kwargs)
    return function(*args, **kwargs)


class _UnreadError(RequestError):
    """A request was refused before its whole body was read, and the rest will not be read."""


_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
}


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode(), dict(_JSON))


def _require_method(method: str, request: HttpRequest) -> None:
    if request.method != method:
        raise RequestError(f"{shown(request.path)} accepts {method}, not {request.method}", Kind.METHOD)


def _not_found(request: HttpRequest) -> RequestError:
    return RequestError(f"there is nothing at {shown(request.path)}", Kind.NOT_FOUND)


def _get(request: HttpRequest, answer: Answer) -> Answer:
    if request.method != "HEAD":
        _require_method("GET", request)
    return answer


_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "client.mjs": "text/javascript; charset=utf-8",
    "page.mjs": "text/javascript; charset=utf-8",
}
"""The files of the web page, and their types."""


@cache
def page(name: str) -> tuple[bytes, str] | None:
    """The content and type of a file of the web page, "" for the page itself; None where there is no such file."""
    name = name or "index.html"
    if name not in _TYPES:
        return None
    return (resources.files(__package__) / "web" / name).read_bytes(), _TYPES[name]
