"""Counts and bounds beside the cycles, each against numbers that are worked out here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pimsim.config.loader import load_memory, load_npu_of, load_pim, load_run
from pimsim.engine.clock import Clock
from pimsim.engine.iteration import Outcome
from pimsim.engine.memory import MemoryPort
from pimsim.engine.npu_side import NpuSide
from pimsim.engine.records import Recorder, WorkTotals
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.npu.search import tile_for_cores
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.gemm import GemmPlaces, gemm_steps, tile_product
from pimsim.mapping.kv import append_scatters, channel_burst
from pimsim.mapping.tasks import NpuTask
from pimsim.result import accounts
from pimsim.result.accounts import dram_counts, run_facts
from pimsim.result.invariants import RunFacts, violations
from pimsim.result.tables import headline_table
from pimsim.result.types import KvCacheUse, Result
from pimsim.simulate import observe, resolve, simulate
from pimsim.workload.operators import Operator, OperatorKind

ARTIFACT = ["neupims-artifact-main", "neupims-artifact-npu-pim", "neupims-artifact-npu-only"]
BLOCK = 128
"""Rows of the artifact's operands."""


def observed(preset: str, *overrides: str) -> tuple[Outcome, Result, RunFacts]:
    outcome, result = observe(resolve(preset, list(overrides)))
    return outcome, result, run_facts(outcome, dram_counts(outcome))


