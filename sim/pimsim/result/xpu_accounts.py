"""What GPUs did, and what it costs: bytes, multiply-accumulates, joules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import fsum

from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_block import BlockCost
from pimsim.engine.xpu_machine import XpuOutcome
from pimsim.engine.xpu_products import pim_bandwidth
from pimsim.hardware.energy.limits import PowerLimit
from pimsim.hardware.energy.pim import cap_of
from pimsim.hardware.energy.system_static import system_static
from pimsim.hardware.xpu import roofline
from pimsim.result.invariants import PowerFacts, RunFacts
from pimsim.result.pipeline import RunPipeline
from pimsim.result.types import Energy, Result
from pimsim.result.xpu_series import PARTS, amount, by_unit, xpu_series_totals
from pimsim.workload.operators import OperatorKind

__all__ = [
    "Shares", "energy_of", "run_energy", "stage_costs", "stage_energy", "unit_bytes", "unit_macs",
    "unit_ps", "xpu_facts", "xpu_peaks", "xpu_sources",
]  # fmt: skip

_PS_PER_S = 10**12
_J_PER_PJ = 1e-12
_PRODUCTS = (OperatorKind.GEMM, OperatorKind.EXPERT_GEMM, OperatorKind.ROUTER)
_ATTENTION = (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)


Shares = list[tuple[BlockCost, float]]
"""Costs, and how many times each counts."""


def energy_of(
    shares: Sequence[tuple[BlockCost, float]], time_s: float, config: SystemConfig
) -> Energy:
    """Joule of one device.

    Parameters
    ----------
    shares
        Costs, and how many times each counts.
    time_s
        Of static power.
    config
        Of the server.
    """
    parts = {
        name: fsum(cost.energy_pj.get(part, 0.0) * times for cost, times in shares) * _J_PER_PJ
        for name, part in PARTS.items()
    }
    return Energy.of(**parts, static=system_static(config)["total"] * time_s)


def run_energy(outcome: XpuOutcome) -> Energy:
    """Of one device, for the blocks that were simulated and all work beside blocks.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    Energy
        Joules, by part.
    """
    works = [(work.cost, 1.0) for work in outcome.recorder.works]
    return energy_of(works, outcome.time_ps / _PS_PER_S, outcome.config)


def stage_energy(outcome: XpuOutcome, pipeline: RunPipeline) -> tuple[Energy, ...]:
    """Of one device of each pipeline stage, from one batch to the next, in all steps.

    Parameters
    ----------
    outcome
        What the engine left behind.
    pipeline
        The stages of its model at each step, of ``xpu_pipeline``.

    Returns
    -------
    tuple[Energy, ...]
        Joules by part, one for each stage.
    """
    found = []
    for number in range(len(pipeline.steps[0].stages)):
        own = [share for step in stage_costs(outcome, pipeline, number) for share in step]
        time_ps = sum(each.interval_ps for each in pipeline.steps)
        found.append(energy_of(own, time_ps / _PS_PER_S, outcome.config))
    return tuple(found)


def stage_costs(outcome: XpuOutcome, pipeline: RunPipeline, number: int) -> tuple[Shares, ...]:
    """What one device of a pipeline stage does for a batch, at each step.

    Parameters
    ----------
    outcome
        What the engine left behind.
    pipeline
        The stages of its model at each step, of ``xpu_pipeline``.
    number
        Of the stage, from 0.

    Returns
    -------
    tuple[Shares, ...]
        Of each step: what was simulated, as often as the stage has blocks of its kind.
    """
    found = []
    for each, step in zip(pipeline.steps, outcome.steps, strict=True):
        stage, whole = each.stages[number], step.device.whole
        simulated = Counter(block.kind for block in whole.blocks)
        own: Shares = []
        for work in step.works:
            if work.layer < whole.layers:
                kind = whole.blocks[work.layer].kind
                own.append((work.cost, stage.blocks.get(kind, 0) / simulated[kind]))
            elif work.layer - whole.layers in stage.outside:
                own.append((work.cost, 1.0))
        found.append(own)
    return tuple(found)


def unit_ps(outcome: XpuOutcome) -> Counter[str]:
    """How long each unit has a kernel.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    Counter[str]
        Picoseconds by unit.
    """
    return by_unit(outcome, lambda row: row.end_ps - row.start_ps)


def unit_macs(outcome: XpuOutcome) -> Counter[str]:
    """Multiply-accumulates by unit.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    Counter[str]
        Half of the FLOPs of the unit's kernels.
    """
    return by_unit(outcome, lambda row: amount(row, "macs"))


def unit_bytes(outcome: XpuOutcome) -> Counter[str]:
    """Bytes by unit.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    Counter[str]
        From and to the memory of each unit, each once; of links, over them.
    """
    return by_unit(outcome, lambda row: amount(row, "bytes"))


def xpu_peaks(outcome: XpuOutcome) -> dict[str, float]:
    """What one device could do at most, with the elements of the run.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    dict[str, float]
        FLOP/s and bytes/s; PIM's only where attention runs there.
    """
    config, whole = outcome.config, outcome.device.whole
    memory = roofline.bandwidth(config.xpu)
    peaks = {
        "npu_flop_per_s": roofline.peak_flops(config.xpu, whole.dtype_bytes),
        "dram_bytes_per_s": memory,
        "npu_bytes_per_s": memory,
    }
    if config.attention == "pim":
        read = max(pim_bandwidth(config, at_commands=known) for known in (True, False))
        peaks["pim_flop_per_s"] = 2 * read / min(whole.kv_dtype_bytes, whole.dtype_bytes)
        peaks["pim_kv_bytes_per_s"] = read
        if config.ffn_split:
            peaks["pim_weight_bytes_per_s"] = read
    return peaks


def xpu_sources(config: SystemConfig) -> dict[str, str]:
    """What the static power and the energy are worked out from.

    Parameters
    ----------
    config
        Of the server, with the sources that its presets say.

    Returns
    -------
    dict[str, str]
        Source by part; a part without one is left out.
    """
    xpu, sources = config.xpu, config.xpu.sources
    keys = {
        "static cores": "static.core_w", "static sram": "static.sram_w_per_mib",
        "static memory": "static.memory_w_per_gb_per_s", "static link": "static.link_w",
        "static rest": "static.rest_w", "dram": "energy.memory_pj_per_bit",
        "npu": "energy.mac_pj",
    }  # fmt: skip
    found = {part: sources[key] for part, key in keys.items() if key in sources}
    if "npu" in found:
        found["npu"] = f"caches, registers and multipliers of {xpu.name}: {found['npu']}"
    if "link_pj_per_bit" in config.sources:
        found["link"] = config.sources["link_pj_per_bit"]
    return found


def xpu_facts(outcome: XpuOutcome, result: Result) -> RunFacts:
    """Needs from the workload's operators, deeds from the kernels that ran.

    Parameters
    ----------
    outcome
        What the engine left behind.
    result
        Of the same run, for its energies.

    Returns
    -------
    RunFacts
        Bytes, multiply-accumulates, cycles of the cores' clock and watts.
    """
    needed: Counter[str] = Counter()
    macs = 0
    for step in outcome.steps:
        blocks = (*step.device.whole.blocks, *(each.block for each in step.device.outside))
        for operator in (each for block in blocks for each in block.operators):
            if operator.kind in _PRODUCTS:
                needed["weight"] += operator.weight_bytes
                macs += operator.flops // 2
            elif operator.kind in _ATTENTION:
                needed["kv"] += operator.kv_read_bytes
                macs += operator.flops // 2
    done = unit_macs(outcome)
    moved: Counter[str] = Counter()
    for each in outcome.recorder.operators:
        if each.unit != "link":
            kind = "kv" if each.kind == OperatorKind.ATTENTION_SCORE else "weight"
            moved[kind] += each.bytes
    clock = outcome.clock
    took = unit_ps(outcome)
    return RunFacts(
        bytes_needed=needed,
        bytes_moved=moved,
        macs_needed={"all units": macs},
        macs_done={"all units": sum(done.values())},
        busy_cycles={
            unit: int(took[unit] // clock.npu_ps) for unit in ("xpu", "pim", "host") if took[unit]
        },
        series_totals=xpu_series_totals(outcome),
        power=_power(outcome, result),
    )


def _power(outcome: XpuOutcome, result: Result) -> PowerFacts:
    """What the processor and the PIM stacks may draw."""
    config, stacks, design = outcome.config, outcome.config.stacks, outcome.config.pim
    power_w: Mapping[str, float] = result.power_w
    static_w = system_static(config)
    limits: list[PowerLimit] = []
    if config.attention == "pim" and stacks is not None and design is not None:
        limits += cap_of(design, power_w["pim"] / stacks.count, "pim.power_cap_w")
    beside = [power_w["pim"], power_w["host"], static_w.get("pim", 0.0), static_w.get("host", 0.0)]
    return PowerFacts(limits=tuple(limits), tdp_key="xpu.tdp_w", beside_w=fsum(beside))
