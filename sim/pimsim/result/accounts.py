"""What a run did, in exact counts: commands, bytes, multiplications; and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pimsim.config.run import RunConfig
from pimsim.engine.iteration import OUTSIDE, Outcome
from pimsim.engine.records import WorkTotals
from pimsim.hardware.dram.layout import C_COMMANDS, C_COMP_COLUMNS
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.rules import COMMANDS
from pimsim.hardware.dram.waiting import charged_counters
from pimsim.hardware.energy.dram import DramCounts, dram_energy
from pimsim.hardware.energy.npu import NpuCounts, npu_energy
from pimsim.hardware.energy.pim import pim_energy
from pimsim.mapping.experts import ExpertPlacement, expert_bytes
from pimsim.result.invariants import RunFacts
from pimsim.result.types import Energy
from pimsim.workload.operators import Operator, OperatorKind

__all__ = [
    "array_elements", "dram_counts", "run_bounds", "run_energy", "run_facts", "work_by_kind",
]  # fmt: skip

_PS_PER_S = 10**12
_GEMM = (OperatorKind.GEMM, OperatorKind.EXPERT_GEMM, OperatorKind.ROUTER)
_ATTENTION = (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)


def dram_counts(outcome: Outcome, counter: NDArray[np.int64] | None = None) -> DramCounts:
    """What the channels' commands cost energy for, over all channels; ``counter``: of a part of
    the run (the times are of all of it)."""
    system, org = outcome.system, outcome.system.memory.organization
    channels = system.channels
    ranks = org.pseudo_channels * org.ranks
    if counter is None:
        counter = charged_counters(system).sum(axis=0)
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


def work_energy(outcome: Outcome, work: WorkTotals) -> Energy:
    """Joule of one device for ``work``, without what grows with time."""
    config = outcome.device.config
    counts = dram_counts(outcome, work.counter)
    dram = dram_energy(counts, config.memory, config.energy)
    pim_j = 0.0
    if outcome.system.pim is not None:
        pim_j = pim_energy(
            counts, config.memory, outcome.system.pim, config.energy,
            outcome.device.whole.kv_dtype_bytes,
        ).total_j  # fmt: skip
    npu = npu_energy(
        NpuCounts(work.macs, work.vector_lane_ops, work.sram_bytes, work.link_bytes), 0.0,
        config.energy,
    )  # fmt: skip
    return Energy.of(
        dram=dram.total_j - (dram.background_j + dram.refresh_j), pim=pim_j, npu=npu.compute_j,
        sram=npu.sram_j, link=npu.link_j, static=0.0,
    )  # fmt: skip


def run_energy(
    outcome: Outcome, time_s: float, works: Sequence[tuple[WorkTotals, tuple[int, int]]]
) -> Energy:
    """Joule of one device in ``time_s``: each work for so many blocks of so many simulated."""
    config = outcome.device.config
    dram = dram_energy(dram_counts(outcome), config.memory, config.energy)
    longer = time_s * _PS_PER_S / outcome.time_ps
    background = (dram.background_j + dram.refresh_j) * longer
    parts = [
        (work_energy(outcome, work), blocks / simulated) for work, (blocks, simulated) in works
    ]
    static = npu_energy(NpuCounts(0, 0, 0, 0), time_s, config.energy).static_j
    return Energy.of(
        dram=sum(part.dram * scale for part, scale in parts) + background,
        pim=sum(part.pim * scale for part, scale in parts),
        npu=sum(part.npu * scale for part, scale in parts),
        sram=sum(part.sram * scale for part, scale in parts),
        link=sum(part.link * scale for part, scale in parts),
        static=static,
    )


def work_by_kind(outcome: Outcome) -> dict[str, WorkTotals]:
    """What the stages of each kind of block did."""
    recorder, blocks = outcome.recorder, outcome.device.whole.blocks
    found: dict[str, WorkTotals] = {}
    before = WorkTotals(np.zeros_like(recorder.totals[0].counter))
    for stage, total in zip(recorder.stages, recorder.totals, strict=True):
        kind = OUTSIDE if stage.name == OUTSIDE else blocks[stage.layer].kind
        own = total - before
        found[kind] = found[kind] + own if kind in found else own
        before = total
    return found


def array_elements(config: RunConfig) -> int:
    """Multiply-accumulates of the NPU in a cycle."""
    systolic = config.npu.systolic
    return config.npu.cores * systolic.arrays * systolic.rows * systolic.cols


def run_bounds(outcome: Outcome) -> dict[str, int]:
    """Least NPU cycles in which each unit alone does the work that it was given.

    NPU: multiply-accumulates, all elements busy. Array: the arrays as they take these products
    up, the operand that stays put in included. DRAM: bytes of weights and KV cache over all data
    buses at the memory's peak. PIM: dot products, one column a tCCD_S in every bank of every
    channel. Link: the collectives.
    """
    config, recorder, clock = outcome.device.config, outcome.recorder, outcome.clock
    system, org = outcome.system, outcome.system.memory.organization
    needed = _needed(outcome)
    bursts = needed["over_bus"] // org.burst_bytes
    tccd = int(system.parameters[0]["tccd_s"])
    slots = Fraction(bursts, data_buses(system.memory))
    bounds = {
        "npu": recorder.macs["npu"] // array_elements(config),
        "array": recorder.array_cycles,
        "dram": int(slots * burst_slot_ps(system.memory) / clock.npu_ps),
    }
    if system.pim is not None:
        columns = recorder.macs["pim"] // (org.ranks * org.banks * system.pim.elements_per_comp)
        bounds["pim"] = int(columns // org.channels * tccd * clock.memory_ps // clock.npu_ps)
    link = sum(o.bound_ps for o in recorder.operators if o.unit == "link")
    if link:
        bounds["link"] = int(link // clock.npu_ps)
    return bounds


@dataclass(frozen=True)
class _Work:
    """An operator as the workload states it, and where it was put."""

    operator: Operator
    experts: ExpertPlacement | None = None
    """Of an operator of experts."""
    attends_on_pim: bool = False


def _work(outcome: Outcome) -> Iterator[_Work]:
    """Every operator of every block and (sub-)batch."""
    device = outcome.device
    for iteration, placed in zip(device.iterations, device.experts, strict=True):
        for block, experts, kv in zip(iteration.blocks, placed, device.kv, strict=True):
            for operator in block.operators:
                is_expert = operator.kind is OperatorKind.EXPERT_GEMM
                yield _Work(operator, experts if is_expert else None, kv.shape is not None)
    for operator in device.outside.operators if device.outside is not None else ():
        yield _Work(operator)


def _pim_share(operator: Operator, experts: ExpertPlacement | None) -> tuple[int, int]:
    """Weight bytes that an operator's experts on PIM read in the banks, and their
    multiply-accumulates."""
    if experts is None or not experts.on_pim:
        return 0, 0
    pairs, total = experts.pairs(experts.on_pim), experts.pairs(experts.tokens)
    weights = expert_bytes(operator)[0] * len(experts.on_pim)
    return weights, operator.flops * pairs // total // 2


def _biases_of_pim(operator: Operator, experts: ExpertPlacement | None) -> int:
    """Bytes of the biases of experts on PIM: the vector units add them."""
    if experts is None or not experts.on_pim:
        return 0
    return expert_bytes(operator)[1] * len(experts.on_pim)


def _needed(outcome: Outcome) -> dict[str, int]:
    """Bytes by class that the operators must read: over the bus, or (``pim_kv``, ``pim_weight``)
    in the banks."""
    needed = {"weight": 0} | {"pim_kv" if kv.shape else "kv": 0 for kv in outcome.device.kv}
    on_pim = biases = 0
    for work in _work(outcome):
        operator, experts = work.operator, work.experts
        if operator.kind in _GEMM:
            in_banks, _ = _pim_share(operator, experts)
            beside = _biases_of_pim(operator, experts)
            needed["weight"] += operator.weight_bytes - in_banks - beside
            on_pim += in_banks
            biases += beside
        if operator.kv_read_bytes:
            needed["pim_kv" if work.attends_on_pim else "kv"] += operator.kv_read_bytes
    if on_pim:
        needed["pim_weight"] = on_pim
    needed["over_bus"] = needed["weight"] + biases + needed.get("kv", 0)
    return needed


def run_facts(outcome: Outcome, counts: DramCounts) -> RunFacts:
    """Needs from the workload's operators, deeds from the engine's and the channels' counters."""
    recorder, system = outcome.recorder, outcome.system
    needed = _needed(outcome)
    moved = dict(recorder.bytes_moved)
    moved["over_bus"] = counts.rd * system.memory.organization.burst_bytes
    macs = {"npu": 0}
    done = {"npu": recorder.macs["npu"]}
    if system.pim is not None:
        macs["pim"] = 0
        done["pim"] = counts.comp_bank_columns * system.pim.elements_per_comp
    for work in _work(outcome):
        operator, experts = work.operator, work.experts
        if operator.kind in _GEMM:
            _, on_banks = _pim_share(operator, experts)
            macs["npu"] += operator.flops // 2 - on_banks
            if on_banks:
                macs["pim"] += on_banks
        elif operator.kind in _ATTENTION:
            macs["pim" if work.attends_on_pim else "npu"] += operator.flops // 2
    return RunFacts(
        bytes_needed=needed,
        bytes_moved=moved,
        macs_needed=macs,
        macs_done=done,
        busy_cycles={
            "npu": recorder.npu_busy_cycles,
            "pim": int(outcome.pim.busy_ps // outcome.clock.npu_ps),
        },
    )
