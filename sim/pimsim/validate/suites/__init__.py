"""One module a suite: its ``SUITE`` names what it compares."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from pimsim.config.errors import InputError, near_miss
from pimsim.validate.types import Suite

__all__ = ["SUITES", "load_suites"]

SUITES = (
    "dram",
    "npu",
    "pim",
    "neupims",
    "attacc",
    "gpu",
    "serving",
    "servers",
    "fabric",
    "papers",
)


def load_suites(name: str | None = None) -> Sequence[Suite]:
    """The suite ``name``, or all of them.

    Parameters
    ----------
    name
        Of the suite's module; None: all.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    if name is not None and name not in SUITES:
        raise InputError(
            f"unknown suite {name!r}{near_miss(name, SUITES)}; allowed: {', '.join(SUITES)}"
        )
    names = SUITES if name is None else (name,)
    return [import_module(f"{__name__}.{each}").SUITE for each in names]
