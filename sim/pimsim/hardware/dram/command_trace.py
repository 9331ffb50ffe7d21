"""Command traces as text, one command a line, in the form that DRAMsim3 writes.

``CYCLE COMMAND CHANNEL RANK BANK_GROUP BANK ROW COLUMN``: cycles of tCK in decimal, row and column
in hex, -1 where a command has none. DRAMsim3 writes a file for each channel and gives refreshes,
and precharges before them, the channel -1: that is the channel of the file's other commands.
Ranks count over the pseudo channels of a memory that has them, and cycles are the ticks of its
controller; ``precharge_all`` closes what one refresh covers.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from pimsim.config.errors import InputError, near_miss
from pimsim.config.files import write_whole
from pimsim.config.memory import MemoryConfig
from pimsim.config.reading import open_input
from pimsim.hardware.dram.rules import Command

__all__ = ["TraceLine", "read_command_trace", "write_command_trace"]

_NAMES = {
    "activate": Command.ACT,
    "precharge": Command.PRE,
    "read": Command.RD,
    "write": Command.WR,
    "read_p": Command.RDA,
    "write_p": Command.WRA,
    "refresh": Command.REF,
    "refresh_bank": Command.REFpb,
    "precharge_all": Command.PREA,
}
MAX_LINE = 4096
MAX_LINES = 20_000_000
"""Of a trace, empty ones too: a few kilobytes of gzip may hold billions of them."""
_SPELT = {command: name for name, command in _NAMES.items()}
_FIELDS = ("cycle", "command", "channel", "rank", "bank group", "bank", "row", "column")
_EXAMPLE = "16 read 0 0 3 1 0x1132 0x11"
_DECIMAL, _HEX = re.compile("-?[0-9]{1,18}"), re.compile("-?0[xX][0-9a-fA-F]{1,15}|-?[0-9]{1,18}")


@dataclass(frozen=True)
class TraceLine:
    """One command; ``bank`` counts over the ranks of its channel, -1 is no row or column."""

    line: int
    cycle: int
    channel: int
    command: Command
    bank: int
    row: int
    column: int

    @property
    def entry(self) -> tuple[int, int, int, int, int]:
        """As ``check_commands`` takes it."""
        return self.cycle, self.channel, int(self.command), self.bank, self.row


def read_command_trace(path: Path, memory: MemoryConfig) -> list[TraceLine]:
    """The commands in ``path``, checked against ``memory``'s organisation.

    Parameters
    ----------
    path
        Plain or gzip, in the form of this module.
    memory
        Whose organisation bounds channels, ranks, banks, rows and columns.

    Returns
    -------
    list of TraceLine
        In the order of the file; commands of channel -1 have the channel of the others.

    Raises
    ------
    InputError
        Names file and line of anything that is no command of this memory and of time that runs
        back; or says that the file cannot be read or holds no command.

    References
    ----------
    DRAMsim3's command traces (``-t``), one file a channel.
    """
    with open_input(path, "a command trace", None) as binary:
        packed = binary.read(2) == b"\x1f\x8b"
        binary.seek(0)
        try:
            with gzip.open(binary) if packed else binary as stream:
                text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace")
                lines = list(_lines(text, str(path), memory))
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            kind = "cannot be read as gzip" if packed else "cannot be read"
            raise InputError(f"{path}: {kind}: {reason}") from None
    if not lines:
        raise InputError(f"{path}: holds no command; lines such as '{_EXAMPLE}' are expected")
    return _placed(lines, str(path))


def _placed(lines: list[TraceLine], label: str) -> list[TraceLine]:
    """Commands of channel -1 put into the one channel that the others have; in time's order."""
    channels = {item.channel for item in lines if item.channel >= 0}
    only = min(channels, default=0)
    placed = []
    latest: dict[int, TraceLine] = {}
    for item in lines:
        here = item
        if item.channel < 0:
            if len(channels) > 1:
                raise InputError(
                    f"{label}:{item.line}: channel -1 in a trace of {len(channels)} channels"
                )
            here = replace(item, channel=only)
        before = latest.get(here.channel)
        if before is not None and here.cycle < before.cycle:
            raise InputError(
                f"{label}:{here.line}: cycle {here.cycle} comes after {before.cycle} of line "
                f"{before.line}; commands of a channel must be in time's order"
            )
        latest[here.channel] = here
        placed.append(here)
    return placed


