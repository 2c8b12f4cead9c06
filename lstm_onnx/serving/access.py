"""Checks who may send requests: by tokens, host names and the origins of web pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from .errors import Kind, RequestError
from .service import Service
from .settings import LOOPBACK
from .tokens import Tokens

PUBLIC = ("/v2/health/live", "/v2/health/ready", "/", "/index.html", "/page.mjs", "/client.mjs")
"""Paths that need no token: those for health checks, and the web page, which is the same on every server."""
SUBPROTOCOL = "lstm-onnx"
_TOKEN_PREFIX = "bearer."  # noqa: S105 - no token


def require_access(
    service: Service, path: str, headers: Mapping[str, str], subprotocols: Iterable[str] | None = None
) -> None:
    """Refuse requests without a valid token, and those from web pages of other servers.

    A browser lets any page on the web open websockets and send simple requests to this machine.  Under a host name
    that resolves to this machine, the page can even read the responses (DNS rebinding).

    Args:
        service: the server.
        path: the request's path.
        headers: the request's headers, by their names in lower case.
        subprotocols: those that a websocket offers, one of which may be a browser's token; None for HTTP.

    Raises:
        RequestError: the request is refused.
    """
    settings = service.settings
    host = headers.get("host", "")
    if settings.is_loopback and service.tokens is None and (_split(f"//{host}").hostname or "") not in LOOPBACK:
        text = (
            f"this server accepts requests only for localhost, but this one is for {host!r}; have the proxy send "
            "Host: localhost, or start the server with --token-file, with which any host name is accepted"
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
    """Raise RequestError unless the header `authorization` has one of the tokens."""
    if not tokens.accepts(header):
        raise RequestError("a bearer token is needed, but the request has none or a wrong one", Kind.UNAUTHENTICATED)


def _split(url: str) -> SplitResult:
    """The parts of a URL; empty ones where the text is not a URL, such as ``http://[``."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
