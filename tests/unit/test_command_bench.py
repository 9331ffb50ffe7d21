"""The three words by hand: delays of HBM2 at each level, and what a bench refuses."""

from __future__ import annotations

import pytest
from tests.command_bench import Bench, bench_of_design, bench_of_memory, place_of

from pimsim.config.loader import load_memory, load_pim, load_stream_pim

HBM2 = load_memory("hbm2").config
T = HBM2.timings
GROUP = HBM2.organization.banks_per_group


@pytest.fixture
def bench() -> Bench:
    return bench_of_memory(HBM2)


def test_a_row_is_open_when_its_delay_is_over(bench: Bench) -> None:
    assert bench.issue("ACT") == 0
    assert bench.earliest("RD") == T["tRCDRD"] and bench.earliest("PRE") == T["tRAS"]
    assert not bench.probe("RD", T["tRCDRD"] - 1) and bench.probe("RD", T["tRCDRD"])
    assert bench.earliest("RD", 1) == 0  # of another bank
    assert bench.issue("RD") == T["tRCDRD"]


def test_a_group_and_a_window_have_delays_of_their_own(bench: Bench) -> None:
    bench.issue("ACT", 100)
    assert bench.earliest("ACT", 1) == 100 + T["tRRD_L"]
    assert bench.earliest("ACT", GROUP) == 100 + T["tRRD_S"]
    for group in (1, 2, 3):
        bench.issue("ACT", bank=group * GROUP)
    # four in a window
    assert bench.earliest("ACT", 2 * GROUP + 1) == max(100 + T["tFAW"], bench.now + T["tRRD_S"])


def test_a_composite_command_of_pim_takes_its_dot_products() -> None:
    pim = load_pim("neupims").config
    later = []
    for dots in (8, 20):
        bench = bench_of_memory(pim.memory, pim)
        bench.issue("GEMV", 0, dot_products=dots)
        later.append(bench.earliest("GEMV"))
    assert later[1] > later[0] > 0


def test_a_bench_refuses_what_the_rules_do(bench: Bench) -> None:
    bench.issue("ACT", 50)
    with pytest.raises(AssertionError, match=f"RD at 51, before {50 + T['tRCDRD']}"):
        bench.issue("RD", 51)
    with pytest.raises(AssertionError, match="RD at 49, before 50"):
        bench.issue("RD", 49, GROUP)  # time would run back
    with pytest.raises(AssertionError, match="no command RDX"):
        bench.probe("RDX", 0)
    with pytest.raises(AssertionError, match=f"no bank {bench.banks}"):
        bench.earliest("ACT", bench.banks)


def test_banks_of_a_design_are_counted_over_its_levels() -> None:
    counts = (2, 1, 4, 4)
    assert [place_of(bank, counts) for bank in (0, 5, 31)] == [
        (0, 0, 0, 0), (0, 0, 1, 1), (1, 0, 3, 3),
    ]  # fmt: skip
    design = load_stream_pim("aim").config
    bench = bench_of_design(design)
    assert bench.banks == design.organization.channel_banks
    assert set(bench.commands) == set(design.all_commands)


@pytest.mark.parametrize("level", ["rank", "channel"])
def test_a_window_counts_activations_at_its_level(level: str) -> None:
    """Two ranks: three activations of the first, one of the second, then both ask again."""
    rules = [
        rule.model_copy(update={"level": level}) if rule.window > 1 else rule
        for rule in HBM2.rules
    ]  # fmt: skip
    assert rules != HBM2.rules or level == "rank"
    organization = HBM2.organization.model_copy(update={"ranks": 2})
    memory = HBM2.model_copy(update={"organization": organization, "rules": rules})
    bench = bench_of_memory(memory)
    banks = organization.banks
    for at, bank in enumerate((0, GROUP, 2 * GROUP, banks)):
        bench.issue("ACT", 100 + at * T["tRRD_S"], bank=bank)
    ends = [bench.earliest("ACT", 3 * GROUP), bench.earliest("ACT", banks + GROUP)]
    full = 100 + T["tFAW"]
    free = bench.now + T["tRRD_S"]
    assert full > free
    # of a rank the first has room for a fourth, the second for three more
    assert ends == [full, full] if level == "channel" else max(ends) <= free