def _lines(stream: TextIO, label: str, memory: MemoryConfig) -> Iterator[TraceLine]:
    for number in itertools.count(1):
        text = stream.readline(MAX_LINE)
        if not text:
            return
        if number > MAX_LINES:
            raise InputError(f"{label}: more than {MAX_LINES:,} lines, the limit")
        if len(text) == MAX_LINE:
            raise InputError(f"{label}:{number}: longer than {MAX_LINE} characters, the limit")
        words = text.partition("#")[0].split()
        if words:
            yield _line(words, number, f"{label}:{number}", memory)


def _line(words: Sequence[str], number: int, where: str, memory: MemoryConfig) -> TraceLine:
    if len(words) != len(_FIELDS):
        raise InputError(
            f"{where}: {len(words)} fields; {len(_FIELDS)} are expected "
            f"({', '.join(_FIELDS)}), such as '{_EXAMPLE}'"
        )
    if words[1] not in _NAMES:
        raise InputError(
            f"{where}: command {words[1][:20]!r}{near_miss(words[1][:20], _NAMES)}; "
            f"allowed: {', '.join(_NAMES)}"
        )
    command = _NAMES[words[1]]
    org = memory.organization
    whole = command in (Command.REF, Command.PREA)
    columns = (Command.RD, Command.WR, Command.RDA, Command.WRA)
    has_row = command in (Command.ACT, *columns)
    bounds = {
        "cycle": (0, 10**15),
        "channel": (-1, org.channels - 1),
        "rank": (0, org.pseudo_channels * org.ranks - 1),
        "bank group": (-1 if whole else 0, org.bank_groups - 1),
        "bank": (-1 if whole else 0, org.banks_per_group - 1),
        "row": (0 if has_row else -1, org.rows - 1),
        "column": (0 if command in columns else -1, org.columns - 1),
    }
    found = {}
    for field, word in zip(_FIELDS, words, strict=True):
        if field == "command":
            continue
        form, base = (_HEX, 0) if field in ("row", "column") else (_DECIMAL, 10)
        if not form.fullmatch(word):
            raise InputError(f"{where}: {field} {word[:20]!r} is no whole number")
        value = int(word, base if "x" in word.lower() else 10)
        low, high = bounds[field]
        if not low <= value <= high:
            raise InputError(
                f"{where}: {field} {word[:20]} of {words[1]}; {memory.name} has {low} to {high}"
            )
        found[field] = value
    bank = found["rank"] * org.banks
    if not whole:
        bank += found["bank group"] * org.banks_per_group + found["bank"]
    return TraceLine(
        number, found["cycle"], found["channel"], command, bank, found["row"], found["column"]
    )


def write_command_trace(path: Path, lines: Sequence[TraceLine], memory: MemoryConfig) -> None:
    """Write ``lines`` in DRAMsim3's form; every command names its channel.

    Parameters
    ----------
    path
        Gzip if it ends in ``.gz``; written whole or not at all.
    lines
        As ``ReplayResult.trace_lines`` lists them.
    memory
        That they are of: it has the banks of a rank and of a bank group.
    """
    org = memory.organization
    rows = []
    for item in lines:
        rank, bank = divmod(item.bank, org.banks)
        group, place = divmod(bank, org.banks_per_group)
        if item.command in (Command.REF, Command.PREA):
            group = place = -1
        rows.append(
            f"{item.cycle:<18} {_SPELT[item.command]:<20} {item.channel:>3} {rank:>3} {group:>3} "
            f"{place:>3} {item.row:>#8x} {item.column:>#8x}\n"
        )
    data = "".join(rows).encode()
    write_whole(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
