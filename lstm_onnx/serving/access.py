"""Who may send requests: tokens, and origins of web pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from .errors import Kind, RequestError
from .service import Service
from .settings import LOOPBACK
from .tokens import Tokens

PUBLIC = ("/v2/health/live", "/v2/health/ready", "/", "/index.html", "/page.mjs", "/client.mjs")
"""Paths that need no token: health, and the page, which is the same on every server."""
SUBPROTOCOL = "lstm-onnx"
_TOKEN_PREFIX = "bearer."  # noqa: S105 - no token


def require_access(
    service: Service, path: str, headers: Mapping[str, str], subprotocols: Iterable[str] | None = None
) -> None:
    """Refuse who has no token, and web pages of other servers.

    A browser lets any page on the web open websockets and send simple requests to this machine, and by a name that
    resolves to it even read the answers.

    Args:
        service: the server.
        path: what is asked for.
        headers: by their names in lower case.
        subprotocols: of a websocket, by which a browser sends its token; None for HTTP.

    Raises:
        RequestError: the request is refused.
    """
    settings = service.settings
    host = headers.get("host", "")
    if settings.is_loopback and service.tokens is None and (_split(f"//{host}").hostname or "") not in LOOPBACK:
        text = (
            f"this server is called localhost, and the request asks for {host!r}; let a proxy send Host: localhost, or "
            "start the server with --token-file, which takes any name"
        )
        raise RequestError(text, Kind.FORBIDDEN)
    origin = headers.get("origin")
    if origin is not None and origin not in settings.origins and _split(origin).netloc != host:
        raise RequestError(f"web pages of {origin!r} are not allowed; see --origin", Kind.FORBIDDEN)
    if service.tokens is None or path in PUBLIC:
        return
    header = headers.get("authorization")
    for name in subprotocols or ():
        if name.startswith(_TOKEN_PREFIX):
            header = f"Bearer {name.removeprefix(_TOKEN_PREFIX)}"
    require_token(service.tokens, header)


def require_token(tokens: Tokens, header: str | None) -> None:
    """Refuse a request whose header `authorization` has none of the tokens (RequestError)."""
    if not tokens.accepts(header):
        raise RequestError("a bearer token is needed, and the request has none or a wrong one", Kind.UNAUTHENTICATED)


def _split(url: str) -> SplitResult:
    """The parts of a URL; empty ones where it is none, such as ``http://[``."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
