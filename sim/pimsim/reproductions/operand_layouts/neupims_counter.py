"""The NeuPIMs artifact, branch main, asks for operands in the order of a hash set (MECHANISMS 0.2).

Loads and stores take their addresses from one counter and go out operand by operand (Common.cc
``from_instruction``). The counter starts anew after 5 E^2 elements of the device's share (E: hidden
size). Of a bias only a block is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.dram.request_order import RequestOrder
from pimsim.hardware.dram.system import OperandDependency, Stream
from pimsim.mapping import operands
from pimsim.mapping.product_tiles import product_tiles
from pimsim.reproductions.neupims_hash_set import OperandCounter
from pimsim.reproductions.neupims_operands import operand_stream, vector_operands
from pimsim.workload.operators import Operator

__all__ = ["Operands", "check"]

WRAP_BYTES = 10
"""5 elements of 2 bytes, for each of E^2."""


def check(section: NpuConfig) -> None:
    """Raise where the NPU does not move its operands one by one.

    Parameters
    ----------
    section
        That asks for the layout.

    Raises
    ------
    ValueError
        With the key.
    """
    layout = f"operand_layout {section.operand_layout!r}"
    if not hasattr(product_tiles(section.tiling), "stored_block"):
        raise ValueError(
            f"{layout} needs tiling 'neupims_blocks' or 'neupims_partial_stores', found "
            f"{section.tiling!r}"
        )
    dataflow = section.systolic.dataflow
    if not hasattr(load_module("dataflow", dataflow), "finish_cycles"):
        raise ValueError(
            f"{layout} needs systolic.dataflow 'neupims_overlapped' or 'neupims_serial', found "
            f"{dataflow!r}"
        )
    if section.scratchpad.activations != "dram":
        raise ValueError(f"{layout} needs scratchpad.activations 'dram'")
    if section.prefetch_weights:
        raise ValueError(
            f"prefetch_weights fetches in order of address, and {layout} has another order"
        )


class Operands(operands.Operands):
    """Operands where the counter stands."""

    one_by_one = True
    whole_biases = False

    def request_order(self, memory: MemoryConfig, hidden: int, tp: int) -> RequestOrder:
        """The counter, which starts anew after the device's share."""
        return OperandCounter(memory, WRAP_BYTES * hidden**2 // tp)

    def vector_streams(
        self, operator: Operator, cycles: int, at: int | None, memory: MemoryConfig
    ) -> Sequence[Stream]:
        """Row by row: a result goes once its row has been to a vector unit and back."""
        del at
        burst_bytes = memory.organization.burst_bytes
        loads, stores = vector_operands(operator)
        common = len(loads) % len(stores)
        lag = cycles + 2 * memory.controller.fabric_latency
        follows = OperandDependency(common, len(loads) // len(stores), lag)
        return (
            operand_stream(loads, burst_bytes, track=True),
            replace(operand_stream(stores, burst_bytes, write=True), follows=follows),
        )
