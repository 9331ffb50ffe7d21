"""A matrix product to steps: each core's tiles, and the bursts that each tile moves."""

from __future__ import annotations

from fractions import Fraction

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.system import Network
from pimsim.hardware.npu.search import CoreTiling, tile_for_cores
from pimsim.mapping.operands import operands
from pimsim.mapping.tasks import GemmStep
from pimsim.mapping.tile_layouts import GemmPlaces

__all__ = ["bytes_per_kcycle", "core_network", "gemm_steps", "tile_product"]


def bytes_per_kcycle(npu: NpuConfig, memory: MemoryConfig) -> int:
    """Bytes that the memory moves in 1000 NPU cycles at its full rate: a burst in each slot of
    every data bus, or one request a network cycle at every channel, whichever is less.

    Parameters
    ----------
    npu
        Its clock, and its network where it has one.
    memory
        Its buses.
    """
    bursts_per_ps = data_buses(memory) / burst_slot_ps(memory)
    if npu.network is not None:
        of_ports = memory.organization.channels * Fraction(npu.network.frequency, 10**12)
        bursts_per_ps = min(bursts_per_ps, of_ports)
    kcycle_ps = Fraction(1000 * 10**12, npu.frequency)
    return int(memory.organization.burst_bytes * bursts_per_ps * kcycle_ps)


def core_network(npu: NpuConfig) -> Network:
    """What the memory must know of the cores.

    Parameters
    ----------
    npu
        Its cores, and its network where it has one.

    Returns
    -------
    Network
        Times in picoseconds.
    """
    if npu.network is None:
        return Network(sources=npu.cores)
    network = npu.network
    period_ps = Fraction(10**12, network.frequency)
    return Network(
        npu.cores, period_ps, network.latency_cycles * period_ps, network.ports_per_core,
        network.channel_hash == "ipoly",
    )  # fmt: skip


def tile_product(
    m: int,
    n: int,
    k: int,
    element_bytes: int,
    npu: NpuConfig,
    memory: MemoryConfig,
    explain: bool = False,
    activations_move: bool = True,
) -> CoreTiling:
    """The cut of C[m, n] = A[m, k] B[k, n] that ``npu.tiling`` picks, and why.

    Parameters
    ----------
    m, n, k
        Of the product.
    element_bytes
        Of an element.
    npu
        Its ``tiling``, cores, arrays and scratchpad.
    memory
        Its rate.
    explain
        Judge the other cuts too where the policy does not ask for them.
    activations_move
        Inputs and outputs cross the memory's bus; else weights alone do.

    Raises
    ------
    InputError
        Where no tile fits, or the product takes too many.
    """
    rate = bytes_per_kcycle(npu, memory)
    return tile_for_cores(m, n, k, element_bytes, npu, rate, explain, activations_move)


def gemm_steps(
    dims: tuple[int, int, int],
    tiling: CoreTiling,
    places: GemmPlaces,
    element_bytes: int,
    npu: NpuConfig,
    memory: MemoryConfig,
    weight_bytes: int | None = None,
) -> tuple[GemmStep, ...]:
    """Steps of all cores, a core's in order.

    Weights of a narrower format move in proportion and are widened on chip; what is more than the
    elements (biases) is loaded with the first tile.

    Parameters
    ----------
    dims
        (m, n, k) of C[m, n] = A[m, k] B[k, n].
    tiling
        Tiles of each core.
    places
        Where the operands lie.
    element_bytes
        Of what the arrays multiply.
    npu
        Its ``operand_layout`` and arrays.
    memory
        Its bursts.
    weight_bytes
        Of the parameters as they are stored; None: elements alone.

    Raises
    ------
    InputError
        For a narrower format in rows.
    """
    elements = dims[1] * dims[2] * element_bytes
    stored = elements if weight_bytes is None else weight_bytes
    bias_bytes = max(stored - elements, 0)
    found = operands(npu.operand_layout).layout
    if stored < elements and not found.takes_packed:
        raise InputError(
            f"npu.operand_layout {npu.operand_layout!r}: weights of {stored} B for {dims[1]} x "
            f"{dims[2]} elements of {element_bytes} B are packed; allowed: 'tiled'"
        )
    layout = found(
        dims, places, element_bytes, npu.systolic, memory.organization.burst_bytes,
        (min(stored, elements), elements),
    )  # fmt: skip
    steps: list[GemmStep] = []
    for core, tiles in enumerate(tiling.cores):
        for tile in tiles:
            steps.append(layout.step(core, tile, 0 if steps else bias_bytes))
    return tuple(steps)
