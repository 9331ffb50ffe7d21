"""A line on stderr while something takes its time."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pimsim.cli.edge import Stopped

__all__ = ["says_how_to_go_on", "status_line", "time_left"]

_MINUTE_S, _HOUR_S = 60, 3600


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


def time_left(elapsed_s: float, done: float, total: float) -> str:
    """Words for the time that is left, if the rest takes as long as what is done.

    Parameters
    ----------
    elapsed_s
        Seconds so far.
    done, total
        In any unit.

    Returns
    -------
    str
        Empty before anything is done, and at the end.
    """
    if done <= 0 or done >= total:
        return ""
    left = round(elapsed_s * (total - done) / done)
    if left < _MINUTE_S:
        return f"about {left} s left"
    if left < _HOUR_S:
        return f"about {left // _MINUTE_S} min {left % _MINUTE_S} s left"
    return f"about {left // _HOUR_S} h {left % _HOUR_S // _MINUTE_S} min left"


@contextmanager
def says_how_to_go_on(kept: Callable[[], str], command: Sequence[str]) -> Iterator[None]:
    """Where a signal stops what is inside, say on stderr what is kept and the command to go on.

    Parameters
    ----------
    kept
        Says what is kept so far.
    command
        Words of the command line.
    """
    try:
        yield
    except Stopped:
        print(f"{kept()}; to go on: {shlex.join(command)}", file=sys.stderr, flush=True)
        raise
