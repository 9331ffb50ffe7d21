"""What a run did, in exact counts: commands, bytes, multiplications; and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.run import RunConfig
from pimsim.engine.clock import Clock
from pimsim.engine.device import Device
from pimsim.engine.iteration import Outcome
from pimsim.engine.memory import Memory
from pimsim.engine.records import WorkTotals
from pimsim.engine.stream_side import StreamSide
from pimsim.hardware.dram.layout import C_COMMANDS, C_COMP_COLUMNS, N_COUNTERS
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.rules import COMMANDS
from pimsim.hardware.dram.standby import active_rank_ticks
from pimsim.hardware.dram.waiting import charged_counters
from pimsim.hardware.energy.dram import DramCounts, DramEnergy, count_dram, dram_energy
from pimsim.hardware.energy.limits import PowerLimit
from pimsim.hardware.energy.npu import NpuCounts, npu_energy
from pimsim.hardware.energy.peak import device_peak_w
from pimsim.hardware.energy.pim import PimCounts, cap_of, pim_energy, stream_peak_w
from pimsim.hardware.energy.static import (
    StaticPower,
    device_static,
    dram_peak_w,
    peak_gb_per_s,
    refresh_w,
    standby_w,
    static_words,
)
from pimsim.mapping.attention_split import (
    AttentionSplit,
    bytes_in_banks,
    bytes_over_bus,
    keys_are_made,
    share_of,
    split_attention,
)
from pimsim.mapping.experts import ExpertPlacement, expert_bytes
from pimsim.mapping.operands import operands
from pimsim.result.invariants import PowerFacts, RunFacts
from pimsim.result.kv_writes import kv_writes
from pimsim.result.pim_link import link_bytes
from pimsim.result.types import Energy
from pimsim.workload.operators import Operator, OperatorKind
from pimsim.workload.step import Step

__all__ = [
    "array_elements", "dram_counts", "idle_dram_w", "idle_memories_w", "pim_counts",
    "pim_memory_counts", "power_facts",
    "power_sources", "run_bounds", "run_energy", "run_facts", "static_power",
]  # fmt: skip

_PS_PER_S = 10**12
_J_PER_FJ = 1e-15
_GEMM = (OperatorKind.GEMM, OperatorKind.EXPERT_GEMM, OperatorKind.ROUTER)
_ATTENTION = (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)


def dram_counts(outcome: Outcome, counter: NDArray[np.int64] | None = None) -> DramCounts:
    """What the channels' commands cost energy for, over all channels.

    Parameters
    ----------
    outcome
        Of the run.
    counter
        Commands of a part of the run (the times are of all of it); None: of all of it.
    """
    return _counts(outcome.system, outcome.clock, outcome.time_ps, counter)


def pim_memory_counts(
    outcome: Outcome, counter: NDArray[np.int64] | int | None = None
) -> DramCounts | None:
    """The same of PIM's own memory; None: PIM is in the device's.

    Parameters
    ----------
    outcome
        Of the run.
    counter
        As of ``dram_counts``; 0: nothing.
    """
    system = outcome.pim_system
    if system is None:
        return None
    if isinstance(counter, int):
        counter = np.zeros(N_COUNTERS, np.int64)
    clock = Clock.of(outcome.device.config.npu.frequency, system.cycle_ps)
    return _counts(system, clock, outcome.time_ps, counter)


def _counts(
    system: Memory, clock: Clock, time_ps: int, counter: NDArray[np.int64] | None
) -> DramCounts:
    ticks = clock.memory_cycle(time_ps)
    active = active_rank_ticks(system.channels, system.memory, ticks)
    return count_dram(system.memory, _commands(system, counter), active, ticks, time_ps)


def pim_counts(outcome: Outcome, work: WorkTotals) -> PimCounts:
    """What PIM's commands in ``work`` cost energy for, over all channels.

    Parameters
    ----------
    outcome
        Of the run.
    work
        All of it, or a part.
    """
    memory, pim = outcome.system.memory, outcome.system.pim
    if pim is None:
        return PimCounts()
    org, command = memory.organization, _commands(outcome.system, work.counter)
    banks = org.ranks * org.banks
    return PimCounts(
        gact_banks=command["G_ACT"] * org.banks_per_group,
        read_bytes=work.pim_read_bytes,
        macs=int(work.counter[C_COMP_COLUMNS]) * banks * pim.elements_per_comp,
        broadcast_bytes=work.pim_read_bytes // banks,
        gwrite=command["GWRITE"],
        readres=command["READRES"] + command["GEMV"],
    )


def _commands(system: Memory, counter: NDArray[np.int64] | None) -> dict[str, int]:
    if counter is None:
        counter = charged_counters(system).sum(axis=0)
    return {name: int(counter[C_COMMANDS + at]) for at, name in enumerate(COMMANDS)}


def work_energy(outcome: Outcome, work: WorkTotals) -> Energy:
    """Joule of one device for ``work``, without what grows with time."""
    config, memory = outcome.device.config, outcome.device.memory
    dram = dram_energy(dram_counts(outcome, work.counter), memory, config.energy)
    npu = npu_energy(
        NpuCounts(work.macs, work.vector_lane_ops, work.sram_bytes, work.link_bytes),
        config.energy,
    )  # fmt: skip
    drams, link_j = [dram], npu.link_j
    counts = pim_memory_counts(outcome, work.pim_counter)
    if counts is not None and config.pim_memory is not None:
        drams.append(dram_energy(counts, config.pim_memory, config.energy))
    if config.pim_link is not None:
        link_j += work.pim_link_bytes * 8 * config.pim_link.pj_per_bit * 1e-12
    return Energy.of(
        dram=fsum(
            joule for each in drams
            for joule in (each.activate_j, each.read_j, each.write_j, each.io_j)
        ),
        pim=pim_energy(pim_counts(outcome, work), memory, config.energy).total_j
        + work.stream_fj * _J_PER_FJ,
        npu=npu.compute_j, sram=npu.sram_j, link=link_j, static=0.0,
    )  # fmt: skip


def run_energy(
    outcome: Outcome, time_s: float, works: Sequence[tuple[WorkTotals, tuple[int, int]]],
    idle_s: float = 0.0,
) -> Energy:  # fmt: skip
    """Joule of one device that works for ``time_s`` and then waits for ``idle_s``.

    Parameters
    ----------
    outcome
        Of the run.
    time_s
        Seconds.
    works
        Each with the blocks that it is for, and how many of them were simulated.
    idle_s
        Seconds.

    Returns
    -------
    Energy
        By part.
    """
    config, memory = outcome.device.config, outcome.device.memory
    drams = [each for _, each in _dram_energies(outcome)]
    longer = time_s * _PS_PER_S / outcome.time_ps
    rest_j = fsum(joule for each in drams for joule in (each.background_j, each.refresh_j))
    background = rest_j * longer + idle_dram_w(outcome) * idle_s
    parts = [
        (work_energy(outcome, work), blocks / simulated) for work, (blocks, simulated) in works
    ]
    static = static_power(config, memory).total * (time_s + idle_s)

    def scaled(part: str) -> float:
        return fsum(getattr(each, part) * scale for each, scale in parts)

    return Energy.of(
        dram=scaled("dram") + background, pim=scaled("pim"), npu=scaled("npu"),
        sram=scaled("sram"), link=scaled("link"), static=static,
    )  # fmt: skip


def idle_dram_w(outcome: Outcome) -> float:
    """Watt of one device's DRAM that nobody asks for anything: standby and refresh.

    Parameters
    ----------
    outcome
        Of the run.
    """
    return idle_memories_w(outcome.device.config, outcome.device.memory)


def idle_memories_w(config: RunConfig, memory: MemoryConfig) -> float:
    """Watt of the memories of a device that nobody asks for anything.

    Parameters
    ----------
    config
        Of a run.
    memory
        The device's, as the run names it.
    """
    memories = [memory, *([] if config.pim_memory is None else [config.pim_memory])]
    return fsum(
        watt
        for each in memories
        for watt in (standby_w(each, config.energy)[0], refresh_w(each, config.energy))
    )


def _dram_energies(outcome: Outcome) -> list[tuple[MemoryConfig, DramEnergy]]:
    """Of the device's memory and of PIM's own, of the whole run."""
    config, memory = outcome.device.config, outcome.device.memory
    found = [(memory, dram_energy(dram_counts(outcome), memory, config.energy))]
    counts = pim_memory_counts(outcome)
    if counts is not None and config.pim_memory is not None:
        found.append((config.pim_memory, dram_energy(counts, config.pim_memory, config.energy)))
    return found


def static_power(config: RunConfig, memory: MemoryConfig) -> StaticPower:
    """Of one device.

    Parameters
    ----------
    config
        Of a run.
    memory
        As the run names it.

    Returns
    -------
    StaticPower
        Watt, by part.
    """
    return device_static(
        config.npu, memory, config.pim, config.link, config.energy, config.pim_memory,
        config.pim_link,
    )  # fmt: skip


def power_facts(outcome: Outcome) -> PowerFacts:
    """What the laws of power are checked against: standby, the DRAM's and each stack's power.

    Parameters
    ----------
    outcome
        Of the run.
    """
    config, memory = outcome.device.config, outcome.device.memory
    time_s = outcome.time_ps / _PS_PER_S
    limits = []
    standby_j = least_w = most_w = 0.0
    for key, (each, dram) in zip(("memory", "pim_memory"), _dram_energies(outcome), strict=False):
        standby_j += dram.background_j
        least_w, most_w = (
            a + b for a, b in zip((least_w, most_w), standby_w(each, config.energy), strict=True)
        )
        ceiling = each.power_ceiling_pj_per_bit
        if ceiling is not None:
            peak_w = ceiling * 8e-3 * peak_gb_per_s(each)
            limits.append(
                PowerLimit(
                    f"{key}.power_ceiling_pj_per_bit", f"DRAM of {each.name}",
                    dram.total_j / time_s, peak_w,
                )
            )  # fmt: skip
    pim, design = outcome.system.pim, outcome.design
    if isinstance(outcome.pim, StreamSide) and design is not None:
        limits += cap_of(design, outcome.pim.most_stack_w, "pim.power_cap_w")
    if pim is not None and pim.power_cap_w is not None:
        found = _fullest_stack_w(outcome)
        limits.append(
            PowerLimit("pim.power_cap_w", f"PIM {pim.name} in a stack", found, pim.power_cap_w)
        )
    whole = outcome.device.whole
    peak = device_peak_w(
        config.npu, memory, pim, config.link, config.energy, whole.tp * whole.pp, whole.dtype_bytes
    )
    if design is not None:
        peak["pim"] = stream_peak_w(design)
    if outcome.pim_system is not None and config.pim_memory and config.pim_link:
        peak["dram"] += dram_peak_w(config.pim_memory, config.energy)
        bits_per_s = config.pim_link.bandwidth_gb_per_s * 8e9
        peak["link"] += bits_per_s * config.pim_link.pj_per_bit * 1e-12
        peak["sram"] += bits_per_s * config.energy.sram_pj_per_bit * 1e-12
    return PowerFacts(
        standby_j, least_w * time_s, most_w * time_s, peak["dram"],
        fsum((*peak.values(), static_power(config, memory).total)), tuple(limits),
    )  # fmt: skip


def _fullest_stack_w(outcome: Outcome) -> float:
    """PIM's power in the fullest stack, in the stage in which it is highest."""
    recorder, memory = outcome.recorder, outcome.system.memory
    columns = outcome.system.channels["counter"][:, C_COMP_COLUMNS].astype(np.int64)
    each = memory.organization.channels_per_stack
    stacks = [int(columns[at : at + each].sum()) for at in range(0, len(columns), each)]
    fullest = max(stacks) / max(sum(stacks), 1)
    found = 0.0
    before = WorkTotals(np.zeros_like(recorder.totals[0].counter))
    for stage, total in zip(recorder.stages, recorder.totals, strict=True):
        counts = pim_counts(outcome, total - before)
        before = total
        time_s = (stage.end_ps - stage.start_ps) / _PS_PER_S
        if time_s:
            joule = pim_energy(counts, outcome.device.memory, outcome.device.config.energy).total_j
            found = max(found, joule * fullest / time_s)
    return found


