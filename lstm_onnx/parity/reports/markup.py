"""HTML that cannot be broken out of: text becomes markup by being escaped, and in no other way."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: object) -> Markup:
    """An element.

    Args:
        name: the element's, of HTML or SVG.
        content: text, which is escaped, and `Markup`, which is not.
        attributes: by their names with underscores for hyphens, and one behind what Python keeps for
            itself (``class_``); None and False are left out, True is an attribute without a value.
    """
    written = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            own = key.rstrip("_").replace("_", "-")
            written.append(own if value is True else f'{own}="{escape(str(value))}"')
    end = "" if name in _VOID else f"</{name}>"
    return Markup(f"<{' '.join(written)}>{join(*content)}{end}")


def join(*content: str) -> Markup:
    """One after the other; text is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content))
