"""The reasons for which a request is refused, each with an HTTP status and a gRPC code."""

from __future__ import annotations

import enum

from ..errors import LSTMOnnxError, MissingDependencyError
from ..terminal_text import MOST_MESSAGE, one_line


class Kind(enum.Enum):
    """Each value is an HTTP status and the name of gRPC's status code."""

    INVALID = (400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    FORBIDDEN = (403, "PERMISSION_DENIED")
    NOT_FOUND = (404, "NOT_FOUND")
    METHOD = (405, "UNIMPLEMENTED")
    INCOMPLETE = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    ENCODING = (415, "INVALID_ARGUMENT")
    UPGRADE = (426, "INVALID_ARGUMENT")
    BUG = (500, "INTERNAL")
    UNSUPPORTED = (501, "UNIMPLEMENTED")
    FULL = (503, "RESOURCE_EXHAUSTED")
    UNAVAILABLE = (503, "UNAVAILABLE")
    LATE = (504, "DEADLINE_EXCEEDED")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def code(self) -> str:
        """The name of gRPC's status code."""
        return self.value[1]


class RequestError(Exception):
    """A request was refused or failed; the text is sent to the client."""

    def __init__(self, message: str, kind: Kind = Kind.INVALID) -> None:
        super().__init__(one_line(message, MOST_MESSAGE))
        self.kind = kind


def as_request_error(error: Exception) -> RequestError:
    """The error to send to a client; for a bug it has no details, which are for the log."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, TimeoutError):
        return RequestError(str(error) or "no result in time", Kind.LATE)
    if isinstance(error, LSTMOnnxError) and not isinstance(error, MissingDependencyError):
        # Without the path, which is the server's: the client knows only the model's name.
        return RequestError(error.reason)
    return RequestError("the server failed on this request; its log has the reason", Kind.BUG)
