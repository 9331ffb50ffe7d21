"""Laws of power over every preset that the registry has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_energy, load_pim, load_preset, load_run, load_stream_pim
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.config.run import RunConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.replay import replay
from pimsim.hardware.energy.dram import count_dram, dram_energy
from pimsim.hardware.energy.pim import fullest_stack_w, static_stack_w
from pimsim.hardware.energy.static import (
    device_static,
    peak_gb_per_s,
    refresh_w,
    standby_w,
    static_words,
)
from pimsim.hardware.energy.system_static import processor_w, system_static
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.stream import run_stream

MEMORIES = preset_names("memory")
ENERGIES = preset_names("energy")
HARDWARE = preset_names("hardware")
SYSTEMS = preset_names("system")
STREAMS = [name for name in preset_names("pim") if load_pim(name).config.controller is not None]


def memory_of(name: str) -> MemoryConfig:
    found: MemoryConfig = load_preset("memory", name).config
    return found


def traffic(memory: MemoryConfig, kind: str) -> tuple[Any, Any]:
    """2,000 requests: one after the other, or anywhere; a third of them writes."""
    rng = np.random.default_rng(7)
    burst = memory.organization.burst_bytes
    at = np.arange(2000, dtype=np.int64) * burst
    if kind == "random":
        at = rng.integers(0, memory.organization.capacity_bytes // burst, 2000) * burst
    return at, (np.arange(2000) % 3 == 2).astype(np.int64)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("kind", ["sequential", "random"])
@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_stands_by_between_idle_and_active_and_keeps_its_ceiling(
    name: str, kind: str, energy: str
) -> None:
    memory, constants = memory_of(name), load_energy(energy).config
    result = replay(memory, *traffic(memory, kind))
    time_ps = result.time_ps(memory)
    counts = count_dram(memory, result.commands, result.active_rank_cycles, result.cycles, time_ps)
    org = memory.organization
    ranks = org.channels * org.pseudo_channels * org.ranks
    assert counts.active_rank_ps + counts.idle_rank_ps == ranks * time_ps
    parts, seconds = dram_energy(counts, memory, constants), time_ps * 1e-12
    idle_w, active_w = standby_w(memory, constants)
    assert idle_w * seconds * (1 - 1e-9) <= parts.background_j <= active_w * seconds * (1 + 1e-9)
    refreshed = refresh_w(memory, constants) * seconds
    once = refresh_w(memory, constants) * memory.timings["tREFI"] * memory.tCK * 1e-12
    assert abs(parts.refresh_j - refreshed) <= 2 * once  # whole refreshes, some not yet due
    if memory.power_ceiling_pj_per_bit is not None:
        most_w = memory.power_ceiling_pj_per_bit * 8e-3 * peak_gb_per_s(memory)
        assert parts.total_j / seconds <= most_w


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("name", MEMORIES)
def test_what_a_channel_is_changes_no_power(name: str, energy: str) -> None:
    """A kernel that sees pseudo channels as channels: the same pins, ranks, stacks and standby."""
    memory, constants = memory_of(name), load_energy(energy).config
    try:
        seen = device_memory(memory)
    except InputError:
        pytest.skip("its address map keeps halves apart")
    assert peak_gb_per_s(seen) == pytest.approx(peak_gb_per_s(memory))
    assert seen.organization.stacks == memory.organization.stacks
    if constants.dram_model == "currents":
        assert standby_w(seen, constants) == pytest.approx(standby_w(memory, constants))


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("name", HARDWARE)
def test_static_power_is_by_part_and_grows_with_size(name: str, energy: str) -> None:
    run: RunConfig = load_run(name).config
    constants = load_energy(energy).config

    def static(
        npu: Any = run.npu, memory: Any = run.memory, link: Any = run.link
    ) -> dict[str, float]:
        return device_static(npu, memory, run.pim, link, constants).by_part()

    parts = static()
    assert parts.pop("total") == pytest.approx(sum(parts.values()))
    assert min(parts.values()) >= 0
    assert set(static_words(run.npu, run.memory, run.pim, run.link, constants)) == set(parts)
    assert (parts["pim"] > 0) == (run.pim is not None)
    systolic, pad, vector = run.npu.systolic, run.npu.scratchpad, run.npu.vector
    for part, changed in (
        ("arrays", {"systolic": systolic.model_copy(update={"arrays": 2 * systolic.arrays})}),
        ("sram", {"scratchpad": pad.model_copy(update={
            "capacity": 2 * pad.capacity, "accumulator": 2 * (pad.accumulator or 0)})}),
        ("vector", {"vector": vector.model_copy(update={"lanes": 2 * vector.lanes})}),
    ):  # fmt: skip
        more = static(npu=run.npu.model_copy(update=changed))
        assert more[part] == pytest.approx(2 * parts[part])
        assert more["total"] == pytest.approx(sum(parts.values()) + parts[part])
    org = run.memory.organization
    wide = run.memory.model_copy(
        update={"organization": org.model_copy(update={"channels": 2 * org.channels})}
    )
    assert static(memory=wide)["memory"] == pytest.approx(2 * parts["memory"])
    fast = run.link.model_copy(update={"bandwidth_gb_per_s": 2 * run.link.bandwidth_gb_per_s})
    assert static(link=fast)["link"] == pytest.approx(2 * parts["link"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_systems_device_is_below_its_tdp_at_rest(name: str) -> None:
    config = load_preset("system", name).config
    parts = system_static(config)
    total = parts.pop("total")
    assert total == pytest.approx(sum(parts.values()))
    assert config.xpu.tdp_w is not None
    assert 0 < processor_w(parts) < config.xpu.tdp_w
    assert ("pim" in parts) == (config.attention == "pim")
    assert ("host" in parts) == (config.host is not None)
    keys = {f"static.{key}" for key in type(config.xpu.static).model_fields} | {"tdp_w"}
    assert keys <= set(config.xpu.sources)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stack_of_a_design_keeps_its_cap(name: str, tmp_path: Path) -> None:
    design = load_stream_pim(name).config
    assert static_stack_w(design) > 0
    if "gemv" in design.operations:
        stream = mapping_of(design, "gemv")(design, 512, 1024)
        result = run_stream(design, stream)
        found = fullest_stack_w(design, result.channel_commands, result.cycles * design.tCK)
    else:
        from pimsim.hardware.energy.pim import stream_energy_pj
        from pimsim.hardware.pim.designs.attacc import attention_cycles

        one = attention_cycles(design, 16, 128, 1024, design.element_bytes)
        found = sum(stream_energy_pj(design, one.commands).values()) / one.time_ps
    assert found > 0
    if design.power_cap_w is not None:
        assert found <= design.power_cap_w


@pytest.mark.parametrize(
    ("arrays", "side", "sram", "gb_per_s", "link", "measured_w"),
    [
        (8, 128, "128MiB", 1200, 112, 90.0),  # TPUv4, whose parts the coefficients are
        (4, 256, "128MiB", 1640, 224, 106.8),  # TPUv6e
        (8, 128, "128MiB", 2765, 200, 100.0),  # TPUv5p
        (4, 128, "64MiB", 819, 100, 108.0),  # TPUv5e; its SRAM and HBM are those of the 5p there
    ],
)
def test_static_power_is_believable_beside_tpus(
    arrays: int, side: int, sram: str, gb_per_s: float, link: float, measured_w: float
) -> None:
    """Sizes and static power of NeuSim's chips (platformxlab/NeuSim, configs/chips)."""
    run: RunConfig = load_run(
        "npu-only",
        [f"npu.systolic={{arrays: {arrays}, rows: {side}, cols: {side}}}",
         f"npu.scratchpad.capacity={sram}", f"link.bandwidth_gb_per_s={link}"],
    ).config  # fmt: skip
    energy = load_energy("default").config
    found = device_static(run.npu, run.memory, None, run.link, energy).by_part()
    memory_w = gb_per_s * energy.static_memory_w_per_gb_per_s
    assert 0.6 < (found["total"] - found["memory"] + memory_w) / measured_w < 1.25
