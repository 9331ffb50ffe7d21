"""Every rule of every memory and PIM preset: blocked one cycle before its delay, ready at it.

The pairs are made from the rule itself and the delays are evaluated here, by Python, so a new
preset gets the law without a new test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.command_bench import bench_of_memory

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.config.memory import CommandBusConfig, MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.config.resources import preset_names
from pimsim.config.rules import Rule
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.legality import Violation, check_commands
from pimsim.hardware.dram.rules import Command, command_numbers

Entry = tuple[int, ...]
Timings = dict[str, int]


def one_clock_a_command(memory: MemoryConfig) -> MemoryConfig:
    """The memory as a device runs it, its rules' delays from start to start."""
    return device_memory(memory).model_copy(update={"command_bus": CommandBusConfig()})


MEMORIES = {
    name: one_clock_a_command(load_memory(name).config)
    for name in preset_names("memory")
    # its interleaved halves cannot be channels of a device; test_channel_queues.py has its laws
    if name != "hbm2-onnxim"
}  # fmt: skip
PIMS = {
    name: load_pim(name).config
    for name in preset_names("pim")
    if load_pim(name).config.controller is None  # the others have tests of their own
}
PIM_MEMORY = MEMORIES["hbm2-neupims"]
ROW, OTHER_ROW = 3, 4
START, STEP = 10**6, 10**4
"""Preparations are ``STEP`` apart and long over at ``START``: only the pair itself is close."""

ACT, PRE, RD, WR, REF = Command.ACT, Command.PRE, Command.RD, Command.WR, Command.REF
PREA, RDA, WRA = Command.PREA, Command.RDA, Command.WRA
REFPB = Command.REFpb
G_ACT, PIM_PRE, GWRITE = Command.G_ACT, Command.PIM_PRE, Command.GWRITE
COMP, READRES, GEMV = Command.COMP, Command.READRES, Command.GEMV
PIM_BUFFER = {G_ACT, PIM_PRE, COMP, READRES, GEMV}
CHANGING = (ACT, PRE, PREA, G_ACT, PIM_PRE, RDA, WRA)
"""Commands that open or close rows."""
LONG = 40
"""Dot products of a GEMV, more than any adder tree is deep."""


def evaluated(delay: str, timings: Timings, n: int = 0) -> int:
    """The delay as Python reads the formula: independent of the evaluator under test."""
    return int(eval(delay, {"__builtins__": {}, "max": max, "min": min, "n": n}, timings))


def two_ranks(memory: MemoryConfig) -> MemoryConfig:
    """The same with at least two ranks, two bank groups of two, so that each level has a pair."""
    org = memory.organization
    least = {"ranks": 2, "bank_groups": 2, "banks_per_group": 2}
    counts = {key: max(getattr(org, key), count) for key, count in least.items()}
    return memory.model_copy(update={"organization": org.model_copy(update=counts)})


def bank_pair(level: str, memory: MemoryConfig) -> tuple[int, int]:
    """Two banks that share ``level`` and, where there is a choice, nothing below it."""
    org = memory.organization
    return 0, {
        "row_buffer": 0,
        "bank": 0,
        "bank_group": 1,
        "rank": org.banks_per_group,
        "other_ranks": org.banks,
        "channel": org.banks,
    }[level]


def spread(index: int, memory: MemoryConfig) -> int:
    """Another bank of the first rank for each index, bank groups in turn."""
    place, group = divmod(index, memory.organization.bank_groups)
    return group * memory.organization.banks_per_group + place


