"""The models of a server by name: loading, loading a changed file again, unloading."""

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
        name: the name.
        file: its file.
        served: the model as it was last loaded; None where it is unloaded, or was never loaded.
        reason: why it is not ready; "" where it is.
        sequences: its stateful sequences.
        statistics: since the server started.
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
    """The models of a command line: ``FILE``, named for its stem, or ``NAME=FILE`` (InputError)."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or "/" in name or Path(argument).exists():
            name, file = Path(argument).stem, argument
        if not name or not file or name in (".", "..") or not all(c.isalnum() or c in "._-" for c in name):
            raise InputError(
                f"{shown(name)} cannot be the name of a model, which is letters, digits, dots, underscores and hyphens",
                path=argument,
                hint="give it a name with NAME=FILE",
            )
        if name in found:
            raise InputError(
                f"two models are called {name}: {found[name]} and {file}", hint="give one another name with NAME=FILE"
            )
        found[name] = file
    return found


class Repository:
    """The models of a server.  Only files that the command line named are ever opened.

    Attributes:
        loading: how many files are being loaded, at most 1.
    """

    def __init__(self, files: dict[str, str], settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.entries = {name: Entry(name, file, settings) for name, file in files.items()}
        # Two threads so that a long sequence does not hold up all others, and one to load models.
        self._executor = ThreadPoolExecutor(2, "lstm-onnx serve")
        self._loader = ThreadPoolExecutor(1, "lstm-onnx load")
        self.loading = 0

    def entry(self, name: str, version: str = "") -> Entry:
        """A name and version of the repository (RequestError)."""
        entry = self.entries.get(name)
        if entry is None:
            raise RequestError(f"there is no model {shown(name)}", Kind.NOT_FOUND)
        if version not in ("", VERSION):
            raise RequestError(f"model {name} has no version {shown(version)}, only {VERSION}", Kind.NOT_FOUND)
        return entry

    def ready(self, name: str, version: str = "") -> ServedModel:
        """The model as it was last loaded (RequestError where it is not ready)."""
        entry = self.entry(name, version)
        if entry.served is None:
            raise RequestError(f"model {name} is not ready: {entry.reason}", Kind.UNAVAILABLE)
        return entry.served

    def open_all(self) -> None:
        """Load every model, before the event loop runs; errors as of `open_model`."""
        for entry in self.entries.values():
            entry.served, entry.reason = self._open(entry), ""
        models = [entry.served.model for entry in self.entries.values() if entry.served is not None]
        for state, end in self.settings.states:
            if not any(model.states.get(state) == end for model in models):
                raise InputError(
                    f"--state {state}={end} is a pair of no model", hint="name an input, and the output that feeds it"
                )

    def _open(self, entry: Entry) -> ServedModel:
        """The model of a file: the one that was loaded before if the file, with its weights beside it, is the same."""
        self.loading = 1
        try:
            if entry.served is not None and file_digest(entry.file) == entry.served.digest:
                return entry.served
            return open_model(entry.name, entry.file, self.settings, self._executor, self.metrics, entry.statistics)
        finally:
            self.loading = 0

    async def load(self, name: str) -> bool:
        """Load a model, or its file again if that changed; whether anything was loaded.

        Streams go on with the model that they started with; others get the new one.

        Raises:
            RequestError: there is no such model, or its file cannot be loaded, and what was loaded before stays.
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
        """Take no new requests for a model; its streams go on until they end (RequestError for an unknown name)."""
        self._require_alone()
        entry = self.entry(name)
        async with entry.loading:
            if entry.served is not None:
                before, entry.served, entry.reason = entry.served, None, "unloaded"
                before.retire()

    def _require_alone(self) -> None:
        if self.settings.replicated:
            raise RequestError(
                "this is one of several servers, and a load would reach one of them; deploy the models again",
                Kind.UNSUPPORTED,
            )

    def index(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """The protocol's index: names, versions, states."""
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
        """Close the sequences that were not used for the idle time."""
        for entry in self.entries.values():
            closed = entry.sequences.close_idle()
            if closed:
                self.metrics.expired.labels(entry.name).inc(closed)

    def close(self, seconds: float) -> bool:
        """Close every model once what it runs is finished; whether that was so within `seconds`.

        A run whose request was answered, as at its deadline, ends before its next node; what that waits for may take
        longer, and Python would wait for it at its own end: where this is False, the process has to leave without that.
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
