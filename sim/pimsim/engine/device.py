"""A device with a model and a batch on it, ready to run one iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pimsim.config.memory import MemoryConfig
from pimsim.config.run import RunConfig
from pimsim.engine.rows_needed import rows_needed, rows_of
from pimsim.mapping.addresses import (
    BlockKv,
)
from pimsim.mapping.block import BlockMapper
from pimsim.mapping.block_placement import BlockPlacement
from pimsim.mapping.experts import ExpertPlacement
from pimsim.mapping.program import Program
from pimsim.mapping.tasks import BlockProgram
from pimsim.workload.batch import DeviceWork
from pimsim.workload.operators import ForwardPass
from pimsim.workload.outside import Outside

__all__ = ["Device"]


@dataclass(frozen=True)
class Device:
    """What a schedule runs: programs of blocks for each (sub-)batch."""

    config: RunConfig
    work: DeviceWork
    """The model, and how it is shared."""
    whole: ForwardPass
    """The whole step, for totals."""
    passes: tuple[ForwardPass, ...]
    members: tuple[tuple[int, ...], ...]
    """Indices into the batch of each (sub-)batch."""
    entries: tuple[tuple[int, ...], ...]
    """The same as numbers of the step's entries, which some requests may not be among."""
    channel: tuple[int, ...]
    """Channel of each request of the batch."""
    kv: tuple[BlockKv, ...]
    """How each simulated block keeps its keys and values."""
    mapper: BlockMapper
    experts: tuple[tuple[ExpertPlacement | None, ...], ...]
    """By (sub-)batch and simulated block: where its experts run; None: it has none."""
    place: Callable[[Sequence[ForwardPass], int], tuple[ExpertPlacement | None, ...]]
    """Where the experts of each block run, of (sub-)batches that it is given, for one of them."""
    outside: tuple[Outside, ...] = ()
    """What runs once beside the decoder blocks, by pipeline stage; empty: nothing is a part of the
    run."""
    narrow_tp: int | None = None
    """The degree of tensor parallelism that would hold the model, but not the layout of PIM, where
    the run left it open."""
    brief: bool = False
    """Simulated as one of many steps, by rates: tiles are joined (``joined_tiles``), and one
    channel shows what the pieces of a PIM operation take."""
    named_memory: MemoryConfig | None = None
    """The memory as the run names it, where the kernel sees pseudo channels as channels."""

    @property
    def memory(self) -> MemoryConfig:
        """The memory as the run names it; what a channel is, energy takes from here."""
        return self.config.memory if self.named_memory is None else self.named_memory

    @property
    def products_on_pim(self) -> bool:
        """Some products of all tokens run on PIM."""
        return bool(self.product_bytes)

    @property
    def product_bytes(self) -> frozenset[int]:
        """Bytes of a weight of the products of all tokens that run on PIM; empty: none do."""
        takes = self.mapper.products
        if takes is None:
            return frozenset()
        blocks = (
            *(block for forward in self.passes for block in forward.blocks),
            *(each.block for each in self.outside),
        )
        return frozenset(
            takes.element_bytes(operator)
            for block in blocks
            for operator in block.operators
            if takes.takes(operator)
        )

    @property
    def pim_tokens(self) -> int:
        """Most new tokens of a request that attends on PIM."""
        return self.config.schedule.attention_pim_tokens

    @property
    def parts(self) -> Sequence[int]:
        """The (sub-)batches."""
        return range(len(self.passes))

    @property
    def layers(self) -> int:
        """Simulated blocks."""
        return self.whole.layers

    @property
    def uses_pim(self) -> bool:
        """Attention, or some experts, run on PIM."""
        return (
            any(kv.on_pim for kv in self.kv)
            or any(placed.on_pim for part in self.experts for placed in part if placed is not None)
            or self.products_on_pim
        )

    @property
    def rows_needed(self) -> int:
        """Rows of each bank that the blocks of the fullest pipeline stage need, those not simulated
        too, with the caches of all batches under way."""
        return rows_needed(self.mapper.addresses, self.whole, self.work)

    @property
    def rows_of(self) -> str:
        """What ``rows_needed`` counts, for a message."""
        return rows_of(self.work)

    def block(self, part: int, layer: int) -> BlockProgram:
        """Program of block ``layer`` for (sub-)batch ``part``."""
        members = self.members[part]
        kv = self.kv[layer]
        placed = BlockPlacement(
            part, layer, members, tuple(self.channel[i] for i in members), kv.shape, kv.linear,
            kv.in_design, self.experts[part][layer], self.pim_tokens,
        )  # fmt: skip
        return self.mapper.program(self.passes[part], placed)

    def program(self) -> Program:
        """The step as a graph of tasks: the blocks of each (sub-)batch, and what runs once beside
        them for the whole batch."""
        outside = [
            (
                each.label(self.whole.pp),
                partial(self.mapper.outside, each.block, self.whole, number),
            )
            for number, each in enumerate(self.outside)
        ]
        return Program(len(self.parts), self.layers, self.block, outside)