class Trace:
    """Commands with what each needs before it: rows opened and closed in good time."""

    def __init__(self, memory: MemoryConfig, buffers: int) -> None:
        self.org, self.buffers = memory.organization, buffers
        self.entries: list[Entry] = []
        self.clock = 0
        self.open: dict[tuple[int, int], int] = {}

    def put(self, cycle: int, command: Command, bank: int, row: int = -1, n: int = 0) -> None:
        self.entries.append((cycle, 0, command, bank, row, n))
        buffer = self.buffer_of(command)
        for touched in self.touched(command, bank):
            if command in (ACT, G_ACT):
                self.open[buffer, touched] = row
            elif command in (PRE, PREA, PIM_PRE, RDA, WRA):
                self.open.pop((buffer, touched), None)

    def buffer_of(self, command: Command) -> int:
        return int(self.buffers == 2 and command in PIM_BUFFER)

    def touched(self, command: Command, bank: int) -> range:
        org = self.org
        size = {G_ACT: org.banks_per_group, REF: org.banks, PREA: org.banks}.get(command, 1)
        if command in (COMP, READRES, GEMV):
            return range(org.ranks * org.banks)
        return range(bank - bank % size, bank - bank % size + size)

    def prepare(self, command: Command, bank: int, step: int, skip: range) -> None:
        """Bring the rows that ``command`` needs, ``step`` cycles apart, but not in ``skip``."""
        buffer = self.buffer_of(command)
        for touched in self.touched(command, bank):
            if touched in skip:
                continue
            is_open = (buffer, touched) in self.open
            if command == REFPB and is_open:
                self.close_bank(touched, buffer, step)
            needs = (RD, WR, RDA, WRA, GWRITE, PRE, PIM_PRE, COMP, GEMV)
            if command in needs and not is_open:
                self.open_bank(touched, buffer, step)
            elif command in (ACT, G_ACT) and is_open:
                self.close_bank(touched, buffer, step)
            elif command == REF:
                for held, other in [*self.open]:
                    if other == touched:
                        self.close_bank(touched, held, step)

    def open_bank(self, bank: int, buffer: int, step: int) -> None:
        self.clock += step
        self.put(self.clock, G_ACT if buffer else ACT, bank, ROW)

    def close_bank(self, bank: int, buffer: int, step: int) -> None:
        self.clock += step
        self.put(self.clock, PIM_PRE if buffer else PRE, bank)


def pair_trace(
    memory: MemoryConfig, buffers: int, rule: Rule, first: Command, then: Command, gap: int
) -> list[Entry]:
    """``first`` (``window`` times), then ``then`` ``gap`` cycles after the first of them."""
    one, other = bank_pair(rule.level, memory)
    if rule.window > 1:
        other = spread(rule.window, memory)
    trace = Trace(memory, buffers)
    trace.prepare(first, one, STEP, range(0))
    changed = trace.touched(first, one) if first in CHANGING else range(0)
    trace.prepare(then, other, STEP, changed)
    trace.put(START, first, one, ROW, LONG)
    for again in range(1, rule.window):
        trace.put(START + again, first, spread(again, memory), ROW, LONG)
    trace.clock = START + rule.window - 1
    trace.prepare(then, other, 1, range(0))
    row = ROW if then in (RD, WR, GWRITE, COMP, GEMV) else OTHER_ROW
    trace.put(START + gap, then, other, row, LONG)
    return trace.entries


def closed_by(pim: PimConfig, command: str) -> str:
    """With one row buffer PIM's row is closed by a PRE."""
    return "PRE" if pim.row_buffers == 1 and command == "PIM_PRE" else command


def law_cases() -> Iterator[object]:
    """Every rule of every preset, one case for each pair of its commands."""
    for name, memory in MEMORIES.items():
        for index, rule in enumerate(memory.rules):
            for first in rule.first:
                for then in rule.then:
                    label = f"{name}-{index}-{first}-{then}-{rule.level}"
                    yield pytest.param(memory, None, rule, first, then, id=label)
    for name, pim in PIMS.items():
        for index, rule in enumerate(pim.rules):
            for first in rule.first:
                for then in rule.then:
                    one, two = (closed_by(pim, command) for command in (first, then))
                    apart = (Command[one] in PIM_BUFFER) != (Command[two] in PIM_BUFFER)
                    if rule.level == "row_buffer" and pim.row_buffers == 2 and apart:
                        continue
                    label = f"{name}-{index}-{first}-{then}-{rule.level}"
                    yield pytest.param(PIM_MEMORY, pim, rule, one, two, id=label)


def alone(
    memory: MemoryConfig, pim: PimConfig | None, rule: Rule
) -> tuple[MemoryConfig, PimConfig | None, str]:
    """The memory and design with no rule but ``rule``, and the name that it then has."""
    if pim is None:
        return memory.model_copy(update={"rules": [rule]}), None, "memory.rules[0]"
    lone = pim.model_copy(update={"rules": [rule]})
    return memory.model_copy(update={"rules": []}), lone, "pim.rules[0]"


