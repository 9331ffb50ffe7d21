"""What a schedule declares of itself, for checks of a config that names one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from pimsim.config.errors import InputError
from pimsim.config.plugins import load_module, module_names

__all__ = ["DeclaredSchedule", "declared_schedule", "schedules_with_parts", "schedules_with_pim"]


class DeclaredSchedule(Protocol):
    """See ``pimsim.engine.schedules.Schedule``."""

    uses_pim: bool
    at_once: bool
    max_parts: int | None
    in_order: bool


def declared_schedule(name: str) -> DeclaredSchedule:
    """What the schedule of the module ``name`` declares.

    Parameters
    ----------
    name
        Of the module.

    Raises
    ------
    InputError
        Where there is no such module, or it declares nothing.
    """
    module = load_module("policy", name)
    found = getattr(module, "SCHEDULE", None)
    missing = [key for key in DeclaredSchedule.__annotations__ if not hasattr(found, key)]
    if missing:
        raise InputError(
            f"schedule.policy {name!r}: module {module.__name__} has no SCHEDULE with "
            f"{', '.join(missing)}; a schedule is a subclass of pimsim.engine.schedules.Schedule"
        )
    return cast(DeclaredSchedule, found)


def schedules_with_pim() -> str:
    """Names of all that use PIM, as a message says which are allowed."""
    return _named(lambda declared: declared.uses_pim)


def schedules_with_parts(parts: int) -> str:
    """Names of all that take so many sub-batches.

    Parameters
    ----------
    parts
        Sub-batches.

    Returns
    -------
    str
        Separated by commas, as a message says which are allowed.
    """
    return _named(lambda declared: declared.max_parts is None or declared.max_parts >= parts)


def _named(fits: Callable[[DeclaredSchedule], bool]) -> str:
    return ", ".join(name for name in module_names("policy") if fits(declared_schedule(name)))
