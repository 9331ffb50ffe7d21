"""How the operands of the NPU's work lie in memory, and in which order they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import ClassVar

from pimsim.config.memory import MemoryConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.dram.request_order import RequestOrder
from pimsim.hardware.dram.system import Stream
from pimsim.mapping.tile_layouts import RowMajor, Tiled, TileLayout
from pimsim.workload.operators import Operator

__all__ = ["Operands", "RowMajorOperands", "operands"]


class Operands:
    """Each tile in one piece, all in order of address: ``tiled``.

    A module of kind ``operand_layout`` offers a subclass of it, ``Operands``.
    """

    layout: ClassVar[type[TileLayout]] = Tiled
    """Of the tiles of a matrix product."""
    one_by_one: ClassVar[bool] = False
    """Streams name their operands, and the memory's request order says where each lies."""
    whole_biases: ClassVar[bool] = True
    """All of a bias is read."""

    def request_order(self, memory: MemoryConfig, hidden: int, tp: int) -> RequestOrder | None:
        """A fresh one for ``memory``; None: requests go out in order of address.

        ``hidden``: elements of the model's hidden state; ``tp``: degree of tensor parallelism.
        """
        del memory, hidden, tp
        return None

    def vector_streams(
        self, operator: Operator, cycles: int, at: int | None, memory: MemoryConfig
    ) -> Sequence[Stream]:
        """Loads and stores of a vector operation, whose row takes a unit ``cycles``.

        ``at``: first burst of the region of activations; None: they are on chip.
        """
        del cycles
        if at is None:
            return ()
        burst_bytes = memory.organization.burst_bytes
        loaded = operator.input_bytes + operator.weight_bytes
        return (
            Stream(at, -(-loaded // burst_bytes)),
            Stream(at, -(-operator.output_bytes // burst_bytes), write=True),
        )


class RowMajorOperands(Operands):
    """Matrices in rows, results in blocks of columns: ``row-major``."""

    layout = RowMajor


_OURS = {"tiled": Operands, "row-major": RowMajorOperands}


@cache
def operands(layout: str) -> Operands:
    """What ``npu.operand_layout`` asks for.

    Parameters
    ----------
    layout
        ``tiled``, ``row-major``, or the name of a module of that kind.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    made: type[Operands] = _OURS.get(layout) or load_module("operand_layout", layout).Operands
    return made()