def case_of(
    memory: MemoryConfig, pim: PimConfig | None, rule: Rule
) -> tuple[MemoryConfig, int, int]:
    """The memory with two ranks and enough banks, the rule's delay, the row buffers of a bank."""
    memory = two_ranks(memory)
    org = memory.organization
    if rule.window >= org.banks:  # a bank for each of its commands
        banks = 2 * rule.window // org.bank_groups
        wide = org.model_copy(update={"banks_per_group": banks})
        memory = memory.model_copy(update={"organization": wide})
    timings = memory.timings | (pim.timings if pim is not None else {})
    return memory, evaluated(rule.delay, timings, LONG), 1 if pim is None else pim.row_buffers


@pytest.mark.parametrize(("memory", "pim", "rule", "first", "then"), list(law_cases()))
def test_rule_blocks_until_its_delay(
    memory: MemoryConfig, pim: PimConfig | None, rule: Rule, first: str, then: str
) -> None:
    memory, delay, buffers = case_of(memory, pim, rule)
    lone_memory, lone_pim, name = alone(memory, pim, rule)

    def checked(gap: int) -> Violation | None:
        trace = pair_trace(memory, buffers, rule, Command[first], Command[then], gap)
        return check_commands(trace, lone_memory, lone_pim)

    assert checked(max(delay, 1)) is None
    if delay > 1:
        found = checked(delay - 1)
        assert found is not None
        assert (found.kind, found.rule, found.required) == ("rule", name, START + delay)
        assert (found.level, found.delay) == (rule.level, rule.delay)
        assert found.earlier is not None
        assert (found.earlier.command.name, found.earlier.cycle) == (first, START)
        assert (found.command.command.name, found.command.cycle) == (then, START + delay - 1)


@pytest.mark.parametrize(("memory", "pim", "rule", "first", "then"), list(law_cases()))
def test_rule_binds_beside_all_others(
    memory: MemoryConfig, pim: PimConfig | None, rule: Rule, first: str, then: str
) -> None:
    memory, delay, buffers = case_of(memory, pim, rule)
    if delay > 1:
        trace = pair_trace(memory, buffers, rule, Command[first], Command[then], delay - 1)
        found = check_commands(trace, memory, pim)
        assert found is not None
        assert found.required is None or found.required > found.command.cycle