def power_sources(config: RunConfig, memory: MemoryConfig) -> dict[str, str]:
    """By part of the static power and of the energy: what it is worked out from.

    Parameters
    ----------
    config
        Of a run.
    memory
        As the run names it.
    """
    energy = config.energy
    words = static_words(
        config.npu, memory, config.pim, config.link, energy, config.pim_memory, config.pim_link
    )
    found = {f"static {part}": text for part, text in words.items()}
    if energy.dram_model == "currents":
        found["dram"] = f"IDD currents of {memory.name} ({memory.source}), I/O: "
        found["dram"] += energy.sources["dram_io_pj_per_bit"]
    else:
        found["dram"] = energy.sources["dram_column_pj_per_bit"]
    found["pim"] = energy.sources["pim_array_factor"]
    if config.pim is not None and config.pim.controller is not None:
        found["pim"] = f"commands of {config.pim.name} (energy_pj): {config.pim.source}"
    found["npu"] = energy.sources["npu_mac_pj"]
    found["sram"] = energy.sources["sram_pj_per_bit"]
    found["link"] = energy.sources["link_pj_per_bit"]
    if config.pim_link is not None:
        found["link"] += (
            f"; to PIM's memory: {config.pim_link.sources.get('pj_per_bit', 'assumed')}"
        )
    return found


