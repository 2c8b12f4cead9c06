"""The HTML that a notebook shows for a model."""

from __future__ import annotations

from html import escape

from ..terminal_text import one_line
from .loaded_model import LoadedModel


def model_html(model: LoadedModel) -> str:
    """A table of a model's inputs, outputs and states as HTML, with every name escaped."""
    states = {output: name for name, output in model.states.items()}
    rows = []
    for kind, infos in (("input", model.inputs), ("output", model.outputs)):
        for name, info in infos.items():
            shape = ", ".join("?" if dim is None else str(dim) for dim in info.shape)
            state = f"feeds {states[name]}" if kind == "output" and name in states else ""
            state = "state" if kind == "input" and name in model.states else state
            cells = (kind, name, str(info.dtype), f"({shape})", state)
            rows.append("<tr>" + "".join(f"<td>{escape(one_line(cell))}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{title}</th>" for title in ("", "name", "dtype", "shape", "state"))
    title = escape(one_line(f"{model.path} on {model.provider}"))
    return f"<table><caption>{title}</caption><tr>{head}</tr>{''.join(rows)}</table>"
