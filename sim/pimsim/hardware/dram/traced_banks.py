"""Banks of a channel along a command trace: which a command touches, and what rows they hold.

The other half of a trace's legality (``legality``) is time; this is state. It is plain Python on
configs, and shares nothing with the kernel's records.
"""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.rules import BOUND_AS, Command, pim_buffer_commands

__all__ = ["CLOSING", "TracedBanks", "TracedCommand"]

CLOSING = (Command.PRE, Command.PREA, Command.PIM_PRE)
"""Commands that close rows and do nothing else."""
_COLUMNS = (Command.RD, Command.WR, Command.RDA, Command.WRA)
_CHANNEL_WIDE = {Command.COMP, Command.READRES, Command.GEMV, Command.HEADER}


@dataclass(frozen=True)
class TracedCommand:
    """One command of a trace; ``row`` -1 where it names none, ``n`` dot products of a GEMV."""

    cycle: int
    channel: int
    command: Command
    bank: int
    row: int = -1
    n: int = 0

    def __str__(self) -> str:
        row = f" row {self.row}" if self.row >= 0 else ""
        where = "" if self.command in _CHANNEL_WIDE else f" bank {self.bank}{row}"
        return f"{self.command.name} at {self.cycle} (channel {self.channel}{where})"


class TracedBanks:
    """Banks of a channel, over its ranks: which a command touches, what their buffers hold."""

    def __init__(self, memory: MemoryConfig, pim: PimConfig | None) -> None:
        org = memory.organization
        self.rows = org.rows
        self.rank_size, self.group_size = org.banks, org.banks_per_group
        self.half_size, self.ranks = org.ranks * org.banks, org.ranks
        self.apart = pim_buffer_commands(memory, pim)
        self.count = org.pseudo_channels * self.half_size
        whole = memory.controller.model == "channel-queues"
        self.refreshed = self.half_size if whole else self.rank_size
        buffers = pim.row_buffers if pim is not None else 1
        self.open_row: list[list[int | None]] = [[None] * self.count for _ in range(buffers)]

    def touched(self, item: TracedCommand) -> range:
        """A bank, its bank group (G_ACT), what is refreshed as a whole (REF, PREA), or the channel
        (dot products)."""
        if item.command in _CHANNEL_WIDE:
            return range(self.count)
        whole = {Command.REF: self.refreshed, Command.PREA: self.refreshed}
        size = {**whole, Command.G_ACT: self.group_size}.get(item.command, 1)
        first = item.bank - item.bank % size
        return range(first, first + size)

    def units(self, banks: range, level: str) -> set[int]:
        """Numbers of the nodes of ``level`` that hold ``banks``."""
        sizes = {
            "channel": self.count,
            "pseudo_channel": self.half_size,
            "rank": self.rank_size,
            "other_ranks": self.rank_size,
            "bank_group": self.group_size,
        }
        return {bank // sizes.get(level, 1) for bank in banks}

    def other_ranks(self, ranks: set[int]) -> set[int]:
        """The other ranks of the same pseudo channels."""
        halves = {rank // self.ranks for rank in ranks}
        return {
            other for half in halves for other in range(half * self.ranks, (half + 1) * self.ranks)
        } - ranks

    def refuse(self, item: TracedCommand) -> str | None:
        """What in the banks' state forbids ``item``, or None."""
        command, normal, pim = item.command, self.open_row[0], self.open_row[-1]
        banks = self.touched(item)
        if command in (*_COLUMNS, Command.GWRITE):
            held = normal[item.bank]
            if held is None or (item.row >= 0 and held != item.row):
                return f"the bank has {_row(held)}"
        elif command == Command.ACT and normal[item.bank] is not None:
            return f"the bank has {_row(normal[item.bank])}"
        elif command in (Command.G_ACT, Command.REF, Command.REFpb):
            checked = [pim] if command == Command.G_ACT else self.open_row
            for bank in banks:
                for rows in checked:
                    if rows[bank] is not None:
                        return f"bank {bank} has {_row(rows[bank])}"
        elif command in (Command.COMP, Command.GEMV):
            for bank in banks:
                if pim[bank] is None or (item.row >= 0 and pim[bank] != item.row):
                    return f"bank {bank} has {_row(pim[bank])} for PIM, not row {item.row}"
        return None

    def change(self, item: TracedCommand) -> None:
        """Open and close what ``item`` opens and closes."""
        opens = item.command in (Command.ACT, Command.G_ACT)
        if not opens and item.command not in (*CLOSING, *BOUND_AS):
            return
        rows = self.open_row[-1 if item.command in self.apart else 0]
        for bank in self.touched(item):
            rows[bank] = item.row if opens else None


def _row(row: int | None) -> str:
    return "no open row" if row is None else f"row {row} open"
