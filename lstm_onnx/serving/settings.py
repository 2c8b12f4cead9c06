"""The settings of a server, as given on its command line."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import InputError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        host: the address to listen on.
        port: the port of HTTP and websockets; 0 for any free one.
        grpc_port: the port of gRPC; 0 for any free one, None for no gRPC.
        provider, threads: as in `lstm_onnx.load`.
        states: ``(input, output)`` pairs: a state and the output that feeds it, for files that do not name them.
        max_batch: the most streams or rows in a batch.
        window: seconds for which a batch waits for streams that are likely to send a step, see `Batcher`.
        max_request_bytes: the largest body, message or frame, in bytes.
        max_pending_bytes: the most bytes of all requests that are not answered yet; further requests are refused.
        max_streams: the most open streams of a model.
        idle_seconds: a stream without a request for this long is closed.
        queue: the most waiting requests of a model; further ones are refused.
        deadline: seconds from a request to its result.
        drain_seconds: how long running requests and streams may go on after SIGTERM.
        tokens: a file of bearer tokens, one per line; None to require none.
        open_to_all: whether other hosts may connect although no token is required.
        origins: origins of web pages that may connect, such as "https://example.com".
        replicated: whether this is one of several servers behind a router, so that requests that must reach one
            server are refused: those of a sequence, and loads of a model.
        snapshot_key: the key that signs snapshots of streams; None for a random one, which is lost with the server.
        tls_certificate, tls_key: PEM files; None for no TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    provider: str = "auto"
    threads: int | None = None
    states: tuple[tuple[str, str], ...] = ()
    max_batch: int = 64
    window: float = 0.002
    max_request_bytes: int = 16 * 2**20
    max_pending_bytes: int = 2**30
    max_streams: int = 1024
    idle_seconds: float = 60.0
    queue: int = 1024
    deadline: float = 30.0
    drain_seconds: float = 10.0
    tokens: str | None = None
    open_to_all: bool = False
    origins: tuple[str, ...] = ()
    replicated: bool = False
    snapshot_key: bytes | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK

    @property
    def host_in_url(self) -> str:
        """The host as before a port: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def require_safe(self) -> None:
        """Refuse settings that let anybody in by accident, and those that cannot be used (InputError)."""
        if self.port and self.port == self.grpc_port:
            raise InputError(
                f"--port and --grpc-port are both {self.port}", hint="pass another --grpc-port, or --no-grpc"
            )
        if not self.is_loopback and self.tokens is None and not self.open_to_all:
            raise InputError(
                f"--host {self.host} lets other machines connect, but no token is required",
                hint="name a file of bearer tokens with --token-file, or pass --no-token",
            )
        if self.tokens is not None and self.open_to_all:
            raise InputError("--token-file and --no-token were both given", hint="pass one of them")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InputError("TLS needs a certificate and its key", hint="pass both --tls-cert and --tls-key")
        for origin in self.origins:
            if not _is_origin(origin):
                raise InputError(
                    f"--origin {origin} is not how a browser writes an origin, and would allow none",
                    hint="write it as https://example.com or http://example.com:8080, in lower case and without a path",
                )

    def warnings(self) -> list[str]:
        """Warnings about these settings, for before the server listens."""
        found = []
        if not self.is_loopback and self.tls_certificate is None:
            what = "data" if self.tokens is None else "tokens and data"
            found.append(f"other machines can connect without TLS, and {what} can be read on the way")
        if not self.is_loopback and self.tokens is None:
            found.append("every machine that reaches this one can run and reload the models")
        return found


def _is_origin(text: str) -> bool:
    """Whether a browser may send it: a scheme and a host, with the port where that is not the scheme's own."""
    try:
        parts = urlsplit(text)
        usual = parts.port == {"http": 80, "https": 443}.get(parts.scheme, -1)
    except ValueError:  # no port
        return False
    return text == "null" or (parts.netloc != "" and text == f"{parts.scheme}://{parts.netloc}".lower() and not usual)