SAME_BANK, SAME_GROUP, SAME_RANK = "row_buffer", "bank_group", "rank"
LAWS: dict[str, tuple[str, Command, Command, Callable[[Timings], int]]] = {
    "ACT to RD": (SAME_BANK, ACT, RD, lambda t: t["tRCDRD"]),
    "ACT to WR": (SAME_BANK, ACT, WR, lambda t: t["tRCDWR"]),
    "ACT to PRE": (SAME_BANK, ACT, PRE, lambda t: t["tRAS"]),
    "PRE to ACT": (SAME_BANK, PRE, ACT, lambda t: t["tRP"]),
    "RD to PRE": (SAME_BANK, RD, PRE, lambda t: t["tRTP"]),
    "WR to PRE": (SAME_BANK, WR, PRE, lambda t: t["CWL"] + t["nBL"] + t["tWR"]),
    "RD to RD, one group": (SAME_GROUP, RD, RD, lambda t: max(t["nBL"], t["tCCD_L"])),
    "WR to WR, one group": (
        SAME_GROUP, WR, WR, lambda t: max(t["nBL"], t.get("tCCD_L_WR", t["tCCD_L"]))),
    "WR to RD, one group": (
        SAME_GROUP, WR, RD, lambda t: t["CWL"] + t.get("nBL_max", t["nBL"]) + t["tWTR_L"]),
    "ACT to ACT, one group": (SAME_GROUP, ACT, ACT, lambda t: t["tRRD_L"]),
    "RD to RD, other group": (SAME_RANK, RD, RD, lambda t: max(t["nBL"], t["tCCD_S"])),
    "WR to RD, other group": (SAME_RANK, WR, RD, lambda t: t["CWL"] + t["nBL"] + t["tWTR_S"]),
    "RD to WR": (
        SAME_RANK, RD, WR,
        lambda t: t.get(
            "tRTW", t["CL"] + t["nBL"] - t["CWL"] + t.get("tRTW_gap", t.get("tRTRS", 0)))),
    "ACT to ACT, other group": (SAME_RANK, ACT, ACT, lambda t: t["tRRD_S"]),
    "REF to ACT": (SAME_RANK, REF, ACT, lambda t: t["tRFC"]),
    "REFpb to ACT": (SAME_BANK, REFPB, ACT, lambda t: t["tRFCpb"]),
    "REFpb to ACT, other bank": (SAME_RANK, REFPB, ACT, lambda t: t.get("tRREFD", t["tRRD_S"])),
    "RD to RD, other rank": (
        "other_ranks", RD, RD, lambda t: t.get("tCCD_R", t["nBL"] + t["tRTRS"])),
}  # fmt: skip


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES.keys())
@pytest.mark.parametrize("law", LAWS)
def test_jedec_delay(law: str, memory: MemoryConfig) -> None:
    level, first, then, formula = LAWS[law]
    if level == "other_ranks" and all(rule.level != level for rule in memory.rules):
        pytest.skip(f"{memory.name} has one rank, and no rule for others")
    if REFPB in (first, then) and "tRFCpb" not in memory.timings:
        pytest.skip(f"{memory.standard} has no per-bank refresh")
    memory = two_ranks(memory)
    rule = Rule(level=level, first=[first.name], then=[then.name], delay="0")
    delay = formula(memory.timings)
    blocked = check_commands(pair_trace(memory, 1, rule, first, then, delay - 1), memory)
    assert blocked is not None and blocked.required == START + delay
    assert check_commands(pair_trace(memory, 1, rule, first, then, delay), memory) is None
    # the kernel, which has the rules as tables, says the same of the same two commands
    names = {number: name for name, number in command_numbers(memory, None).items()}
    bench, (one, other) = bench_of_memory(memory), bank_pair(level, memory)
    bench.issue(names[first], START, one)
    assert bench.earliest(names[then], other) == START + delay
    assert not bench.probe(names[then], START + delay - 1, other)


WINDOWED = {
    name: memory
    for name, memory in MEMORIES.items()
    if memory.timings.get("tFAW", 0) > 4 * memory.timings.get("tRRD_L", 0)
}
"""Where four activations as close as may be leave the window of tFAW open."""


@pytest.mark.parametrize("memory", WINDOWED.values(), ids=WINDOWED.keys())
def test_fifth_activation_waits_for_the_window(memory: MemoryConfig) -> None:
    step, window = memory.timings["tRRD_L"], memory.timings["tFAW"]
    banks = range(4)

    def checked(last: int) -> Violation | None:
        trace = [(bank * step, 0, ACT, bank, ROW) for bank in banks]
        return check_commands([*trace, (last, 0, ACT, len(banks), ROW)], memory)

    found = checked(window - 1)
    assert found is not None and found.delay == "tFAW" and found.required == window
    assert "window of 4" in str(found)
    assert checked(window) is None
    bench = bench_of_memory(memory)
    for bank in banks:
        bench.issue("ACT", bank * step, bank)
    assert bench.earliest("ACT", len(banks)) == window


def test_channels_do_not_bind_each_other() -> None:
    memory = MEMORIES["hbm2"]
    trace = [(0, channel, ACT, 0, ROW) for channel in range(memory.organization.channels)]
    assert check_commands(trace, memory) is None


HBM2 = MEMORIES["hbm2"]
FREE = HBM2.model_copy(update={"rules": []})
NEUPIMS = PIMS["neupims"].model_copy(update={"rules": []})
NEWTON = PIMS["newton"].model_copy(update={"rules": []})
GROUPS = range(0, FREE.organization.banks, FREE.organization.banks_per_group)
ALL_OPEN = [(i, 0, G_ACT, bank, ROW) for i, bank in enumerate(GROUPS)]
LAST = ALL_OPEN[-1][0]

