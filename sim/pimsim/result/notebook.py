"""Tables as a notebook shows them."""

from __future__ import annotations

import io
from typing import Any

__all__ = ["html_of"]

_WIDTH = 140
_FORMAT = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)


def html_of(*shown: Any) -> str:
    """HTML of what a terminal would show.

    Parameters
    ----------
    shown
        Tables and texts of rich.
    """
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=_WIDTH, highlight=False)
    for each in shown:
        console.print(each)
    return console.export_html(inline_styles=True, code_format=_FORMAT)
