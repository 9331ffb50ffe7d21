"""GDDR6-AiM against the public AiM simulator (arkhadem/aim_simulator): its test traces.

The trace files are that project's and do not ship; what they hold is said here in a few words:
a block of instructions, repeated for 1024 rows. ``aim_random.csv`` holds random traces of our own
with what that simulator (built from 0f28a07) makes of them, ``aim_gemv.csv`` what it makes of our
GEMVs written as ISRs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.hardware.pim.aim_isr import isr_stream, parse_isr_trace
from pimsim.hardware.pim.designs.aim import gemv
from pimsim.hardware.pim.stream import StreamResult, run_stream
from pimsim.validate.types import References, Row

__all__ = ["rows", "trace_lines"]

_TABLES = ("aim.csv", "aim_micro.csv", "aim_random.csv")
_ROWS = 1024
_ALL = "0xffffffff"


def _each_row(*block: str) -> list[str]:
    """``block`` for each of 1024 rows, ``{row}`` in it replaced."""
    return [f"AiM {line.format(row=row)}" for row in range(_ROWS) for line in block]


def _every_isr() -> list[str]:
    """Each instruction once or twice, on channels 28 to 31 (mask 15); plain writes to 0 to 3."""
    singles = [1 << channel for channel in range(4)]
    lines = [f"W MEM {channel} 2 {8 + channel}" for channel in range(4)]
    lines += [f"W GPR {number}" for number in range(8)]
    lines += [f"AiM WR_SBK {gpr} {mask} 0 0" for gpr in range(2) for mask in singles]
    lines += ["AiM WR_GB 2 2 15", "AiM WR_BIAS 4 15"]
    for mac in ("AiM MAC_ABK 2 15 0", "AiM MAC_SBK 2 15 0 0"):
        lines += ["W CFR 0 1", mac, "W CFR 0 0", mac]
    lines += ["W CFR 1 1", "AiM EWMUL 2 15 0", "W CFR 1 0", "AiM EWMUL 2 15 0"]
    lines += ["W CFR 2 1", "AiM AF 15", "AiM RD_MAC 8 15", "AiM RD_AF 12 15", "AiM EWADD 4 8 12"]
    lines += ["AiM COPY_BKGB 2 15 0 0", "AiM COPY_GBBK 2 15 0 0"]
    lines += [f"AiM RD_SBK {20 + n} {singles[n // 2]} 0 0" for n in range(8)]
    return lines + [f"AiM WR_ABK {4 + n} {mask} 5" for n, mask in enumerate(singles)]


_MAC = f"MAC_ABK 64 {_ALL}"
_BIAS, _READ, _AF, _READ_AF = (
    f"{name} {_ALL}" for name in ("WR_BIAS 4", "RD_MAC 4", "AF", "RD_AF 4")
)
_TRACES: dict[str, Callable[[], list[str]]] = {
    "all_isr": _every_isr,
    "micro_macab_1024_16banks": lambda: _each_row(f"{_MAC} {{row}}"),
    "micro_ewmul_16banks": lambda: _each_row(f"EWMUL 64 {_ALL} {{row}}"),
    "micro_rdmac_1024_16banks": lambda: _each_row(_READ),
    "micro_wrab_1024_1bank": lambda: _each_row("WR_ABK 4 0x80000000 {row}"),
    "micro_wrbias_1024_16banks": lambda: _each_row(_BIAS),
    "micro_wrbias_mac_af_rdaf_16banks": lambda: _each_row(_BIAS, f"{_MAC} 0", _AF, _READ_AF),
    "micro_wrbias_mac_rdmac_mac_16banks": lambda: _each_row(_BIAS, f"{_MAC} 0", _READ, f"{_MAC} 1"),
    "micro_wrgb_gbbk_bggb_16banks": lambda: _each_row(
        f"WR_GB 64 0 {_ALL}", f"COPY_GBBK 64 {_ALL} 0 {{row}}", f"COPY_BKGB 64 {_ALL} 8 {{row}}"
    ),
}


def trace_lines(trace: str) -> list[str]:
    """The instructions of the test trace of that name.

    Parameters
    ----------
    trace
        Name of the test trace.

    Raises
    ------
    InputError
        For another name.

    References
    ----------
    arkhadem/aim_simulator 0f28a07, its test traces.
    """
    if trace not in _TRACES:
        raise InputError(f"AiM: no trace {trace!r}; known: {', '.join(_TRACES)}")
    return [*_TRACES[trace](), "AiM EOC"]


def rows(references: References) -> Iterator[Row]:
    """Cycles and commands of channel 0 (``aim.counts``) of every trace.

    ``aim.cycles``: traces of PIM instructions. ``aim.plain_cycles``: traces with many plain reads
    and writes. There ours keep their order in a bank; that simulator takes the first that is
    ready, which may be a precharge that closes a row older ones still hit, and it answers a
    blocking instruction only after the data of plain reads before it.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    design = load_stream_pim("aim-simulator").config
    for trace, lines, line in _cases(references):
        isrs = parse_isr_trace(lines, trace, design)
        result = run_stream(design, isr_stream(isrs, design))
        plain = sum(isr.opcode in ("R_MEM", "W_MEM") for isr in isrs) > len(isrs) / 2
        group = "aim.plain_cycles" if plain else "aim.cycles"
        reference = float(line.get("cycles") or line["memory_system_cycles"])
        yield from _compared(group, trace, reference, line["ch0_commands"], result)
    for line in references.table("aim_gemv.csv"):
        outputs, inputs, batch = (int(line[key]) for key in ("outputs", "inputs", "batch"))
        case = f"gemv {outputs}x{inputs} batch {batch} {line['activation']}".strip()
        stream = gemv(design, outputs, inputs, batch, line["activation"] or None)
        result = run_stream(design, stream)
        cycles = float(line["cycles"])
        yield from _compared("aim.cycles", case, cycles, line["ch0_commands"], result)


def _compared(
    group: str, case: str, cycles: float, commands: str, result: StreamResult
) -> Iterator[Row]:
    """Cycles, and counts of channel 0 (``"ACT16=3 MAC16=7"``)."""
    yield Row(group, case, "cycles", cycles, result.cycles)
    expected = dict(pair.split("=") for pair in commands.split())
    ours = result.channel_commands[0]
    for command in sorted({*expected, *(name for name, count in ours.items() if count)}):
        counts = (float(expected.get(command, 0)), float(ours.get(command, 0)))
        yield Row("aim.counts", case, command, *counts)


def _cases(references: References) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Name, instructions and line of the table of each trace."""
    for table in _TABLES:
        for line in references.table(table):
            name = line["trace"]
            yield name, _repeated(line["isrs"]) if "isrs" in line else trace_lines(name), line


def _repeated(isrs: str) -> list[str]:
    """``"W MEM 0 1 2; 3x AiM SYNC"`` as lines, with the end of the trace."""
    found: list[str] = []
    for item in isrs.split("; "):
        times, is_repeated, rest = item.partition("x ")
        repeated = is_repeated and times.isdecimal()
        found += [rest] * int(times) if repeated else [item]
    return [*found, "AiM EOC"]
