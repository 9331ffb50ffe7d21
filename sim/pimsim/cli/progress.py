"""A line on stderr while something takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["status_line"]


@contextmanager
def status_line(name: str) -> Iterator[Callable[[str], None] | None]:
    """Say on stderr how far something is.

    Parameters
    ----------
    name
        Of what runs.

    Yields
    ------
    Callable[[str], None] | None
        Says its text in place of what was said before; None where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape

    shown = escape(name)
    with Console(stderr=True).status(f"{shown}: preparing") as status:
        yield lambda text: status.update(f"{shown}: {escape(text)}")
