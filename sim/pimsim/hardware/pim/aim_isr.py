"""AiM host instructions (ISRs): trace files of the public AiM simulator, and what they become.

A line is ``AiM OPCODE fields``, ``R|W MEM channel bank row``, ``R|W GPR number`` or
``W CFR number data``; ``#`` starts a comment. Fields are decimal or ``0x`` hexadecimal. Bit ``i``
of a channel mask is channel ``31 - i`` of 32 (arkhadem/aim_simulator: README, base/request.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pimsim.config.errors import InputError, near_miss
from pimsim.config.pim import PimDesignConfig
from pimsim.config.reading import read_bytes
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder

__all__ = ["Isr", "isr_stream", "parse_isr_trace", "read_isr_trace", "table_row"]

MAX_TRACE_BYTES = 2**28


@dataclass(frozen=True)
class Isr:
    """One host instruction."""

    opcode: str
    """``MAC_ABK``, ``RD_MAC`` ...; ``R_MEM``, ``W_MEM``, ``W_CFR`` and so on for the others."""
    channels: int = 0
    """Bit ``c``: it goes to channel ``c``."""
    opsize: int = 1
    """Columns."""
    bank: int = 0
    row: int = -1
    register: int = 0
    """Of R/W CFR: 0 operand of MAC, 1 bank groups of EWMUL, 2 activation function."""
    data: int = 0


@dataclass(frozen=True)
class _Form:
    """How an opcode is written and what it becomes."""

    fields: tuple[str, ...]
    command: str | None
    """None: it costs the host's cycle only."""
    blocking: bool = False
    everywhere: bool = False
    one_channel: bool = False


_MASKED = ("gpr", "mask")
_FORMS = {
    "WR_SBK": _Form((*_MASKED, "bank", "row"), "WR"),
    "WR_ABK": _Form((*_MASKED, "row"), "WRA16", one_channel=True),
    "WR_GB": _Form(("opsize", *_MASKED), "WRGB"),
    "WR_BIAS": _Form(_MASKED, "WRMAC16"),
    "RD_MAC": _Form(_MASKED, "RDMAC16", blocking=True),
    "RD_AF": _Form(_MASKED, "RDAF16", blocking=True),
    "RD_SBK": _Form((*_MASKED, "bank", "row"), "RD"),
    "COPY_BKGB": _Form(("opsize", "mask", "bank", "row"), "RDCP"),
    "COPY_GBBK": _Form(("opsize", "mask", "bank", "row"), "WRCP"),
    "MAC_SBK": _Form(("opsize", "mask", "bank", "row"), "MAC"),
    "MAC_ABK": _Form(("opsize", "mask", "row"), "MAC16"),
    "AF": _Form(("mask",), "AF16"),
    "EWMUL": _Form(("opsize", "mask", "row"), "EWMUL16"),
    "EWADD": _Form(("opsize", "gpr", "gpr"), None),
    "SYNC": _Form((), "SYNC", blocking=True, everywhere=True),
    "EOC": _Form((), "EOC", blocking=True, everywhere=True),
    "R_MEM": _Form(("channel", "bank", "row"), "RD"),
    "W_MEM": _Form(("channel", "bank", "row"), "WR"),
    "R_GPR": _Form(("gpr",), None),
    "W_GPR": _Form(("gpr",), None),
    "R_CFR": _Form(("register", "data"), None),
    "W_CFR": _Form(("register", "data"), None),
}
_AIM_OPCODES = [name for name in _FORMS if name[1] != "_"]
_PLAIN = ("RD", "WR")
_REGIONS = ("MEM", "GPR", "CFR")
_ACTIVATION_FUNCTION = 2


def read_isr_trace(path: Path, design: PimDesignConfig) -> list[Isr]:
    """The instructions of a trace file.

    Parameters
    ----------
    path
        Of a text file in the format of arkhadem/aim_simulator.
    design
        Of which channels, banks, rows and registers are checked.

    Returns
    -------
    list[Isr]
        In order, EOC last.

    Raises
    ------
    InputError
        With the line that is wrong, or where the file cannot be read.
    """
    content = read_bytes(path, "a trace of AiM instructions", MAX_TRACE_BYTES)
    text = content.decode("utf-8-sig", errors="backslashreplace")
    return parse_isr_trace(text.splitlines(), str(path), design)


def parse_isr_trace(lines: Iterable[str], label: str, design: PimDesignConfig) -> list[Isr]:
    """As ``read_isr_trace``, from lines.

    Parameters
    ----------
    lines
        Of the trace, up to the one with EOC; later ones are not read.
    label
        What messages call the trace.
    design
        Of which channels, banks, rows and registers are checked.

    Returns
    -------
    list[Isr]
        In order, EOC last.

    Raises
    ------
    InputError
        With the line that is wrong, or where no EOC ends the trace.
    """
    found: list[Isr] = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        where = f"{label}:{number}"
        isr = _parse(words, where, design)
        found.append(isr)
        if isr.opcode == "EOC":
            return found
    raise InputError(f"{label}: no 'AiM EOC' ends the trace")


