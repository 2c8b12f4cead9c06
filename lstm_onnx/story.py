"""What an exported file says of itself, in its metadata: the keys ``lstm_onnx.*``, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .spec import ExportOptions, LSTMSpec

METADATA_PREFIX = "lstm_onnx."


@dataclass(frozen=True)
class Story:
    """What an exported file says of itself, under the metadata keys ``lstm_onnx.*``.

    `spec` and `options` are None in a file that holds more than a bare LSTM.  `states` maps each
    state input to the output that feeds it.  `versions` are those of the packages that wrote it.
    `digest` identifies the weights (see `weights.digest`).
    """

    spec: LSTMSpec | None = None
    options: ExportOptions | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None

    def to_metadata(self) -> dict[str, str]:
        """The metadata entries of an ONNX file: ``lstm_onnx.NAME`` to JSON, sorted, the same from run to run."""
        entries: dict[str, Any] = {
            "spec": None if self.spec is None else dataclasses.asdict(self.spec),
            "export": None if self.options is None else dataclasses.asdict(self.options),
            "states": dict(self.states),
            "versions": dict(self.versions),
            "weights": self.digest,
        }
        return {
            METADATA_PREFIX + key: json.dumps(value, sort_keys=True)
            for key, value in sorted(entries.items())
            if value is not None
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Story:
        """Read back what `to_metadata` wrote; a file without such keys gives an empty story.

        Raises:
            ConfigError: an entry is not what this version writes.
        """
        try:
            entries = {
                key.removeprefix(METADATA_PREFIX): json.loads(value)
                for key, value in metadata.items()
                if key.startswith(METADATA_PREFIX)
            }
            states, versions = entries.get("states", {}), entries.get("versions", {})
            if not all(isinstance(k, str) and isinstance(v, str) for d in (states, versions) for k, v in d.items()):
                raise ConfigError("the metadata's states and versions must map names to names")
            digest = entries.get("weights")
            if digest is not None and not isinstance(digest, str):
                raise ConfigError("the metadata's weights must be a digest")
            return cls(
                spec=LSTMSpec(**entries["spec"]) if "spec" in entries else None,
                options=ExportOptions(**entries["export"]) if "export" in entries else None,
                states=states,
                versions=versions,
                digest=digest,
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"the metadata lstm_onnx.* is damaged ({error}); export the model again") from error
