"""PIM commands on every memory: legal, within the windows of activations, and no rule left out.

Runs over all presets on the memory's controller and all memories that a design can sit on, with one
and with two row buffers, composite and single commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim, load_stream_pim
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig, PimDesignConfig
from pimsim.config.resources import preset_names
from pimsim.config.rules import Rule
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.layout import INFINITY, P_COMPS, P_OP
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command, compile_rules
from pimsim.hardware.dram.system import MemorySystem, Stream
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape, score_program, value_program

Ints = NDArray[np.int64]
NEWTON = [name for name in preset_names("pim") if load_pim(name).config.controller is None]
STREAM = [name for name in preset_names("pim") if load_pim(name).config.controller is not None]
HEADS, DIM, OPERANDS = 2, 128, (900, 8)


@lru_cache
def memory_of(name: str, refresh: str = "all-bank") -> MemoryConfig:
    settings = ["organization.channels=1", "controller.refresh=" + refresh]
    return device_memory(load_memory(name, settings).config)


@lru_cache
def pim_of(name: str, buffers: int, composite: bool = True) -> PimConfig:
    return load_pim(name, [f"row_buffers={buffers}", f"composite_gemv={composite}"]).config


def carries(name: str) -> bool:
    """Whether Newton's rules can be written in this memory's timings."""
    try:
        compile_rules(memory_of(name), pim_of("newton", 1))
    except InputError:
        return False
    return True


# its interleaved halves cannot be channels of a device
MEMORIES = [m for m in preset_names("memory") if m != "hbm2-onnxim" and carries(m)]


def designs() -> list[tuple[str, int, bool]]:
    """Every preset, with each number of buffers and each kind of command that it has rules for."""
    found = []
    for name in NEWTON:
        for buffers in (1, 2):
            for composite in (True, False):
                try:
                    pim_of(name, buffers, composite)
                except InputError:
                    # a list without COMP, and a quirk of one row buffer
                    no_comp = not composite and name == "neupims-artifact"
                    assert no_comp or (buffers == 2 and name == "newton-artifact")
                    continue
                found.append((name, buffers, composite))
    return found


DESIGNS = designs()


def programs_of(memory: MemoryConfig, pim: PimConfig, contexts: Sequence[int]) -> Ints:
    """Scores and values of a request of each context."""
    shape = AttentionShape.of(HEADS, HEADS, DIM, memory, pim, 2)
    row, found = 1000, []
    for at, context in enumerate(contexts):
        rows = KvRows.from_row(row, shape.kv_sections, context)
        for make in (score_program, value_program):
            found.append(
                make(shape, context, rows, 900, HEADS * at, pim.composite_gemv, wrap=OPERANDS)
            )
        row += rows.count
    return np.concatenate(found)


def run(
    memory: MemoryConfig, pim: PimConfig, contexts: Sequence[int], streams: Sequence[Stream] = (),
) -> tuple[int, list[tuple[int, ...]]]:  # fmt: skip
    """Cycle at which PIM's work, on the first channel, and all streams are done, and every command
    of that channel, a GEMV with its dot products."""
    system = MemorySystem(memory, pim, log_entries=200_000)
    program = programs_of(memory, pim, contexts)
    for stream in streams:
        system.submit(0, [stream])
    others = [program[:0]] * (memory.organization.channels - 1)
    system.submit_pim(0, [program, *others], HEADS * len(contexts))
    while system.active:
        assert system.advance(INFINITY) is not None
    logged = int(system.board["logged"][0])
    assert logged < 200_000
    issued = written_out(program)
    dots = iter(issued[issued[:, P_OP] == int(Command.GEMV), P_COMPS].tolist())
    log = [
        (*entry, next(dots)) if entry[2] == int(Command.GEMV) else tuple(entry)
        for entry in system.board["log"][0, :logged].tolist()
        if entry[1] == 0
    ]
    return system.now, log


streams = st.lists(
    st.builds(
        Stream,
        first_burst=st.integers(0, 4000),
        bursts=st.integers(1, 600),
        write=st.booleans(),
    ),
    max_size=3,
)
contexts = st.lists(st.integers(1, 1200), min_size=1, max_size=2)


@pytest.mark.parametrize(("name", "buffers", "composite"), DESIGNS)
@settings(max_examples=4)
@given(memory=st.sampled_from(MEMORIES), work=contexts, beside=streams)
@example(memory="hbm2-neupims", work=[1024], beside=[])
@example(memory="gddr6", work=[300], beside=[Stream(0, 300)])
@example(memory="hbm3-6400", work=[300], beside=[Stream(0, 300)])
@example(memory="hbm3-6400", work=[874], beside=[Stream(3020, 306, write=True)])
def test_every_command_beside_pim_is_legal(
    name: str, buffers: int, composite: bool, memory: str, work: list[int], beside: list[Stream]
) -> None:
    pim = pim_of(name, buffers, composite)
    _, log = run(memory_of(memory), pim, work, beside)
    # the check is plain Python: the beginning, where streams are, and some commands of PIM alone
    assert check_commands(log[:3000], memory_of(memory), pim) is None


def most_in_a_window(log: Sequence[tuple[int, ...]], memory: MemoryConfig, cycles: int) -> int:
    """Most activations of a rank in so many cycles in a row, counted bank by bank."""
    org, most = memory.organization, 0
    for rank in range(org.ranks):
        times: list[int] = []
        for cycle, _, command, bank, *_ in log:
            if bank // org.banks == rank and command in (Command.ACT, Command.G_ACT):
                times += [cycle] * (org.banks_per_group if command == Command.G_ACT else 1)
        for first in range(len(times)):
            last = first
            while last < len(times) and times[last] < times[first] + cycles:
                last += 1
            most = max(most, last - first)
    return most


RANDOM_ROWS = [Stream(17 * 64 * n % 4000, 3) for n in range(40)]
"""Bursts that open a row each."""


@pytest.mark.parametrize("memory", [m for m in MEMORIES if "hbm2" in m or "ddr4" in m])
@pytest.mark.parametrize("buffers", [1, 2])
def test_no_window_holds_more_activations_than_four(memory: str, buffers: int) -> None:
    config = memory_of(memory)
    _, log = run(config, pim_of("neupims", buffers), [200, 1000], RANDOM_ROWS)
    assert most_in_a_window(log, config, config.timings["tFAW"]) == 4


def test_the_artifact_counts_no_group_in_the_window() -> None:
    config = memory_of("hbm2-neupims-artifact")
    _, log = run(config, pim_of("neupims-artifact", 2), [200, 1000], RANDOM_ROWS)
    assert most_in_a_window(log, config, config.timings["tFAW"]) > 4


def test_streams_that_open_rows_do_not_keep_pim_out() -> None:
    config, pim = memory_of("hbm2-neupims", "none"), pim_of("neupims", 2)
    alone, _ = run(config, pim, [400])
    # every burst opens a row of the first rank, as fast as tRRD allows: longer than PIM's work
    columns = config.organization.columns
    together = MemorySystem(config, pim)
    for burst in range(4000):
        together.submit(0, [Stream(burst % 64 * columns * 2048 + burst * columns, 1)])
    group = together.submit_pim(0, [programs_of(config, pim, [400])], HEADS)
    while group.done_cycle < 0:
        together.advance(INFINITY)
    assert together.active
    assert group.done_cycle < 2 * alone


@pytest.mark.parametrize("name", NEWTON)
@pytest.mark.parametrize("composite", [True, False])
@settings(max_examples=8)
@given(work=contexts)
@example(work=[1024])
def test_one_row_buffer_is_never_faster_than_two(
    name: str, composite: bool, work: list[int]
) -> None:
    if (name, 2, composite) not in DESIGNS:
        pytest.skip("it has no rules for single commands")
    for refresh in ("none", "all-bank"):
        memory = memory_of("hbm2-neupims", refresh)
        (one, _), (two, log) = (run(memory, pim_of(name, n, composite), work) for n in (1, 2))
        # before a refresh the row that GWRITE reads is closed too, in a cycle of its own
        assert one >= two - sum(command == Command.REF for _, _, command, *_ in log)


def without(rules: Sequence[object], first: str, then: str) -> list[object]:
    """The rules, none of which says when ``then`` may follow ``first``."""
    left = []
    for rule in rules:
        values = rule.model_dump()  # type: ignore[attr-defined]
        if first in values["first"] and then in values["then"]:
            others = {**values, "first": [c for c in values["first"] if c != first]}
            rest = {**values, "first": [first], "then": [c for c in values["then"] if c != then]}
            left += [r for r in (others, rest) if r["first"] and r["then"]]
        else:
            left.append(values)
    return left


def sent(pim: PimConfig) -> list[Rule]:
    """Its rules over the commands that go over the bus: with one row buffer PIM_PRE is a PRE."""
    sides = (
        {
            side: list(dict.fromkeys(map(pim.sent_as, getattr(rule, side))))
            for side in ("first", "then")
        }
        for rule in pim.rules
    )
    return [rule.model_copy(update=each) for rule, each in zip(pim.rules, sides, strict=True)]


TIES = [
    ("G_ACT", "{dot}"), ("{dot}", "{closer}"), ("{dot}", "GWRITE"), ("GWRITE", "{dot}"),
    ("{closer}", "G_ACT"), ("G_ACT", "{closer}"), ("{last}", "RD"), ("WR", "{last}"),
    ("GWRITE", "PRE"), ("REF", "G_ACT"), ("ACT", "GWRITE"), ("{dot}", "{dot}"),
    ("COMP", "READRES"), ("READRES", "COMP"), ("READRES", "{closer}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "buffers", "composite"), DESIGNS)
@pytest.mark.parametrize("tie", TIES, ids=lambda tie: "-".join(tie))
def test_a_command_that_no_rule_ties_is_refused(
    name: str, buffers: int, composite: bool, tie: tuple[str, str]
) -> None:
    said = {
        "dot": "GEMV" if composite else "COMP",
        "last": "GEMV" if composite else "READRES",
        "closer": "PIM_PRE" if buffers == 2 else "PRE",
    }
    first, then = (each.format(**said) for each in tie)
    if composite and "READRES" in (first, then):
        pytest.skip("a GEMV reads its result itself")
    values = pim_of(name, buffers, composite).model_dump()
    rules = sent(pim_of(name, buffers, composite))
    values["rules"] = [rule.model_dump() for rule in rules]
    PimDesignConfig.model_validate(values)
    values["rules"] = without(rules, first, then)
    with pytest.raises(ValueError, match=f"when {then} may follow {first}"):
        PimDesignConfig.model_validate(values)


def test_a_precharge_that_does_not_wait_for_all_dot_products_is_the_artifacts() -> None:
    values = pim_of("neupims-artifact", 2).model_dump()
    values["timed_comps"] = True
    with pytest.raises(ValueError, match="n dot products"):
        PimDesignConfig.model_validate(values)


def stream_ties() -> list[tuple[str, str, str]]:
    """Designs with two commands of which the second needs the first on its bank."""
    found = []
    for name in STREAM:
        for command, own in load_stream_pim(name).config.commands.items():
            if own.activate and own.effect != "close":
                assert own.precharge
                found += [(name, own.activate, command), (name, command, own.precharge)]
    assert {name for name, _, _ in found} == set(STREAM)
    return found


def tied_apart(design: PimDesignConfig, first: str, then: str, **rule: object) -> dict[str, object]:
    """The design's values without a rule for the two, its memory's own among them, but with
    ``rule`` where one is given."""
    values = design.model_dump()
    values["rules"] = without(design.rules, first, then)
    if rule:
        values["rules"].append({"first": [first], "then": [then], "delay": "5", **rule})
    values["memory"]["rules"] = without(design.memory.rules, first, then)
    return values


@pytest.mark.parametrize(("name", "first", "then"), stream_ties())
def test_a_stream_design_with_an_untied_command_is_refused(
    name: str, first: str, then: str
) -> None:
    design = load_stream_pim(name).config
    # of two plain commands, the memory itself refuses to be without the rule
    said = f"when {then} may follow {first}|rules: none from {first} to {then} at"
    with pytest.raises(ValueError, match=said):
        PimDesignConfig.model_validate(tied_apart(design, first, then))


@pytest.mark.parametrize(("name", "first", "then"), stream_ties())
def test_a_memory_s_rule_ties_plain_commands_of_a_stream(name: str, first: str, then: str) -> None:
    design = load_stream_pim(name).config
    values = design.model_dump()
    values["rules"] = without(design.rules, first, then)
    if any(first in rule.first and then in rule.then for rule in design.memory.rules):
        PimDesignConfig.model_validate(values)
        return
    with pytest.raises(ValueError, match=f"when {then} may follow {first}"):
        PimDesignConfig.model_validate(values)


@pytest.mark.parametrize(
    "rule",
    [
        {"level": "other_ranks"},
        {"level": "bank", "window": 4},
        {"level": "bank", "other_place": ["pseudo_channel", "rank", "bank_group", "bank"]},
    ],
    ids=lambda rule: "-".join(map(str, rule)),
)
@pytest.mark.parametrize(("first", "then"), [("ACTPB", "MACPB"), ("MACPB", "PREPB")])
def test_a_rule_of_another_place_or_of_earlier_commands_ties_nothing(
    first: str, then: str, rule: dict[str, object]
) -> None:
    design = load_stream_pim("attacc-bank").config
    PimDesignConfig.model_validate(tied_apart(design, first, then, level="channel"))
    with pytest.raises(ValueError, match=f"when {then} may follow {first}"):
        PimDesignConfig.model_validate(tied_apart(design, first, then, **rule))
