"""`deployment`: runs several replicas of the server with Ray Serve."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from ..errors import InputError, MissingDependencyError
from ..runtime.arguments import positive_integer
from ..runtime.file_digest import file_digest
from ..serving import require_libraries
from ..serving.settings import Settings

_OF_THE_LISTENER = ("host", "port", "grpc_port", "tls_certificate", "tls_key", "replicated")
"""Settings for listening, which Ray's proxy does here."""


def deployment(
    models: str | os.PathLike[str] | Sequence[str],
    *,
    replicas: int | tuple[int, int] = 1,
    streams: int = 256,
    target_streams: int | None = None,
    name: str = "lstm-onnx",
    **settings: Any,
) -> Any:
    """Make an application for ``ray.serve.run`` that serves HTTP and websockets as `lstm-onnx serve` does.

    A stream is a websocket, and stays with its replica while both live.  With `snapshots` of
    `lstm_onnx.serving.client.open_stream`, it continues with another replica if its own ends.  Requests with a
    ``sequence_id``, and loading changed files, could reach any replica, so they are refused.

    Args:
        models: an .onnx file, or several, each ``FILE`` or ``NAME=FILE``, which every machine of the cluster must be
            able to read.
        replicas: the number of replicas; or the least and the most, between which Ray scales by open streams.
        streams: the most open streams of a replica; further ones are refused while all replicas are full.
        target_streams: the open streams per replica above which Ray adds one; three quarters of `streams` by default.
        name: the name of the deployment.
        settings: as the options of ``lstm-onnx serve``, by the names of `lstm_onnx.serving.settings.Settings`:
            provider, threads (also the number of CPUs requested from Ray; 1 by default), states, max_batch, window,
            max_request_bytes, max_pending_bytes, idle_seconds, queue, deadline, drain_seconds (after which Ray ends a
            replica that it removes), tokens, open_to_all, origins, snapshot_key.

    Returns:
        The application; ``ray.serve.start`` sets where it listens.

    Raises:
        InputError: an argument is not valid.
        FileError: a model cannot be read.
        MissingDependencyError: Ray Serve or the server's libraries are not installed.
    """
    require_libraries()
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.serve") is None:
        raise MissingDependencyError("Ray Serve is not installed", hint="pip install 'lstm-onnx[ray]'")
    from ray import serve

    from ..serving.repository import files_by_name
    from ..serving.snapshots import new_key

    named = (os.fspath(models),) if isinstance(models, (str, os.PathLike)) else tuple(models)
    files = {key: os.path.abspath(file) for key, file in files_by_name(named).items()}  # noqa: PTH100
    digests = {key: file_digest(file) for key, file in files.items()}
    streams = positive_integer("streams", streams)
    target = positive_integer("target_streams", max(1, 3 * streams // 4) if target_streams is None else target_streams)
    chosen = _settings(streams, {"snapshot_key": new_key(), **settings})
    least, most = _replicas(replicas)

    def application() -> Any:
        from lstm_onnx.serving.logs import Log
        from lstm_onnx.serving.replica_app import ReplicaApp

        return ReplicaApp(files, digests, chosen, Log(as_json=True, quiet=False))

    scaling: dict[str, Any] = {"num_replicas": least}
    if least != most:
        limits = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": target}
        scaling = {"autoscaling_config": limits}
    actor = {"num_cpus": chosen.threads}
    if chosen.provider.lower().startswith("cuda"):
        actor["num_gpus"] = 1
    replica = serve.deployment(
        name=name,
        # To Ray, an open websocket is a running request.  Beyond this limit Ray would let requests wait silently, so
        # the limit is higher than the server's own, which answers that it is full.
        max_ongoing_requests=streams + chosen.queue,
        ray_actor_options=actor,
        graceful_shutdown_timeout_s=chosen.drain_seconds,
        health_check_period_s=2,
        health_check_timeout_s=10,
        **scaling,
    )
    return replica(serve.ingress(application)()).bind()


def _settings(streams: int, given: dict[str, Any]) -> Settings:
    known = {field.name for field in dataclasses.fields(Settings)} - {*_OF_THE_LISTENER, "max_streams"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError(
            f"{unknown[0]} is not a setting of a deployment", hint=f"settings are {', '.join(sorted(known))}"
        )
    given["threads"] = positive_integer("threads", given.get("threads") or 1)
    return Settings(max_streams=streams, replicated=True, **given)


def _replicas(replicas: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(replicas, tuple) and len(replicas) == 2:
        least, most = positive_integer("replicas", replicas[0]), positive_integer("replicas", replicas[1])
        if least <= most:
            return least, most
        raise InputError(f"replicas = {replicas} is not possible: the least is more than the most", name="replicas")
    number = positive_integer("replicas", replicas)
    return number, number
