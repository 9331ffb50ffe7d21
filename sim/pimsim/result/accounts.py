"""What a run did, in exact counts: commands, bytes, multiplications; and what they cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pimsim.config.run import RunConfig
from pimsim.engine.iteration import Outcome
from pimsim.hardware.dram.layout import C_COMMANDS, C_COMP_COLUMNS
from pimsim.hardware.dram.rules import COMMANDS
from pimsim.hardware.energy.dram import DramCounts, dram_energy
from pimsim.hardware.energy.npu import NpuCounts, npu_energy
from pimsim.hardware.energy.pim import pim_energy
from pimsim.result.invariants import RunFacts
from pimsim.result.types import Energy
from pimsim.workload.operators import Operator, OperatorKind

__all__ = ["array_elements", "dram_counts", "run_bounds", "run_energy", "run_facts"]

_PS_PER_S = 10**12
_GEMM = (OperatorKind.GEMM, OperatorKind.EXPERT_GEMM, OperatorKind.ROUTER)
_ATTENTION = (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)


def dram_counts(outcome: Outcome) -> DramCounts:
    """What the channels' commands cost energy for, over all channels."""
    system, org = outcome.system, outcome.system.memory.organization
    channels = system.channels
    ranks = org.pseudo_channels * org.ranks
    counter = channels["counter"].sum(axis=0)
    command = {name: int(counter[C_COMMANDS + at]) for at, name in enumerate(COMMANDS)}
    cycles = outcome.clock.memory_cycle(outcome.time_ps)
    open_now, since, active = (channels["rank"][:, :ranks, at] for at in range(3))
    with_open = active + np.where(open_now > 0, np.maximum(cycles - since, 0), 0)
    active_cycles = int(np.minimum(with_open, cycles).sum())
    return DramCounts(
        act=command["ACT"],
        rd=command["RD"],
        wr=command["WR"],
        ref=command["REF"],
        refpb=command["REFpb"],
        active_rank_cycles=active_cycles,
        idle_rank_cycles=org.channels * ranks * cycles - active_cycles,
        comp_bank_columns=int(counter[C_COMP_COLUMNS]) * org.ranks * org.banks,
        gact_banks=command["G_ACT"] * org.banks_per_group,
        gwrite=command["GWRITE"],
        readres=command["READRES"] + command["GEMV"],
    )


def run_energy(
    outcome: Outcome, counts: DramCounts, time_s: float, layers: int, simulated: int
) -> Energy:
    """Joule of one device: work times ``layers / simulated``, what grows with time, ``time_s``."""
    config, recorder = outcome.device.config, outcome.recorder
    dram = dram_energy(counts, config.memory, config.energy)
    pim_j = 0.0
    if outcome.system.pim is not None:
        pim_j = pim_energy(
            counts, config.memory, outcome.system.pim, config.energy,
            outcome.device.whole.kv_dtype_bytes,
        ).total_j  # fmt: skip
    work = NpuCounts(
        macs=recorder.macs["npu"],
        vector_lane_ops=recorder.vector_lane_ops,
        sram_bytes=recorder.sram_bytes,
        link_bytes=recorder.link_bytes,
    )
    npu = npu_energy(work, time_s, config.energy)
    blocks = layers / simulated
    with_time = dram.background_j + dram.refresh_j
    longer = time_s * _PS_PER_S / outcome.time_ps
    return Energy.of(
        dram=(dram.total_j - with_time) * blocks + with_time * longer,
        pim=pim_j * blocks,
        npu=npu.compute_j * blocks,
        sram=npu.sram_j * blocks,
        link=npu.link_j * blocks,
        static=npu.static_j,
    )


def array_elements(config: RunConfig) -> int:
    """Multiply-accumulates of the NPU in a cycle."""
    systolic = config.npu.systolic
    return config.npu.cores * systolic.arrays * systolic.rows * systolic.cols


def run_bounds(outcome: Outcome) -> dict[str, int]:
    """Least NPU cycles in which each unit alone does the work that it was given.

    NPU: multiply-accumulates, all elements busy. DRAM: bytes of weights and KV cache over all
    channels' data buses. PIM: dot products, one column a tCCD_S in every bank of every channel.
    Link: the collectives.
    """
    config, recorder, clock = outcome.device.config, outcome.recorder, outcome.clock
    system, org = outcome.system, outcome.system.memory.organization
    needed = _needed(outcome)
    bursts = (needed["weight"] + needed.get("kv", 0)) // org.burst_bytes
    nbl, tccd = (int(system.parameters[0][name]) for name in ("nbl", "tccd_s"))
    buses = org.channels * org.pseudo_channels
    bounds = {
        "npu": recorder.macs["npu"] // array_elements(config),
        "dram": bursts * nbl // buses * clock.memory_ps // clock.npu_ps,
    }
    if system.pim is not None:
        columns = recorder.macs["pim"] // (org.ranks * org.banks * system.pim.elements_per_comp)
        bounds["pim"] = columns // org.channels * tccd * clock.memory_ps // clock.npu_ps
    link = sum(o.bound_ps for o in recorder.operators if o.unit == "link")
    if link:
        bounds["link"] = link // clock.npu_ps
    return bounds


def _work(outcome: Outcome) -> Iterator[Operator]:
    """Every operator of every block and (sub-)batch, as the workload states it."""
    for iteration in outcome.device.iterations:
        for block in iteration.blocks:
            yield from block.operators


def _needed(outcome: Outcome) -> dict[str, int]:
    """Bytes by class that the operators must read: over the bus, or (``pim_kv``) in the banks."""
    kv = "kv" if outcome.system.pim is None else "pim_kv"
    needed = {"weight": 0, kv: 0}
    for operator in _work(outcome):
        if operator.kind in _GEMM:
            needed["weight"] += operator.weight_bytes
        needed[kv] += operator.kv_read_bytes
    return needed


def run_facts(outcome: Outcome, counts: DramCounts) -> RunFacts:
    """Needs from the workload's operators, deeds from the engine's and the channels' counters."""
    recorder, system = outcome.recorder, outcome.system
    needed = _needed(outcome)
    needed["over_bus"] = needed["weight"] + needed.get("kv", 0)
    moved = dict(recorder.bytes_moved)
    moved["over_bus"] = counts.rd * system.memory.organization.burst_bytes
    macs = {"npu": 0}
    done = {"npu": recorder.macs["npu"]}
    if system.pim is not None:
        macs["pim"] = 0
        done["pim"] = counts.comp_bank_columns * system.pim.elements_per_comp
        moved["pim_kv"] = done["pim"] * outcome.device.whole.kv_dtype_bytes
    on = "npu" if system.pim is None else "pim"
    for operator in _work(outcome):
        if operator.kind in _GEMM:
            macs["npu"] += operator.flops // 2
        elif operator.kind in _ATTENTION:
            macs[on] += operator.flops // 2
    return RunFacts(
        bytes_needed=needed,
        bytes_moved=moved,
        macs_needed=macs,
        macs_done=done,
        busy_cycles={
            "npu": recorder.npu_busy_cycles,
            "pim": outcome.pim.busy_ps // outcome.clock.npu_ps,
        },
    )
