"""Limits of power that the input sets, and laws of power that a result must keep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pimsim.config.errors import InputError
from pimsim.config.run import RunConfig
from pimsim.hardware.energy.limits import PowerLimit, check_limits
from pimsim.hardware.energy.peak import device_peak_w
from pimsim.result.accounts import power_facts
from pimsim.result.invariants import PowerFacts, RunFacts, violations
from pimsim.simulate import observe, resolve, simulate

SMALL = [
    "workload.batch=8", "workload.layers=1", "parallel.tp=8", "memory.organization.channels=4",
    "workload.beyond_banks=true",
]  # fmt: skip


@pytest.mark.parametrize("key", ["pim.power_cap_w", "memory.power_ceiling_pj_per_bit", "npu.tdp_w"])
def test_a_run_above_a_limit_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(InputError, match=rf"^{key}: .* draws .* W; allowed: "):
        simulate(resolve("neupims", [*SMALL, f"{key}=0.001"]))


def test_what_is_exactly_allowed_passes() -> None:
    check_limits([PowerLimit("k", "it", 30.0, 30.0)])
    with pytest.raises(InputError, match=r"^k: it draws 30.01 W; allowed: 30 W$"):
        check_limits([PowerLimit("k", "it", 30.01, 30.0)])


def test_a_stack_has_so_many_channels() -> None:
    """Four channels in one stack draw what four stacks of one draw together, at most."""
    found = {}
    for each in (1, 4):
        options = [*SMALL, f"memory.organization.channels_per_stack={each}"]
        outcome, _ = observe(resolve("neupims", options))
        found[each] = next(
            limit.found_w for limit in power_facts(outcome).limits if limit.key == "pim.power_cap_w"
        )
    assert 0 < found[1] < found[4] <= 4 * found[1]


def test_each_law_of_power_is_seen_when_it_breaks() -> None:
    outcome, result = observe(resolve("neupims", SMALL))
    power = power_facts(outcome)
    assert power.standby_least_j <= power.standby_j <= power.standby_most_j
    good = RunFacts(power=power)
    assert not list(violations(result, good))
    below = replace(power, standby_j=power.standby_least_j / 2)
    above = replace(power, standby_j=power.standby_most_j * 2)
    for facts in (RunFacts(power=below), RunFacts(power=above)):
        assert any("DRAM stands by" in each for each in violations(result, facts))
    short = RunFacts(sram_needed_bytes=100, sram_bytes=99)
    assert any("scratchpads pass 99" in each for each in violations(result, short))
    assert not list(violations(result, RunFacts(sram_needed_bytes=100, sram_bytes=100)))
    more = {**result.power_w, "dram": 2 * result.power_w["dram"]}
    assert any("power of dram" in e for e in violations(replace(result, power_w=more), good))
    parts = {**result.static_w, "arrays": result.static_w["arrays"] + 1}
    assert any("static power has" in e for e in violations(replace(result, static_w=parts), good))
    assert PowerFacts().limits == ()


def test_power_is_energy_over_time_and_a_token_takes_its_parts() -> None:
    _, result = observe(resolve("neupims", SMALL))
    for part, watt in result.power_w.items():
        assert watt == pytest.approx(getattr(result.energy_j, part) / result.time_s)
    assert result.static_w["total"] < result.idle_w < result.power_w["total"]
    assert result.token_j["total"] == pytest.approx(1 / result.tokens_per_j)
    parts = {part: joule for part, joule in result.token_j.items() if part != "total"}
    assert result.token_j["total"] == pytest.approx(sum(parts.values()))
    assert set(result.power_sources) >= {"dram", "pim", "npu", "sram", "static arrays"}


def peaks_of(config: RunConfig, uses_pim: bool = True) -> dict[str, float]:
    pim = config.pim if uses_pim else None
    return device_peak_w(config.npu, config.memory, pim, config.link, config.energy, 4, 2)


def test_a_device_draws_at_most_all_of_its_parts_at_once() -> None:
    """By hand: 8 arrays of 128 x 128 and 1,024 lanes at 1 GHz; three links of 300 GB/s."""
    config = resolve("neupims", []).config
    energy, org = config.energy, config.memory.organization
    watts = peaks_of(config)
    assert watts["npu"] == pytest.approx(
        (8 * 128 * 128 * energy.npu_mac_pj + 1024 * energy.vector_op_pj) * 1e-3
    )
    assert watts["link"] == pytest.approx(3 * 300 * 8e-3 * energy.link_pj_per_bit)
    # every bank multiplies 16 elements every other ns, or every tCCD_S
    slot_ns = max(config.memory.timings["nBL"], config.memory.timings["tCCD_S"])
    macs = org.channels * org.channel_banks * 16 / (slot_ns * config.memory.tCK / 1000)
    assert watts["pim"] > macs * energy.pim_mac_pj * 1e-3
    alone = peaks_of(config, uses_pim=False)
    assert alone["pim"] == 0 and alone["dram"] < watts["dram"]
    assert {**alone, "pim": 0, "dram": 0} == {**watts, "pim": 0, "dram": 0}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("energy.npu_mac_pj=3", "npu"), ("energy.vector_op_pj=30", "npu"),
        ("npu.vector.lanes=512", "npu"), ("npu.vector.lanes=512", "sram"),
        ("npu.systolic.rows=256", "sram"), ("energy.sram_pj_per_bit=9", "sram"),
        ("energy.pim_mac_pj=3", "pim"), ("energy.pim_buffer_pj_per_bit=3", "pim"),
        ("energy.pim_array_factor=1", "pim"), ("energy.dram_io_pj_per_bit=3", "pim"),
        ("energy.dram_io_pj_per_bit=3", "dram"), ("link.bandwidth_gb_per_s=900", "link"),
        ("energy.link_pj_per_bit=9", "link"),
    ],
)  # fmt: skip
def test_more_of_a_part_may_draw_more(override: str, part: str) -> None:
    more, plain = (peaks_of(resolve("neupims", each).config) for each in ([override], []))
    assert more[part] > plain[part]


def test_units_that_never_queue_have_no_most() -> None:
    config = resolve("neupims", ["npu.vector.timing=neupims_free"]).config
    assert peaks_of(config)["npu"] == float("inf")
