"""What one device could do at most: the roofs of every picture and of the laws on intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import own_design
from pimsim.config.run import RunConfig
from pimsim.engine.device import Device
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.peak import column_clocks, peak_bytes_per_s
from pimsim.hardware.npu.vector_timing import vector_timing
from pimsim.mapping.experts import stored_element_bytes
from pimsim.workload.operators import OperatorKind

__all__ = ["device_peaks", "pim_element_bytes", "run_peaks"]

_PS_PER_S = 10**12


def device_peaks(
    config: RunConfig, memory: MemoryConfig, pim_bytes: Mapping[str, int]
) -> dict[str, float]:
    """Peaks of one device, a second.

    Parameters
    ----------
    config : RunConfig
        The matrix side and the PIM design.
    memory : MemoryConfig
        As the run names it.
    pim_bytes : Mapping[str, int]
        Width of an element by what PIM reads in the banks (``pim_element_bytes``); empty: nothing
        runs on PIM.

    Returns
    -------
    dict[str, float]
        ``npu_flop_per_s``: every multiplier of the arrays at work. ``vector_ops_per_s``: every lane
        of the vector units, where these queue. ``dram_bytes_per_s``: every
        burst slot of every data bus. ``npu_bytes_per_s``: the same as far as a network between
        cores and channels passes it on. ``pim_flop_per_s``: one dot product a column slot in every
        bank, and ``pim_KIND_bytes_per_s``, the bytes that they read, where KIND lies on PIM.
    """
    systolic, npu, org = config.npu.systolic, config.npu, memory.organization
    elements = npu.cores * systolic.arrays * systolic.rows * systolic.cols
    bus = peak_bytes_per_s(memory)
    through = bus
    if npu.network is not None:  # one request a network cycle at every channel
        through = min(bus, float(org.channels * org.burst_bytes * npu.network.frequency))
    peaks = {
        "npu_flop_per_s": 2.0 * elements * npu.frequency,
        "dram_bytes_per_s": bus,
        "npu_bytes_per_s": through,
    }
    if vector_timing(npu.vector).queues:
        lanes = npu.vector.units * npu.vector.lanes
        peaks["vector_ops_per_s"] = float(lanes * npu.frequency)
    design = own_design(config.pim, config.pim_memory or memory)
    if pim_bytes and design is not None:
        assert design.peak is not None
        org = design.organization
        from pimsim.hardware.pim.stream import peak_interval_cycles

        slot_s = Fraction(peak_interval_cycles(design) * design.tCK) / _PS_PER_S
        each = org.channels / slot_s
        # of narrower elements than its own as many more at once
        width = min(*pim_bytes.values(), design.element_bytes)
        peaks["pim_flop_per_s"] = float(2 * design.peak_macs * each) * design.element_bytes / width
        read = design.banks_reached(design.peak.command) * org.burst_bytes
        peaks |= {f"pim_{kind}_bytes_per_s": float(read * each) for kind in pim_bytes}
    elif pim_bytes and config.pim is not None:
        kernel = device_memory(memory)
        banks = kernel.organization.channels * kernel.organization.ranks * kernel.organization.banks
        slot_s = Fraction(column_clocks(kernel) * kernel.tCK) / _PS_PER_S
        macs = float(banks * config.pim.elements_per_comp / slot_s)
        peaks["pim_flop_per_s"] = 2 * macs
        for kind, size in pim_bytes.items():
            peaks[f"pim_{kind}_bytes_per_s"] = macs * size
    return peaks


def pim_element_bytes(device: Device) -> dict[str, int]:
    """Bytes of an element by what PIM reads: ``kv`` where attention runs on it, ``weight`` where
    experts or products of all tokens do.

    Parameters
    ----------
    device
        Of one step of the run.
    """
    found = {}
    if any(kv.on_pim for kv in device.kv):
        found["kv"] = device.whole.kv_dtype_bytes
    widths = [*_expert_bytes(device), *device.product_bytes]
    if widths:
        found["weight"] = min(widths)
    return found


def _expert_bytes(device: Device) -> Iterator[int]:
    """Bytes of a weight of each product of experts on PIM: as it lies there on a design with a
    controller of its own, else of the model."""
    for forward, placed in zip(device.passes, device.experts, strict=True):
        for block, experts in zip(forward.blocks, placed, strict=True):
            if experts is None or not experts.on_pim:
                continue
            yield device.whole.dtype_bytes
            if device.mapper.expert_runs is not None:
                yield from (
                    stored_element_bytes(operator) for operator in block.operators
                    if operator.kind is OperatorKind.EXPERT_GEMM
                )  # fmt: skip


def run_peaks(devices: Sequence[Device]) -> dict[str, float]:
    """Peaks of the device of a run, with its own element sizes.

    Parameters
    ----------
    devices : Sequence[Device]
        The device at each step; what runs on PIM at any of them has its peak.
    """
    first = devices[0]
    found: dict[str, int] = {}
    for each in devices:
        found |= pim_element_bytes(each)
    return device_peaks(first.config, first.memory, found)
