"""Holds the models of a server by name: loads them, reloads changed files, and unloads them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import InputError, LSTMOnnxError, shown
from ..runtime.file_digest import file_digest
from .errors import Kind, RequestError
from .metrics import Metrics, Statistics
from .served_model import VERSION, ServedModel, open_model
from .settings import Settings
from .streams import Sequences


class Entry:
    """One name of the repository.

    Attributes:
        name: the model's name.
        file: the model's file.
        served: the model as last loaded; None if it was unloaded or never loaded.
        reason: why it is not ready; "" where it is.
        sequences: the model's stateful sequences.
        statistics: the model's statistics since the server started.
    """

    def __init__(self, name: str, file: str, settings: Settings) -> None:
        self.name = name
        self.file = file
        self.served: ServedModel | None = None
        self.reason = "not loaded"
        self.sequences = Sequences(name, settings.idle_seconds)
        self.statistics = Statistics()
        self.loading = asyncio.Lock()


def files_by_name(arguments: tuple[str, ...]) -> dict[str, str]:
    """Read a command line's models, ``FILE``, named after its stem, or ``NAME=FILE`` (InputError if not valid)."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or "/" in name or Path(argument).exists():
            name, file = Path(argument).stem, argument
        if not name or not file or name in (".", "..") or not all(c.isalnum() or c in "._-" for c in name):
            raise InputError(
                f"{shown(name)} is not a model's name, which has only letters, digits, dots, underscores and hyphens",
                path=argument,
                hint="give it a name with NAME=FILE",
            )
        if name in found:
            raise InputError(
                f"two models have the name {name}: {found[name]} and {file}", hint="rename one of them with NAME=FILE"
            )
        found[name] = file
    return found


class Repository:
    """The models of a server.  It opens no files but those that the command line names.

    Attributes:
        loading: how many files are being loaded now, at most 1.
    """

    def __init__(self, files: dict[str, str], settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.entries = {name: Entry(name, file, settings) for name, file in files.items()}
        # Two threads, so that one long sequence does not hold up all others, and a third to load models.
        self._executor = ThreadPoolExecutor(2, "lstm-onnx serve")
        self._loader = ThreadPoolExecutor(1, "lstm-onnx load")
        self.loading = 0

    def entry(self, name: str, version: str = "") -> Entry:
        """The entry for a name and version (RequestError where there is none)."""
        entry = self.entries.get(name)
        if entry is None:
            raise RequestError(f"there is no model {shown(name)}", Kind.NOT_FOUND)
        if version not in ("", VERSION):
            raise RequestError(f"model {name} has no version {shown(version)}, only {VERSION}", Kind.NOT_FOUND)
        return entry

    def ready(self, name: str, version: str = "") -> ServedModel:
        """The model as last loaded (RequestError where it is not ready)."""
        entry = self.entry(name, version)
        if entry.served is None:
            raise RequestError(f"model {name} is not ready: {entry.reason}", Kind.UNAVAILABLE)
        return entry.served

    def open_all(self) -> None:
        """Load every model, before the event loop runs; raises what `open_model` raises."""
        for entry in self.entries.values():
            entry.served, entry.reason = self._open(entry), ""
        models = [entry.served.model for entry in self.entries.values() if entry.served is not None]
        for state, end in self.settings.states:
            if not any(model.states.get(state) == end for model in models):
                raise InputError(
                    f"--state {state}={end} fits no model", hint="name an input, and the output that feeds it"
                )

    def _open(self, entry: Entry) -> ServedModel:
        """The model in a file; the one loaded before if neither the file nor its external weights have changed."""
        self.loading = 1
        try:
            if entry.served is not None and file_digest(entry.file) == entry.served.digest:
                return entry.served
            return open_model(entry.name, entry.file, self.settings, self._executor, self.metrics, entry.statistics)
        finally:
            self.loading = 0

    async def load(self, name: str) -> bool:
        """Load a model, or reload it if its file has changed; return whether anything was loaded.

        Open streams continue with the model they started with; new ones use the new model.

        Raises:
            RequestError: there is no such model, or its file cannot be loaded; a model that was loaded before stays.
        """
        self._require_alone()
        entry = self.entry(name)
        async with entry.loading:
            try:
                served = await asyncio.get_running_loop().run_in_executor(self._loader, self._open, entry)
            except LSTMOnnxError as error:
                self.metrics.loads.labels(name, "failed").inc()
                kept = "" if entry.served is None else "; the model that was loaded before is still served"
                if entry.served is None:
                    entry.reason = error.reason
                raise RequestError(f"model {name} cannot be loaded: {error.reason}{kept}") from error
            if served is entry.served:
                return False
            before, entry.served, entry.reason = entry.served, served, ""
            self.metrics.loads.labels(name, "loaded").inc()
            if before is not None:
                before.retire()
            return True

    async def unload(self, name: str) -> None:
        """Accept no new requests for a model; its streams continue to their end (RequestError for an unknown name)."""
        self._require_alone()
        entry = self.entry(name)
        async with entry.loading:
            if entry.served is not None:
                before, entry.served, entry.reason = entry.served, None, "unloaded"
                before.retire()

    def _require_alone(self) -> None:
        if self.settings.replicated:
            raise RequestError(
                "this is one of several servers, and a load would reach only one of them; deploy the models again",
                Kind.UNSUPPORTED,
            )

    def index(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """The protocol's index of the models: names, versions, states."""
        return [
            {
                "name": entry.name,
                "version": VERSION,
                "state": "UNAVAILABLE" if entry.served is None else "READY",
                "reason": entry.reason,
            }
            for entry in self.entries.values()
            if entry.served is not None or not ready
        ]

    def close_idle(self) -> None:
        """Close the sequences without a request for the idle time."""
        for entry in self.entries.values():
            closed = entry.sequences.close_idle()
            if closed:
                self.metrics.expired.labels(entry.name).inc(closed)

    def close(self, seconds: float) -> bool:
        """Close every model once its runs have ended; return whether that took at most `seconds`.

        A run whose request has been answered already, as at its deadline, ends before its next node, but the node that
        runs may take longer.  Python would wait for it at exit; where this returns False, the process must exit without
        waiting (`os._exit`).
        """
        for entry in self.entries.values():
            entry.sequences.close()
        closing = threading.Thread(target=self._close_models, name="lstm-onnx close", daemon=True)
        closing.start()
        closing.join(seconds)
        return not closing.is_alive()

    def _close_models(self) -> None:
        for entry in self.entries.values():
            if entry.served is not None:
                entry.served.close()
        self._executor.shutdown(cancel_futures=True)
        self._loader.shutdown(cancel_futures=True)