ILLEGAL_STATES = {
    "RD of a closed bank": ([(0, 0, RD, 0, ROW)], None, "no open row"),
    "WR of another row": ([(0, 0, ACT, 0, ROW), (1, 0, WR, 0, OTHER_ROW)], None, f"row {ROW} open"),
    "ACT of an open bank": ([(0, 0, ACT, 0, ROW), (1, 0, ACT, 0, ROW)], None, f"row {ROW} open"),
    "REFpb of an open bank": ([(0, 0, ACT, 5, ROW), (1, 0, REFPB, 5, -1)], None, "row 3 open"),
    "REF with an open bank": ([(0, 0, ACT, 5, ROW), (1, 0, REF, 0, -1)], None, "bank 5"),
    "REF with a PIM row open": ([ALL_OPEN[0], (1, 0, REF, 0, -1)], NEUPIMS, "bank 0"),
    "G_ACT of an open group": ([*ALL_OPEN, (LAST + 1, 0, G_ACT, 0, ROW)], NEUPIMS, "row 3"),
    "G_ACT over a normal row, one buffer": (
        [(0, 0, ACT, 2, ROW), (1, 0, G_ACT, 0, ROW)], NEWTON, "bank 2"),
    "GEMV with a group closed": ([*ALL_OPEN[:-1], (LAST, 0, GEMV, 0, ROW, 1)], NEUPIMS, "bank 12"),
    "COMP on another row": ([*ALL_OPEN, (LAST + 1, 0, COMP, 0, OTHER_ROW)], NEWTON, "bank 0"),
    "RD of a PIM row, two buffers": (
        [*ALL_OPEN, (LAST + 1, 0, RD, 0, ROW)], NEUPIMS, "no open row"),
    "GWRITE of a closed bank": ([(0, 0, GWRITE, 0, ROW)], NEUPIMS, "no open row"),
    "RD after PRE": (
        [(0, 0, ACT, 0, ROW), (1, 0, PRE, 0, -1), (2, 0, RD, 0, ROW)], None, "no open row"),
}  # fmt: skip


@pytest.mark.parametrize("case", ILLEGAL_STATES)
def test_illegal_state(case: str) -> None:
    trace, pim, said = ILLEGAL_STATES[case]
    found = check_commands(trace, FREE, pim)
    assert found is not None
    assert found.kind == "state"
    assert found.command.cycle == trace[-1][0]
    assert said in str(found)
    assert check_commands(trace[:-1], FREE, pim) is None


LEGAL_STATES = {
    "two rows in two buffers": ([*ALL_OPEN, (LAST + 1, 0, ACT, 0, OTHER_ROW)], NEUPIMS),
    "PIM_PRE leaves the normal row": (
        [(0, 0, ACT, 0, ROW), (1, 0, PIM_PRE, 0, -1), (2, 0, RD, 0, ROW)], NEUPIMS),
    "a G_ACT row is read, one buffer": ([*ALL_OPEN, (LAST + 1, 0, RD, 0, ROW)], NEWTON),
    "REF of a rank whose banks are closed again": (
        [(0, 0, ACT, 0, ROW), (1, 0, PRE, 0, -1), (2, 0, REF, 0, -1)], None),
    "REF beside an open bank of the other rank": (
        [(0, 0, ACT, PIM_MEMORY.organization.banks, ROW), (1, 0, REF, 0, -1)], None),
}  # fmt: skip


@pytest.mark.parametrize("case", LEGAL_STATES)
def test_legal_state(case: str) -> None:
    trace, pim = LEGAL_STATES[case]
    assert check_commands(trace, two_ranks(FREE) if "rank" in case else FREE, pim) is None


def with_bus(commands: int) -> MemoryConfig:
    control = FREE.controller.model_copy(update={"commands_per_cycle": commands})
    return FREE.model_copy(update={"controller": control})


@pytest.mark.parametrize(
    ("second", "per_cycle", "legal"),
    [(RD, 1, False), (RD, 2, True), (ACT, 1, False), (ACT, 2, False)],
)
def test_commands_of_a_cycle(second: Command, per_cycle: int, legal: bool) -> None:
    trace = [(0, 0, ACT, 0, ROW), (9, 0, ACT, 1, ROW), (9, 0, second, second == ACT and 2, ROW)]
    found = check_commands(trace, with_bus(per_cycle))
    assert (found is None) == legal
    assert found is None or (found.kind, found.required) == ("bus", 10)


