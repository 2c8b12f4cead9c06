"""Settings that would have no effect are refused."""

from __future__ import annotations

import pytest

from lstm_onnx.errors import InputError
from lstm_onnx.serving.settings import Settings


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com/",
        "https://Example.com",
        "example.com",
        "*",
        "",
        "https://",
        "https://example.com:443",
        "http://example.com:80",
        "https://example.com:x",
        "http://[",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(InputError, match="is not how a browser writes an origin, and would allow none"):
        Settings(origins=(origin,)).require_safe()


@pytest.mark.parametrize(
    "origin", ["https://example.com", "http://localhost:8080", "http://[::1]:81", "chrome-extension://abc", "null"]
)
def test_others_are_taken(origin: str) -> None:
    Settings(origins=(origin,)).require_safe()
