"""What can go wrong and end the program with a clear line: wrong input, or a failed check."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["CheckFailed", "InputError", "first_fault", "near_miss", "reason"]


class InputError(Exception):
    """The input is wrong; ``str()`` is one line, ready to print after ``error:``.

    The line names where (file, line, key), what was found and what is allowed. The command
    line prints it and exits with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class CheckFailed(Exception):
    """A result breaks a law (a bound, a conservation) or moved from its reference; exit code 1."""


def near_miss(found: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``allowed``, else ``""``.

    Parameters
    ----------
    found
        What somebody wrote.
    allowed
        What could have been meant.

    Returns
    -------
    str
        To be put at the end of a message; empty where nothing is close.
    """
    names = list(allowed)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    if not close:
        folded = {name.lower(): name for name in names}
        match = difflib.get_close_matches(found.lower(), list(folded), n=1, cutoff=0.6)
        close = [folded[name] for name in match]
    return f"; did you mean {close[0]!r}?" if close else ""


def first_fault(error: ValidationError) -> str:
    """Where the first fault is, what is wrong, what was found where that is short, and how many
    more there are; for data that no file and line stand behind (``schema.explain`` has those).

    Parameters
    ----------
    error
        Of pydantic.

    Returns
    -------
    str
        One line.
    """
    details = error.errors(include_url=False)
    first = details[0]
    place = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    found = f", found {first['input']!r}" if isinstance(first["input"], (str, int, float)) else ""
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{place}: {said}{found}{more}" if place else f"{said}{more}"


def reason(error: OSError) -> str:
    """Why the system refused. Libraries raise the error with a text alone, without its number.

    Parameters
    ----------
    error
        Of a system call, or of a library that stands for one.
    """
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
