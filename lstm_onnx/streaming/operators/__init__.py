"""What each family of operators does to the axes of its inputs; importing it registers them all."""

from __future__ import annotations

from . import elementwise, movement, products, recurrent, reductions, shapes, windows

__all__ = ["elementwise", "movement", "products", "recurrent", "reductions", "shapes", "windows"]
