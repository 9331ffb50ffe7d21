"""The weights of a block as regions of memory."""

from __future__ import annotations

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.pim.gemv import GemvShape
from pimsim.mapping.addresses import WeightRegion, row_bursts
from pimsim.mapping.experts import expert_bytes, stored_element_bytes
from pimsim.workload.operators import Block, Operator, OperatorKind

__all__ = ["weight_regions"]


def weight_regions(
    block: Block, experts: int, memory: MemoryConfig, rows_of: PimConfig | None
) -> dict[str, WeightRegion]:
    """By operator: what its weights take.

    Parameters
    ----------
    block
        Of a model.
    experts
        Held on the device; all have a place, whether a token goes there or not.
    memory
        Of the device.
    rows_of
        The PIM that may multiply experts, whose weights then lie in its layout; None: none may.
    """
    regions: dict[str, WeightRegion] = {}
    for operator in block.operators:
        if not operator.weight_bytes:
            continue
        if operator.kind is OperatorKind.EXPERT_GEMM:
            regions[operator.name] = _expert_region(operator, experts, memory, rows_of)
        else:
            each = -(-operator.weight_bytes // operator.count)
            regions[operator.name] = WeightRegion(each, operator.count)
    return regions


def _expert_region(
    operator: Operator, experts: int, memory: MemoryConfig, pim: PimConfig | None
) -> WeightRegion:
    if pim is None:
        return WeightRegion(-(-operator.weight_bytes // len(operator.experts)), experts)
    width = stored_element_bytes(operator)
    shape = GemvShape.of(operator.n, operator.k, memory, pim, width)
    org = memory.organization
    rows = shape.rows_per_channel(org.channels)
    size = rows * row_bursts(memory) * org.burst_bytes + expert_bytes(operator)[1]
    return WeightRegion(size, experts, in_rows=True)