def array_elements(config: RunConfig) -> int:
    """Multiply-accumulates of the NPU in a cycle.

    Parameters
    ----------
    config
        Of a run.
    """
    systolic = config.npu.systolic
    return config.npu.cores * systolic.arrays * systolic.rows * systolic.cols


def run_bounds(outcome: Outcome, over_bus_bytes: int) -> dict[str, int]:
    """Least NPU cycles in which each unit alone does the work that it was given.

     NPU: multiply-accumulates, all elements busy. Array: the arrays as they take these products up,
    the operand that stays put in included. DRAM: bytes of weights and KV cache over all data buses
    at the memory's peak. PIM: dot products, one column a tCCD_S in every bank of every channel.
    Link: the collectives. PIM's link: what goes over it.

    Parameters
    ----------
    outcome
        Of the run.
    over_bus_bytes
        What the operators must read over the data buses (``RunFacts``).

    Returns
    -------
    dict[str, int]
        By unit.
    """
    config, recorder, clock = outcome.device.config, outcome.recorder, outcome.clock
    system, org = outcome.system, outcome.system.memory.organization
    bursts = over_bus_bytes // org.burst_bytes
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
    design = outcome.design
    if design is not None:
        # each by the width of its elements
        of_pim = sum(o.bound_ps for o in recorder.operators if o.unit == "pim")
        bounds["pim"] = int(of_pim // clock.npu_ps)
    for unit in ("link", "pim_link"):
        link = sum(o.bound_ps for o in recorder.operators if o.unit == unit)
        if link:
            bounds[unit] = int(link // clock.npu_ps)
    return bounds


@dataclass(frozen=True)
class _Work:
    """An operator as the workload states it, and where it was put."""

    operator: Operator
    experts: ExpertPlacement | None = None
    """Of an operator of experts."""
    attention: AttentionSplit | None = None
    """Of scores and values."""
    step: Step | None = None
    keys_are_made: bool = False

    def in_banks(self) -> Fraction:
        """Of attention's multiply-accumulates, those in the banks."""
        operator, step, split = self.operator, self.step, self.attention
        assert step is not None
        assert split is not None
        among = operator.entries or range(len(step.entries))
        return share_of(split.pim, among, step, operator.window or None)


def _work(outcome: Outcome) -> Iterator[_Work]:
    """Every operator of every step, block and (sub-)batch."""
    for device in outcome.devices:
        yield from _work_of(device)


def _work_of(device: Device) -> Iterator[_Work]:
    """The same of one step."""
    for forward, placed in zip(device.passes, device.experts, strict=True):
        for block, experts, kv in zip(forward.blocks, placed, device.kv, strict=True):
            for operator in block.operators:
                if operator.kind in _ATTENTION:
                    made = keys_are_made(block, operator)
                    split = split_attention(
                        forward.step, operator, kv.on_pim, device.pim_tokens, made
                    )
                    yield _Work(operator, None, split, forward.step, made)
                    continue
                is_expert = operator.kind is OperatorKind.EXPERT_GEMM
                yield _Work(operator, experts if is_expert else None)
    for outside in device.outside:
        for operator in outside.block.operators:
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


def _bias_bytes(operator: Operator, element_bytes: int) -> int:
    """Bytes of parameters beside the matrices of an operator."""
    if operator.kind is OperatorKind.EXPERT_GEMM:
        count = len(operator.experts)  # none where all that are hit are another device's
        return expert_bytes(operator)[1] * count if count else 0
    matrices = operator.count * operator.n * operator.k * element_bytes
    return max(operator.weight_bytes - matrices, 0)


def _needed(outcome: Outcome, works: Sequence[_Work]) -> dict[str, int]:
    """Bytes by class that the operators must read: over the bus, or (``pim_kv``, ``pim_weight``)
    in the banks."""
    needed = {"weight": 0, "kv": 0, "pim_kv": 0}
    on_pim = biases = 0
    products = outcome.device.mapper.products
    whole_biases = operands(outcome.device.config.npu.operand_layout).whole_biases
    element_bytes = outcome.device.whole.dtype_bytes
    for work in works:
        operator, experts = work.operator, work.experts
        if products is not None and products.takes(operator):
            on_pim += products.weight_bytes(operator)
        elif operator.kind in _GEMM:
            in_banks, _ = _pim_share(operator, experts)
            beside = _biases_of_pim(operator, experts)
            needed["weight"] += operator.weight_bytes - in_banks - beside
            if not whole_biases:
                needed["weight"] -= max(_bias_bytes(operator, element_bytes) - beside, 0)
            on_pim += in_banks
            biases += beside
            needed["kv"] += operator.kv_read_bytes  # latents that are expanded again
        if operator.kv_read_bytes and work.step is not None and work.attention is not None:
            of = operator, work.step, work.attention
            needed["pim_kv"] += bytes_in_banks(*of)
            if outcome.pim_system is None:  # else what the NPU reads comes over PIM's link
                needed["kv"] += bytes_over_bus(*of, work.keys_are_made)
    if on_pim:
        needed["pim_weight"] = on_pim
    needed["over_bus"] = needed["weight"] + biases + needed["kv"]
    return {kind: size for kind, size in needed.items() if size or kind in ("weight", "over_bus")}


def run_facts(outcome: Outcome, counts: DramCounts) -> RunFacts:
    """Needs from the workload's operators, deeds from the engine's and the channels' counters.

    Parameters
    ----------
    outcome
        Of the run.
    counts
        What its DRAM did.
    """
    recorder, system = outcome.recorder, outcome.system
    works = tuple(_work(outcome))
    needed = _needed(outcome, works)
    moved = dict(recorder.bytes_moved)
    burst_bytes = system.memory.organization.burst_bytes
    writes = tuple(kv_writes(outcome))
    needed["kv_written"] = sum(each.written for each in writes)
    moved["over_bus"], moved["kv_written"] = counts.rd * burst_bytes, counts.wr * burst_bytes
    of_pim = pim_memory_counts(outcome)
    if of_pim is not None and outcome.pim_system is not None:
        size = outcome.pim_system.memory.organization.burst_bytes
        moved["kv_written"] = of_pim.wr * size
        moved["pim_link"] = recorder.pim_link_bytes
        needed["pim_link"] = link_bytes(outcome.devices)
    macs = {"npu": 0}
    products = outcome.device.mapper.products
    done = {"npu": recorder.macs["npu"]}
    if system.pim is not None:
        macs["pim"] = 0
        done["pim"] = pim_counts(outcome, recorder.totals[-1]).macs
    elif outcome.design is not None:
        macs["pim"], done["pim"] = 0, recorder.stream_macs
    for work in works:
        operator, experts = work.operator, work.experts
        if products is not None and products.takes(operator):
            macs["pim"] += operator.flops // 2
        elif operator.kind in _GEMM:
            _, on_banks = _pim_share(operator, experts)
            macs["npu"] += operator.flops // 2 - on_banks
            if on_banks:
                macs["pim"] += on_banks
        elif operator.kind in _ATTENTION:
            on_banks = int(work.in_banks() * (operator.flops // 2))
            macs["npu"] += operator.flops // 2 - on_banks
            if on_banks:
                macs["pim"] += on_banks
    return RunFacts(
        bytes_needed=needed,
        bytes_moved=moved,
        macs_needed=macs,
        macs_done=done,
        busy_cycles={
            "npu": recorder.npu_busy_cycles,
            "pim": int(outcome.pim.busy_ps // outcome.clock.npu_ps),
        },
        sram_needed_bytes=_operand_bytes(outcome, works),
        sram_bytes=recorder.sram_bytes,
        kv_writes=writes,
        power=power_facts(outcome),
    )


def _operand_bytes(outcome: Outcome, works: Sequence[_Work]) -> int:
    """Bytes of both operands of every product on the arrays, each once."""
    width = outcome.device.whole.dtype_bytes
    elements = 0
    products = outcome.device.mapper.products
    for work in works:
        operator, experts = work.operator, work.experts
        if products is not None and products.takes(operator):
            continue
        if operator.kind is OperatorKind.EXPERT_GEMM:
            on_npu = operator.expert_tokens
            if experts is not None:
                on_npu = tuple(experts.tokens[e] for e in experts.on_npu)
            elements += sum(operator.k * (tokens + operator.n) for tokens in on_npu)
        elif operator.kind in _GEMM:
            elements += operator.count * operator.k * (operator.m + operator.n if operator.m else 0)
    return elements * width
