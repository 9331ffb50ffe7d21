"""An output against the one that was approved."""

from __future__ import annotations

import difflib

from cases import expected_file
from facts import compared

__all__ = ["difference"]

_TOLD = 120
"""Lines of a difference that are shown."""


def difference(name: str, text: str) -> str:
    """What moved, and what to do about it; empty if nothing did."""
    path = expected_file(name)
    if not path.exists():
        return f"{name} has no approved output: python -m tests.approved --update {name}"
    expected, found = compared(path.read_text(), text)
    if expected == found:
        return ""
    lines = list(difflib.unified_diff(expected, found, "approved", "found", n=1, lineterm=""))
    more = [f"... {len(lines) - _TOLD} lines more"] if len(lines) > _TOLD else []
    return "\n".join(
        [
            f"{name} is not what was approved. If it should have moved, write it anew with "
            f"`python -m tests.approved --update {name}` and say why in the commit; "
            "if not, something broke:",
            *lines[:_TOLD], *more,
        ]
    )  # fmt: skip
