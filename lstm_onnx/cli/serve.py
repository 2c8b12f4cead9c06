"""``lstm-onnx serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import is_quiet, json_result, note, provider_options, state_option, warn
from .params import FILE, NumberRange, name_pairs, option
from .streams import require_said, say

if TYPE_CHECKING:
    from ..serving.run import Addresses

ENDED = 143
"""The exit code if requests were still running at the end of their time: that of SIGTERM."""
_PORT = click.IntRange(0, 65535)
_SECONDS = NumberRange(0, 10**6, min_open=True)


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@option("--host", default="127.0.0.1", help="Address to listen on.")
@option("--port", type=_PORT, default=8000, help="Port for HTTP and websockets; 0 picks a free one.")
@option("--grpc-port", type=_PORT, default=8001, help="Port for gRPC; 0 picks a free one.")
@option("--no-grpc", is_flag=True, help="Do not serve gRPC.")
@option("--token-file", "tokens", type=FILE, help="Require a bearer token from FILE, which has one per line.")
@option("--no-token", "open_to_all", is_flag=True, help="Allow other machines to connect without a token.")
@option("--tls-cert", "tls_certificate", type=FILE, help="TLS certificate chain, in PEM format.")
@option("--tls-key", type=FILE, help="Private key of the certificate, in PEM format.")
@option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Allow web pages from this origin to connect; may be repeated.",
)
@state_option(name_pairs)
@option(
    "--snapshot-key",
    type=FILE,
    help="Secret that signs snapshots of streams; servers that share streams need the same.  [default: a new one]",
)
@option("--max-batch", type=click.IntRange(1, 4096), default=64, help="Maximum batch size.")
@option(
    "--window",
    type=NumberRange(0, 10),
    default=0.002,
    metavar="SECONDS",
    help="How long a batch waits for streams whose next request is expected.",
)
@option(
    "--max-request-bytes",
    type=click.IntRange(1024, 2**31 - 1),
    default=16 * 2**20,
    help="Maximum size of a body, message or frame.",
)
@option(
    "--max-pending-bytes",
    type=click.IntRange(1024),
    default=2**30,
    help="Maximum total size of the requests in flight.",
)
@option("--max-streams", type=click.IntRange(1, 10**6), default=1024, help="Maximum number of open streams per model.")
@option(
    "--idle",
    "idle_seconds",
    type=_SECONDS,
    default=60.0,
    metavar="SECONDS",
    help="Close a stream that has had no request for this long.",
)
@option("--queue", type=click.IntRange(1, 10**6), default=1024, help="Maximum number of waiting requests per model.")
@option("--deadline", type=_SECONDS, default=30.0, metavar="SECONDS", help="Time limit per request.")
@option(
    "--drain",
    "drain_seconds",
    type=NumberRange(0, 3600),
    default=10.0,
    metavar="SECONDS",
    help="Time for running requests to finish after SIGTERM.",
)
@option("--json-logs", is_flag=True, help="Log as lines of JSON.")
@provider_options
@click.option("--json", "as_json", is_flag=True, help="Print the addresses, on one line, or the error, as JSON.")
def serve(
    files: tuple[str, ...],
    grpc_port: int,
    no_grpc: bool,
    snapshot_key: str | None,
    json_logs: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Serve models over HTTP, gRPC and websockets, until SIGTERM or Ctrl-C.

    A model is named after its file; NAME=FILE gives it another name.  Requests are those of the
    Open Inference Protocol v2, as for Triton and KServe, with sequence_id for stateful sequences.
    A websocket at /v2/models/NAME/stream is a stream of its own.
    """
    from ..serving import require_libraries
    from ..serving.settings import Settings
    from ..serving.snapshots import read_key

    settings = Settings(
        grpc_port=None if no_grpc else grpc_port,
        snapshot_key=None if snapshot_key is None else read_key(snapshot_key),
        **options,
    )
    settings.require_safe()
    require_libraries()
    from ..serving.logs import Log
    from ..serving.repository import files_by_name
    from ..serving.run import serve as serve_models

    log = Log(as_json=json_logs, quiet=is_quiet())
    for warning in settings.warnings():
        if json_logs:
            log.event("warning", message=warning)
        else:
            warn(f"warning: {warning}")
    names = files_by_name(files)

    def started(addresses: Addresses) -> None:
        if as_json:
            # On one line, for programs that read lines: stdout stays open for as long as it serves.
            say(json_result({"models": list(names), "http": addresses.http, "grpc": addresses.grpc}, indent=None))
        else:
            grpc = "" if addresses.grpc is None else f", gRPC at {addresses.grpc}"
            say(f"serving {', '.join(names)} at {addresses.http}{grpc}")
            if not json_logs:  # their reader expects only JSON
                note("press Ctrl-C to stop")
        require_said()  # nobody else would know the ports

    if serve_models(names, settings, log, started):
        from .interrupts import leave

        leave(ENDED, reported=True)  # a running operator cannot be cancelled, and Python would wait for it at exit
