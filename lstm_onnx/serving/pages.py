"""The web page of a server, and the client that it uses."""

from __future__ import annotations

from functools import cache
from importlib import resources

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "client.mjs": "text/javascript; charset=utf-8",
    "page.mjs": "text/javascript; charset=utf-8",
}


@cache
def page(name: str) -> tuple[bytes, str] | None:
    """The content and type of a file of the page; None where there is none of this name, "" for the page itself."""
    name = name or "index.html"
    if name not in _TYPES:
        return None
    return (resources.files(__package__) / "web" / name).read_bytes(), _TYPES[name]
