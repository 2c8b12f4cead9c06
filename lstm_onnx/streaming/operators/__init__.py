"""How each family of operators maps the axes of its inputs to its outputs; importing this registers all of them."""

from __future__ import annotations

from . import elementwise, movement, products, recurrent, reductions, shapes, windows

__all__ = ["elementwise", "movement", "products", "recurrent", "reductions", "shapes", "windows"]
