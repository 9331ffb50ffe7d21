"""A figure that a notebook shows without a display or pyplot."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["Picture"]

_DOTS_PER_INCH = 110


class Picture(Figure):
    """A figure of matplotlib that shows itself as PNG."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DOTS_PER_INCH)
        return content.getvalue()
