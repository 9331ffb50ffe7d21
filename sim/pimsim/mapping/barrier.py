"""Barriers between the tasks of a step; apart from tasks, as schedules need no more of these."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Barrier"]


@dataclass(frozen=True)
class Barrier:
    """A task without work: it is done when all before it in a schedule's order are, and all behind
    it wait for it. What follows is a stage."""

    label: str
    """What the stage is called; it decides nothing."""
