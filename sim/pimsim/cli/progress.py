"""A line on stderr while something takes its time."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pimsim.cli.edge import Stopped

__all__ = ["count_line", "count_words", "says_how_to_go_on", "status_line", "time_left"]

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


@contextmanager
def count_line(
    name: str, unit: str, total: float | None = None, about: bool = False
) -> Iterator[Callable[[float, str], None] | None]:
    """Say on stderr how many of something are done, how fast, and the time that is left.

    Parameters
    ----------
    name
        Of what runs.
    unit
        What is counted, as in "rows".
    total
        How many there will be; None: that is not known.
    about
        Whether the total is an estimate.

    Yields
    ------
    Callable[[float, str], None] | None
        Takes how many are done, and words for what is under way; None where stderr is no terminal.
    """
    with status_line(name) as tell:
        if tell is None:
            yield None
            return
        begun = time.monotonic()

        def count(done: float, what: str = "") -> None:
            tell(count_words(time.monotonic() - begun, done, total, unit, what, about))

        yield count


def count_words(
    elapsed_s: float, done: float, total: float | None, unit: str, what: str = "",
    about: bool = False,
) -> str:  # fmt: skip
    """Words for how far something is: counts, rate, time left, and what is under way.

    Parameters
    ----------
    elapsed_s
        Seconds so far.
    done
        So many of ``total``.
    total
        None: it is not known.
    unit
        What is counted.
    what
        Is under way.
    about
        Whether the total is an estimate.
    """
    known = total is not None and total >= done
    words = [f"{done:,.0f} of {'about ' * about}{total:,.0f} {unit}" if known else
             f"{done:,.0f} {unit}"]  # fmt: skip
    if done > 0 and elapsed_s > 0:
        rate = done / elapsed_s
        words.append(f"{rate:,.3g} a second" if rate >= 1 else f"{1 / rate:,.3g} s each")
        if known and total is not None:
            words.append(time_left(elapsed_s, done, total))
    return ", ".join(word for word in (*words, what) if word)


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
def says_how_to_go_on(
    kept: Callable[[], str], command: Sequence[str], how: str = "to go on"
) -> Iterator[None]:
    """Where a signal stops what is inside, say on stderr what is kept and the command to go on.

    Parameters
    ----------
    kept
        Says what is kept so far.
    command
        Words of the command line.
    how
        What it is for: where nothing is kept, to begin again.
    """
    try:
        yield
    except Stopped:
        print(f"{kept()}; {how}: {shlex.join(command)}", file=sys.stderr, flush=True)
        raise
