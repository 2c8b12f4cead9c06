"""Reads bearer tokens from a file, and reads it again when it changes."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from time import monotonic

from ..errors import FileError, InputError
from ..runtime.loaded_model import fingerprint
from .logs import Log

_FEWEST_CHARACTERS = 16
_SECONDS = 1.0
"""Seconds between two checks whether the file has changed."""


class Tokens:
    """The tokens in a file, one per line; empty lines and those that start with ``#`` are skipped."""

    def __init__(self, path: str, log: Log) -> None:
        """Raises FileError or InputError where the file cannot be used; later errors are logged, and tokens stay."""
        self.path = path
        self._log = log
        self._seen = fingerprint(path)
        self._known = _read(path)
        self._looked = monotonic()

    def accepts(self, header: str | None) -> bool:
        """Whether an Authorization header has one of the tokens."""
        self._read_again()
        kind, _, token = (header or "").partition(" ")
        if kind.lower() != "bearer":
            return False
        digest = _digest(token.strip())
        # All are compared, so that the time does not depend on which one matches.
        return sum(hmac.compare_digest(digest, known) for known in self._known) > 0

    def _read_again(self) -> None:
        now = monotonic()
        if now - self._looked < _SECONDS:
            return
        self._looked = now
        found = fingerprint(self.path)
        if found == self._seen:
            return
        self._seen = found
        try:
            self._known = _read(self.path)
        except (FileError, InputError) as error:  # such as for a file that is half written
            self._log.event("warning", message=f"{error}: the tokens that were read before stay valid")
        else:
            self._log.event("tokens", count=len(self._known))


def _read(path: str) -> list[bytes]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or error
        raise FileError(f"cannot be read as a file of tokens: {what}", path=path) from error
    tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not tokens:
        raise InputError("has no token", path=path, hint="write one token per line")
    if any(len(token) < _FEWEST_CHARACTERS or not token.isascii() or " " in token for token in tokens):
        raise InputError(
            f"has a token that is shorter than {_FEWEST_CHARACTERS} characters, is not ASCII, or has spaces",
            path=path,
            hint='create one with: python -c "import secrets; print(secrets.token_urlsafe())"',
        )
    return [_digest(token) for token in tokens]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