def test_third_command_of_a_cycle() -> None:
    trace = [(0, 0, ACT, 0, ROW), (9, 0, ACT, 1, ROW), (9, 0, RD, 0, ROW), (9, 0, ACT, 2, ROW)]
    found = check_commands(trace, with_bus(2))
    assert found is not None and found.kind == "bus"


def test_gemv_bars_for_all_its_dot_products() -> None:
    """Fewer dot products than the adder tree is deep take as long as it is deep."""
    pim = PIMS["neupims"].model_copy(update={"comp_pipeline": 6})
    slot = max(PIM_MEMORY.timings["nBL"], PIM_MEMORY.timings["tCCD_S"])
    org, gap = PIM_MEMORY.organization, 10**3
    groups = range(0, org.ranks * org.banks, org.banks_per_group)
    opened = [(gap * i, 0, G_ACT, bank, ROW) for i, bank in enumerate(groups)]
    for n in (1, 6, 30):
        delay = slot * (max(n, pim.comp_pipeline) + 1)
        pair = [(10**5, 0, GEMV, 0, ROW, n), (10**5 + delay - 1, 0, GEMV, 0, ROW, n)]
        found = check_commands([*opened, *pair], PIM_MEMORY, pim)
        assert found is not None and found.required == 10**5 + delay
        pair[1] = (10**5 + delay, 0, GEMV, 0, ROW, n)
        assert check_commands([*opened, *pair], PIM_MEMORY, pim) is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ((0, 0, 99, 0, 0), "no command 99"),
        ((0, 8, ACT, 0, 0), "no channel 8"),
        ((0, 0, ACT, 16, 0), "bank 16"),
        ((0, 0, ACT, 0, 1 << 15), "no row 32768"),
        ((0, 0, ACT), "3 fields"),
    ],
)
def test_what_is_no_trace(entry: Entry, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_commands([entry], HBM2)


def test_time_does_not_run_back() -> None:
    with pytest.raises(InputError, match="comes after ACT at 9"):
        check_commands([(9, 0, ACT, 0, ROW), (8, 0, ACT, 1, ROW)], FREE)


AUTO = "timings.tRAS=40"
"""Of hbm2: tRCD 14, tRTP 5, tRP 14, nBL 2; a row that is open for less than tRAS closes later."""


@pytest.mark.parametrize(
    ("then", "after_act"),
    [
        # a standard without rules of its own: RDA closes when a PRE could, tRAS after ACT; then tRP
        (Command.ACT, 40 + 14),
        (Command.REF, 40 + 14),
    ],
)
def test_a_row_that_closes_itself_stays_open_for_tras(then: Command, after_act: int) -> None:
    memory = load_memory("hbm2", [AUTO]).config
    own = [rule for rule in memory.rules if not {"RDA", "WRA"} & set(rule.first)]
    memory = memory.model_copy(update={"rules": own})
    start = [(100, 0, ACT, 0, 7), (114, 0, RDA, 0, 7)]
    for early in (0, 1):
        found = check_commands([*start, (100 + after_act - early, 0, then, 0, 8)], memory)
        assert (found is None) == (early == 0)


def test_rules_of_its_own_take_the_place_of_a_silent_precharge() -> None:
    """DRAMsim3's: REF tRTP + tRP after RDA, ACT nBL more, whatever is left of tRAS."""
    memory = load_memory("hbm2", [AUTO]).config
    start = [(100, 0, ACT, 0, 7), (114, 0, RDA, 0, 7)]
    assert check_commands([*start, (114 + 5 + 14, 0, REF, 0, -1)], memory) is None
    assert check_commands([*start, (114 + 5 + 14 - 1, 0, REF, 0, -1)], memory) is not None


def test_after_rda_the_bank_is_closed() -> None:
    memory = load_memory("hbm2").config
    start = [(100, 0, ACT, 0, 7), (114, 0, RDA, 0, 7)]
    for command in (RD, RDA, WRA):
        found = check_commands([*start, (300, 0, command, 0, 7)], memory)
        assert found is not None and found.kind == "state"
    found = check_commands([(100, 0, ACT, 0, 7), (113, 0, RDA, 0, 7)], memory)
    assert found is not None and found.required == 114  # bound as RD is