# bytes by class --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ARTIFACT)
@pytest.mark.parametrize("batch", [1, 3, 130])
def test_the_artifact_loads_a_block_of_each_bias(preset: str, batch: int, tiny_card: Path) -> None:
    _, _, facts = observed(
        preset, f"workload.model={tiny_card}", f"workload.batch={batch}", "parallel.tp=1",
        "workload.layers=1",
    )  # fmt: skip
    hidden, ffn = 512, 1024
    matrices = 2 * (4 * hidden * hidden + 2 * hidden * ffn)
    assert facts.bytes_needed["weight"] == matrices
    biases = 4 * -(-batch // BLOCK) * BLOCK * 2  # qkv, projection, both of the FFN
    assert facts.bytes_moved["weight"] == matrices + biases


@pytest.mark.parametrize("spilled", [True, False])
@pytest.mark.parametrize("layout", ["tiled", "row-major"])
def test_activations_do_not_stand_in_for_weights(layout: str, spilled: bool) -> None:
    npu = load_npu_of("npu-only").model_copy(update={"operand_layout": layout})
    memory = load_memory("hbm2-neupims").config
    m, n, k = 1024, 128, 256
    places = GemmPlaces(0, 10_000 if spilled else None, 40_000 if spilled else None)
    tiling = tile_product(m, n, k, 2, npu, memory)
    steps = gemm_steps((m, n, k), tiling, places, 2, npu, memory, n * k * 2 + n * 2)

    def moved(without: bool) -> int:
        own = steps
        if without:  # the loads of weights are forgotten, those of activations are not

            def left(part):  # type: ignore[no-untyped-def]
                return replace(part, loads=tuple(s for s in part.loads if not s.weight_bytes))

            own = tuple(replace(left(s), blocks=tuple(map(left, s.blocks))) for s in steps)
        task = NpuTask("x", "gemm", "systolic", 0, 2 * m * n * k, n * k * 2, 0, steps=own)
        env, recorder = simpy.Environment(), Recorder()
        system = make_memory_system(memory)
        clock = Clock.of(npu.frequency, system.cycle_ps)
        side = NpuSide(env, MemoryPort(env, system, clock), clock, npu, memory, recorder)
        env.run(until=env.process(side.run(task)))
        return recorder.bytes_moved["weight"]

    assert moved(without=False) == n * k * 2 + n * 2
    assert moved(without=True) == 0


def test_missing_weights_break_a_law_at_every_batch(tiny_card: Path) -> None:
    # 2,000 rows of activations that spill outweigh the weights ten times
    _, result, facts = observed(
        "npu-only", f"workload.model={tiny_card}", "workload.batch=64", "workload.layers=1",
        "parallel.tp=1", "npu.scratchpad.activations=dram",
    )  # fmt: skip
    assert not list(violations(result, facts))
    short = {**facts.bytes_moved, "weight": facts.bytes_needed["weight"] - 1}
    assert any("weight" in law for law in violations(result, replace(facts, bytes_moved=short)))


@given(
    n=st.integers(1, 300), k=st.integers(1, 300), bits=st.integers(1, 16),
)  # fmt: skip
def test_packed_weights_are_loaded_whole(n: int, k: int, bits: int) -> None:
    npu, memory = load_npu_of("npu-only"), load_memory("hbm2-neupims").config
    small = npu.scratchpad.model_copy(update={"capacity": 40_000})
    npu = npu.model_copy(update={"scratchpad": small})
    stored = -(-n * k * bits // 8)
    tiling = tile_product(8, n, k, 2, npu, memory)
    steps = gemm_steps((8, n, k), tiling, GemmPlaces(0, None, None), 2, npu, memory, stored)
    loads = [load for step in steps for load in step.loads]
    burst = memory.organization.burst_bytes
    assert sum(load.weight_bytes for load in loads) >= stored
    assert all(load.total * burst >= load.weight_bytes for load in loads)
    ends = [load.first_burst + load.total for load in loads]
    assert [load.first_burst for load in loads[1:]] == ends[:-1]  # none is read twice


# bounds and utilisation ---------------------------------------------------------------------


def test_a_product_s_bound_is_its_bytes_over_the_bandwidth() -> None:
    """Of one that nothing fetched early, in the first block and after early ones alike."""
    _, result, _ = observed("npu-only", "workload.batch=16", "workload.layers=2")
    tp, hidden, bytes_a_cycle = 4, 4096, 32 * 64 // 2  # 32 channels, 64 B each 2 ns, at 1 GHz
    weights = {"qkv": 3 * hidden * (hidden + 1) // tp * 2}
    bounds = [o.bound_cycles for o in result.operators if o.name == "qkv"]
    assert bounds == [weights["qkv"] // bytes_a_cycle] * 2
    early = [o for o in result.operators if o.name in ("fc1", "fc2")]
    assert all(o.bound_cycles < o.bytes // bytes_a_cycle for o in early)
    # the stage waits for all of its loads, whenever they were asked for
    last, layers = result.stages[-1], 2
    own = [o for o in result.operators if o.stage == last.name]
    read = sum(o.bytes for o in own if o.unit == "systolic")
    assert last.bound_cycles == pytest.approx(read / layers / bytes_a_cycle, rel=1e-4)
    assert last.bound_cycles > sum(o.bound_cycles for o in own) / layers


def test_pim_s_utilisation_is_the_mean_over_channels(
    tiny_card: Path,
    write_trace,  # type: ignore[no-untyped-def]
) -> None:
    def busy(requests: int) -> float:
        path = write_trace([900] * requests)
        outcome, result, _ = observed(
            "neupims", f"workload.model={tiny_card}", f"workload.requests={path}",
            f"workload.batch={requests}", "workload.layers=1", "parallel.tp=1",
            "schedule.sub_batches=false", "memory.controller.refresh=none",
        )  # fmt: skip
        assert result.utilisation.pim == outcome.pim.busy_ps / outcome.time_ps
        return outcome.pim.busy_ps

    channels = load_memory("hbm2-neupims").config.organization.channels
    # each request has a channel of its own: one alone keeps one of them as busy
    assert busy(channels) == pytest.approx(channels * busy(1), rel=0.01)


def test_turnover_of_one_and_of_two_buffers() -> None:
    npu = load_run("npu-only").config.npu
    systolic = npu.systolic.model_copy(update={"arrays": 1, "rows": 128, "cols": 128})
    m, n, k, rate = 16, 128, 128, 10**6  # 1,000 bytes a cycle
    load = -(-2 * (m * k + n * k + m * n) // 1000)
    compute, drain = 128, 2 * 128 + 128 - 2 + m
    for double in (False, True):
        pad = npu.scratchpad.model_copy(update={"double_buffered": double})
        one = npu.model_copy(update={"scratchpad": pad, "systolic": systolic})
        cut = tile_for_cores(m, n, k, 2, one, rate).cut
        assert (cut.tiles, cut.compute_cycles, cut.memory_cycles) == (1, compute, load)
        alone, overlapped = load + compute + drain, (load + compute + drain) // 2
        assert cut.turnover_cycles == (overlapped if double else alone)


# the ring of a window -----------------------------------------------------------------------


WINDOW = 64


@pytest.mark.parametrize(
    ("context", "slot"),
    [(WINDOW - 1, WINDOW - 2), (WINDOW, WINDOW - 1), (WINDOW + 1, 0), (WINDOW + 2, 1)],
)
def test_a_window_s_keys_are_a_ring(context: int, slot: int) -> None:
    """The last token takes the place of the one a window before it."""
    memory, pim = load_memory("hbm2-neupims").config, load_pim("neupims").config
    shape = AttentionShape.of(4, 4, 128, memory, pim, 2)
    rows = KvRows.from_row(100, shape.kv_sections, WINDOW)
    found = append_scatters(shape, [rows], [0], [context], [1], [WINDOW], memory, 2)
    tile, bank = divmod(slot, shape.banks)
    row = rows.keys.row(tile * len(shape.key_pieces))
    assert found[0].first == channel_burst(memory, row, bank, 0)
    # values go out when a burst of them is there, at the same places of the ring
    assert (len(found) > len(shape.key_pieces)) == ((slot + 1) % 32 == 0)


# how full the rows of the cache are ---------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "keys"), [("true", 1.0), ("false", 0.25)], ids=["shared", "a row a token"]
)
def test_a_run_says_how_full_the_rows_of_keys_and_values_are(
    tmp_path: Path, tiny_card: Path, write_trace: Callable[[Sequence[int]], Path],
    shares: str, keys: float,
) -> None:  # fmt: skip
    """One key head of 128 elements a device, rows of 512 elements in 32 banks: 1024 tokens fill
    eight rows of keys and eight of values; a row a tile of 32 tokens, keys fill a quarter."""
    given = [
        f"workload.model={tiny_card}", f"workload.requests={write_trace([1024] * 3)}",
        "workload.layers=2", "parallel.tp=4", "schedule.sub_batches=false",
        f"pim.keys_share_rows={shares}",
    ]  # fmt: skip
    result = simulate(resolve("neupims", given))
    assert result.kv_cache == KvCacheUse(
        rows=2 * 3 * (int(8 / keys) + 8), keys_filled=keys, values_filled=1.0,
        filled=16 / (8 / keys + 8),
    )  # fmt: skip
    buffer = StringIO()
    Console(file=buffer, width=200).print(headline_table(result))
    text = f"filled: keys {keys:.1%}, values 100.0%"
    assert text in buffer.getvalue()
    linear = simulate(resolve("npu-only", given[:4]))
    # pages of 16 tokens: 512 bytes a token in bursts of 64 bytes
    assert linear.kv_cache == KvCacheUse(0, 1.0, 1.0, bursts=2 * 3 * 1024 * 512 // 64, filled=1.0)


def test_biases_of_experts_are_those_of_experts_that_are_hit() -> None:
    """2 experts of 3 x 4 weights of 2 bytes, 4 bytes beside each; on a device of which none is hit
    there are none, and no division."""
    experts = Operator("fc1", OperatorKind.EXPERT_GEMM, n=3, k=4, weight_bytes=56, experts=(5, 9))
    assert accounts._bias_bytes(experts, 2) == 8
    assert accounts._bias_bytes(replace(experts, weight_bytes=0, experts=()), 2) == 0


def test_totals_are_of_all_that_costs_energy() -> None:
    recorder = Recorder(vector_lane_ops=2, sram_bytes=3, link_bytes=4)
    recorder.macs.update(npu=1, pim=50)
    recorder.bytes_moved.update(weight=600, kv=70, pim_weight=5, pim_kv=80)
    counter = np.arange(3)
    found = recorder.total(counter)
    assert found.counter is counter
    assert found == WorkTotals(counter, 1, 2, 3, 4, 85)