def _parse(words: Sequence[str], where: str, design: PimDesignConfig) -> Isr:
    kind = words[0]
    if kind not in ("AiM", "R", "W"):
        raise InputError(
            f"{where}: found {kind!r}{near_miss(kind, ['AiM'])}; a line begins with AiM, R or W"
        )
    if len(words) < 2:
        raise InputError(f"{where}: nothing follows {kind!r}")
    if kind == "AiM":
        opcode, allowed = words[1].removeprefix("ISR_"), _AIM_OPCODES
    else:
        opcode, allowed = f"{kind}_{words[1]}", [f"{kind}_{region}" for region in _REGIONS]
    if opcode not in allowed:
        shown = [name.removeprefix(f"{kind}_") for name in allowed]
        raise InputError(
            f"{where}: {kind} has no {words[1]!r}{near_miss(words[1], shown)}; "
            f"allowed: {', '.join(shown)}"
        )
    form = _FORMS[opcode]
    if len(words) - 2 != len(form.fields):
        raise InputError(
            f"{where}: {kind} {words[1]} takes {len(form.fields)} fields "
            f"({' '.join(form.fields) or 'none'}), found {len(words) - 2}"
        )
    values = {
        name: _number(text, name, where) for name, text in zip(form.fields, words[2:], strict=True)
    }
    return _isr(opcode, form, values, where, design)


def _number(text: str, field: str, where: str) -> int:
    try:
        value = int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        raise InputError(f"{where}: {field}: found {text!r}; a whole number is expected") from None
    if not 0 <= value < 2**63:
        raise InputError(f"{where}: {field}: found {text}; allowed: 0 to 2^63 - 1")
    return value


def _isr(
    opcode: str, form: _Form, values: dict[str, int], where: str, design: PimDesignConfig
) -> Isr:
    org = design.organization
    limits = {
        "channel": org.channels,
        "bank": org.channel_banks,
        "row": table_row(design, 0),
        "opsize": org.columns + 1,
        "register": 3,
    }
    for name, limit in limits.items():
        if values.get(name, 0) >= limit:
            raise InputError(f"{where}: {name}: found {values[name]}; allowed: 0 to {limit - 1}")
    channels = 1 << values["channel"] if "channel" in values else 0
    if "mask" in values:
        mask = values["mask"]
        if not 0 < mask < 1 << org.channels:
            raise InputError(
                f"{where}: channel mask: found {mask:#x}; allowed: 0x1 to "
                f"{(1 << org.channels) - 1:#x}"
            )
        if form.one_channel and mask.bit_count() != 1:
            raise InputError(f"{where}: {opcode} takes a mask of one channel, found {mask:#x}")
        channels = sum(1 << (org.channels - 1 - i) for i in range(org.channels) if mask >> i & 1)
    if form.everywhere:
        channels = (1 << org.channels) - 1
    return Isr(
        opcode,
        channels,
        values.get("opsize", 1),
        values.get("bank", 0),
        values.get("row", -1),
        values.get("register", 0),
        values.get("data", 0),
    )


def table_row(design: PimDesignConfig, function: int) -> int:
    """The row of every bank that holds the table of an activation function.

    Parameters
    ----------
    design
        Its capacity ``activation_tables`` says how many rows, the last of each bank, hold one.
    function
        Number of the activation function, as W CFR sets it; taken modulo the tables there are.
    """
    tables = design.capacity("activation_tables")
    return design.organization.rows - tables + function % tables


def isr_stream(isrs: Sequence[Isr], design: PimDesignConfig) -> CommandStream:
    """The commands of ``isrs``; the stream's first channel is channel 0.

    Channels to which the same instructions go are simulated once. RD_MAC, RD_AF, SYNC and EOC
    block the host, SYNC and EOC also wait until the channels have completed all before them.
    PIM commands go in order; plain reads and writes of different banks overtake each other.

    Parameters
    ----------
    isrs
        In the order in which the host sends them, EOC included.
    design
        Whose channels they go to, and whose commands they become.
    """
    every = range(design.organization.channels)
    kinds, copies = _channel_kinds(isrs, every)
    groups = {
        mask: sorted({kinds[channel] for channel in every if mask >> channel & 1})
        for mask in {isr.channels for isr in isrs}
    }
    per_group = design.organization.banks_per_group
    plain = any(_FORMS[isr.opcode].command in _PLAIN for isr in isrs)
    builder = StreamBuilder(design, copies, 1 + design.organization.channel_banks if plain else 1)
    function = 0
    for isr in isrs:
        form = _FORMS[isr.opcode]
        if isr.opcode == "W_CFR" and isr.register == _ACTIVATION_FUNCTION:
            function = isr.data
        if form.command is None or isr.opsize == 0:
            builder.pause()
            continue
        builder.add(
            form.command,
            row=table_row(design, function) if isr.opcode == "AF" else isr.row,
            place=(0, 0, isr.bank // per_group, isr.bank % per_group),
            count=isr.opsize if "opsize" in form.fields else 1,
            channels=groups[isr.channels],
            lane=1 + isr.bank if form.command in _PLAIN else 0,
            wait="completed" if form.everywhere else "none",
            blocking=form.blocking,
        )
    return builder.build()


def _channel_kinds(isrs: Sequence[Isr], channels: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each channel the number of its kind (that of channel 0 is 0), and how many there are
    of each kind: channels of a kind get the same instructions."""
    got: list[list[int]] = [[] for _ in channels]
    for number, isr in enumerate(isrs):
        if not _FORMS[isr.opcode].everywhere:
            for channel in channels:
                if isr.channels >> channel & 1:
                    got[channel].append(number)
    known: dict[tuple[int, ...], int] = {}
    kinds = [known.setdefault(tuple(numbers), len(known)) for numbers in got]
    return kinds, [kinds.count(kind) for kind in range(len(known))]
