"""What a machine moves where, and what runs where: why two designs differ, beside their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pimsim.result.types import Result
from pimsim.result.words import OPERATOR_UNITS, unit_words

__all__ = ["Work", "work_of"]

_ROWS = ("row_miss", "commands", "turn")
"""Causes of PIM's and the data bus's stack that are rows opened and closed."""
_WINDOW = "activation_window"
_NO_PRODUCTS = ("link", "pim_link", "host")
"""Units whose bytes and operations are not the memory's."""


@dataclass(frozen=True)
class Work:
    """Of one device, a block's where several were simulated."""

    pin_bytes: float | None
    """Over the data buses; null: the run kept no rates over time."""
    bank_bytes: float | None
    """Read in the banks by PIM."""
    operations_per_byte: float | None
    """Of all operators, by the bytes that they read and write."""
    row_share: Mapping[str, float]
    """Of the run: time of PIM and of the data buses in which rows turn, by unit."""
    window_share: Mapping[str, float]
    """Of the run: time that they wait for the activation window (tFAW), by unit."""
    ran_on: Mapping[str, tuple[str, ...]]
    """Names of operators, by unit."""

    def words(self) -> str:
        """One line."""
        parts = []
        if self.pin_bytes is not None:
            parts.append(f"{_bytes(self.pin_bytes)} over pins")
        if self.bank_bytes:
            parts.append(f"{_bytes(self.bank_bytes)} in banks")
        if self.operations_per_byte is not None:
            parts.append(f"{self.operations_per_byte:.2f} operations a byte")
        for name, shares in (("rows turn", self.row_share), ("tFAW", self.window_share)):
            parts += [f"{name} {share:.1%} of {unit_words(u)}" for u, share in shares.items()]
        parts += [f"{unit_words(unit)}: {', '.join(names)}" for unit, names in self.ran_on.items()]
        return "; ".join(parts)


def work_of(result: Result) -> Work:
    """What a run's device did.

    Parameters
    ----------
    result
        Of a run.

    Returns
    -------
    Work
        Bytes a block, shares of the run.
    """
    blocks = max(result.layers_simulated, 1)
    series = result.series
    mine = [each for each in result.operators if each.device == 0]
    counted = [each for each in mine if each.unit not in _NO_PRODUCTS]
    moved = sum(each.bytes for each in counted)
    ran_on: dict[str, dict[str, None]] = {}
    for each in counted:
        ran_on.setdefault(each.unit, {})[each.name] = None
    return Work(
        pin_bytes=None if series is None else sum(series.dram_bytes) / blocks,
        bank_bytes=None if series is None else sum(series.pim_bytes) / blocks,
        operations_per_byte=sum(each.flops for each in counted) / moved if moved else None,
        row_share=_shares(result, _ROWS),
        window_share=_shares(result, (_WINDOW,)),
        ran_on={unit: tuple(ran_on[unit]) for unit in OPERATOR_UNITS if unit in ran_on},
    )


def _shares(result: Result, causes: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for unit in ("pim", "dram_bus"):
        stack = result.cycle_stack.get(unit, {})
        cycles = sum(stack.get(cause, 0) for cause in causes)
        if cycles:
            found[unit] = cycles / result.cycles
    return found


def _bytes(amount: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= size:
            return f"{amount / size:.2f} {unit} a block"
    return f"{amount:.0f} B a block"
