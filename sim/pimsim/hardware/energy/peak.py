"""What a device draws at most: every part at its peak at once, for any time long beside a command.

No interval of a picture of power may lie above it. Parts that nothing limits (vector units that
never queue) are infinite.
"""

from __future__ import annotations

from math import inf

from pimsim.config.delay import evaluate_delay
from pimsim.config.energy import EnergyConfig
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig, SystolicConfig
from pimsim.config.pim import PimConfig
from pimsim.config.run import LinkConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.peak import burst_slot_ps, column_clocks, data_buses, peak_bytes_per_s
from pimsim.hardware.energy.npu import NpuCounts, npu_energy
from pimsim.hardware.energy.pim import PimCounts, pim_energy
from pimsim.hardware.energy.static import dram_peak_w
from pimsim.hardware.npu.dataflows import load_dataflow
from pimsim.hardware.npu.operands import PARTIAL_BYTES
from pimsim.hardware.npu.vector_timing import vector_timing

__all__ = ["device_peak_w", "pim_peak_w"]

_PER_S = 10**12
"""Picoseconds of a second: counts are those of one."""


def device_peak_w(
    npu: NpuConfig, memory: MemoryConfig, pim: PimConfig | None, link: LinkConfig,
    energy: EnergyConfig, devices: int, element_bytes: int,
) -> dict[str, float]:  # fmt: skip
    """Watt of one device by part of its energy, each at its peak.

    Parameters
    ----------
    npu, memory, pim, link, energy
        The device; ``memory``: as the run names it, ``pim``: None where nothing runs on it.
    devices
        That share the model; a device has at most a link to each of the others.
    element_bytes
        The widest element of the model.

    Returns
    -------
    dict of str to float
        ``dram``, ``pim``, ``npu``, ``sram`` and ``link``, static power apart.
    """
    bus = peak_bytes_per_s(memory)
    arrays = npu.cores * npu.systolic.arrays
    lanes = npu.vector.units * npu.vector.lanes * npu.frequency
    width = max(element_bytes, PARTIAL_BYTES)
    out = max(devices - 1, len(link.link_pairs), 1) * link.bandwidth_gb_per_s * 1e9
    if link.outer is not None:
        out += max(devices - 1, 1) * link.outer.bandwidth_gb_per_s * 1e9
    # a pass of a lane reads two elements and writes one; a burst is written or read once, and
    # results of PIM, which hold one too, are read, written as probabilities and sent back
    passed = arrays * _edge_bytes(npu.systolic, element_bytes) * npu.frequency
    sram = passed + 3 * width * lanes + 6 * bus + 2 * out
    macs = arrays * npu.systolic.rows * npu.systolic.cols * npu.frequency
    one = npu_energy(NpuCounts(macs, lanes, int(sram), int(out)), energy)
    return {
        "dram": dram_peak_w(memory, energy, 1 if pim is None else pim.row_buffers),
        "pim": 0.0 if pim is None else pim_peak_w(memory, pim, energy),
        "npu": one.compute_j if vector_timing(npu.vector).queues else inf,
        "sram": one.sram_j,
        "link": one.link_j,
    }


def _edge_bytes(systolic: SystolicConfig, element_bytes: int) -> int:
    """Bytes that one array passes in a cycle at most.

    Operands and partial sums enter and leave a systolic array at its edges; a dataflow that does
    not say what it reads may give every multiplier operands of its own.
    """
    edge = 2 * (systolic.rows + systolic.cols)
    told = load_dataflow(systolic.dataflow)(1, 1, 1, systolic, element_bytes).traffic
    operands = edge if told is not None else 2 * systolic.rows * systolic.cols
    return operands * element_bytes + edge * PARTIAL_BYTES


def pim_peak_w(memory: MemoryConfig, pim: PimConfig, energy: EnergyConfig) -> float:
    """Watt of PIM's commands at most, of a design whose commands the memory's controller takes.

    A dot product in all banks and a result over each bus in every column slot, every bank opened
    once a tRC, and the global buffer of every channel filled all the time.

    Parameters
    ----------
    memory
        As the run names it.
    pim
        On all of its channels.
    energy
        What commands, multiplications and bytes cost.

    Returns
    -------
    float
        W of one device.
    """
    memory_of_kernel = device_memory(memory)
    org, t = memory_of_kernel.organization, memory.timings
    banks = org.channels * org.channel_banks
    slots = _PER_S / (column_clocks(memory_of_kernel) * memory.tCK)
    fills = evaluate_delay(pim.gwrite_cycles, {**t, **pim.timings}, "pim.gwrite_cycles")
    # no command takes less than a clock, whatever its timing says
    opened = banks * _PER_S / (max(t["tRAS"] + t["tRP"], 1) * memory.tCK)
    counts = PimCounts(
        gact_banks=int(opened),
        read_bytes=int(banks * org.burst_bytes * slots),
        macs=int(banks * pim.elements_per_comp * slots),
        broadcast_bytes=int(org.channels * org.burst_bytes * slots),
        gwrite=int(org.channels * _PER_S / (max(fills, 1) * memory.tCK)),
        readres=int(data_buses(memory) * _PER_S / burst_slot_ps(memory)),
    )
    return pim_energy(counts, memory, energy).total_j
