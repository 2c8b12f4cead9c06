"""The application over HTTP, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lstm_onnx.serving.http_app import HttpApp, page
from lstm_onnx.serving.logs import Log
from lstm_onnx.serving.service import Service
from lstm_onnx.serving.settings import Settings

PAGE = "https://app.example"
TOKEN = "0123456789abcdef"  # noqa: S105 - of this test alone


def answered(settings: Settings, method: str, **headers: str) -> tuple[int, dict[str, str]]:
    """The status and headers of the answer to a request for /v2."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/v2", "headers": [(b"host", b"localhost"), *pairs]}
    asyncio.run(HttpApp(Service({}, settings, Log(quiet=True)))(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "tokens").write_text(TOKEN)
    return Settings(origins=(PAGE,), tokens=str(tmp_path / "tokens"))


def test_a_page_of_an_allowed_origin_reads_answers_and_errors(settings: Settings) -> None:
    for authorization, expected in ((f"Bearer {TOKEN}", 200), ("", 401)):
        status, headers = answered(settings, "GET", origin=PAGE, authorization=authorization)
        assert (status, headers["access-control-allow-origin"], headers["vary"]) == (expected, PAGE, "origin")
        assert headers["access-control-expose-headers"] == "inference-header-content-length"


def test_its_browser_may_ask_beforehand_without_the_token(settings: Settings) -> None:
    asked = "authorization,content-type"
    status, headers = answered(settings, "OPTIONS", origin=PAGE, access_control_request_headers=asked)
    assert (status, headers["access-control-allow-headers"]) == (200, asked)
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST"


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_page_of_another_origin_does_not(settings: Settings, method: str) -> None:
    status, headers = answered(settings, method, origin="https://evil.example")
    assert (status, "access-control-allow-origin" in headers) == (403, False)
    status, headers = answered(settings, method, authorization=f"Bearer {TOKEN}")
    assert (status, "vary" in headers) == ({"GET": 200, "OPTIONS": 405}[method], False)


@pytest.mark.parametrize("name", ["index.html", "page.mjs"])
def test_the_page_works_under_a_prefix_of_a_proxy(name: str) -> None:
    found = page(name)
    assert found is not None
    assert not any(start in found[0] for start in (b"location.origin", b'="/', b'("/'))
