"""What clients do with connections: they close one direction, send requests ahead, and ask for other protocols."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import pytest

from lstm_onnx.serving.logs import Log
from lstm_onnx.serving.run import _allow_open_files

from .servers import LONG, Server
from .test_http import INFER, infer

BODY = json.dumps(infer()).encode()
JAVA = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
"""What Java's client sends with each request, of which it takes no answer but HTTP/1.1's for a refusal."""
CLOSE = "Connection: close"


def request(*headers: str, body: bytes = BODY, length: int | None = None, method: str = "POST") -> bytes:
    length = len(body) if length is None else length
    head = [f"{method} {INFER} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def answers(server: Server, parts: Sequence[bytes], *, half_closed: bool = False) -> list[tuple[int, bytes]]:
    """The statuses and bodies that come until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        for part in parts:
            connection.sendall(part)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := connection.recv(2**16):
            got += chunk
    found = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        found.append((int(head[9:12]), got[:length]))
        got = got[length:]
    return found


@pytest.fixture(scope="module")
def answer(server: Server) -> tuple[int, bytes]:
    (found,) = answers(server, [request(CLOSE)])
    assert found[0] == 200
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_sends_no_more_gets_its_answers(server: Server, answer: tuple[int, bytes], count: int) -> None:
    assert answers(server, [request() * count], half_closed=True) == [answer] * count
    assert answers(server, [request(CLOSE)], half_closed=True) == [answer]


def test_a_request_that_is_cut_off_gets_none(server: Server) -> None:
    for cut in (request()[:-10], request()[:30], request() + request()[:-10], b""):
        assert len(answers(server, [cut], half_closed=True)) <= cut.count(BODY)
    assert not [event for event in server.events() if "Traceback" in str(event.get("error"))]


@pytest.mark.parametrize("asked", [JAVA, ("Connection: Upgrade", "Upgrade: websocket")], ids=["h2c", "a websocket"])
def test_a_protocol_that_is_not_spoken_is_ignored(
    server: Server, answer: tuple[int, bytes], asked: tuple[str, ...]
) -> None:
    """The body is read, and the requests that follow: RFC 9110, 7.8."""
    assert answers(server, [request(*asked), request(*asked), request(CLOSE)]) == [answer] * 3
    head, tail = request(*asked)[:150], request(*asked)[150:]
    assert answers(server, [head, tail + request(*asked) + request(CLOSE)]) == [answer] * 3
    assert answers(server, [request(*asked, CLOSE)]) == [answer]


def test_spaces_around_a_header_are_no_part_of_it(server: Server, answer: tuple[int, bytes]) -> None:
    asked = (
        request(CLOSE)
        .replace(b"Content-Length: ", b"Content-Length: \t")
        .replace(b"\r\nConnection", b" \r\nConnection")
    )
    assert answers(server, [asked]) == [answer]


def test_this_is_no_proxy(server: Server) -> None:
    ((status, body),) = answers(server, [b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"])
    assert (status, json.loads(body)) == (400, {"error": "Invalid HTTP request received."})


@pytest.mark.parametrize(
    ("before", "after", "warns"),
    [
        ((1024, 5000), 3000, 0),
        ((1024, 2000), 2000, 1),
        ((1024, -1), 3000, 0),
        ((4000, 4000), 4000, 0),
        ((-1, -1), -1, 0),
    ],
)
def test_there_are_files_for_all_streams_or_a_warning(
    before: tuple[int, int], after: int, warns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    limits = [tuple(resource.RLIM_INFINITY if each == -1 else each for each in before)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    _allow_open_files(3000, Log())
    assert limits[-1][0] == (resource.RLIM_INFINITY if after == -1 else after)
    assert limits[-1][1] == limits[0][1]
    assert capsys.readouterr().err.count("warning message=only 2000 files may be open") == warns
