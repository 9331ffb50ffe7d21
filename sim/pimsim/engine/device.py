"""A device with a model and a batch on it, ready to run one iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pimsim.config.run import RunConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import AddressPlan, BlockKv, plan_addresses, visible_tokens
from pimsim.mapping.attention import operand_rows
from pimsim.mapping.block import BlockMapper, Placed
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.mapping.experts import ExpertPlacement
from pimsim.mapping.placement import (
    assign_channels,
    estimate_attention_cycles,
    split_sub_batches,
)
from pimsim.mapping.regions import weight_regions
from pimsim.mapping.tasks import BlockProgram
from pimsim.workload.operators import Block, Iteration, OperatorKind
from pimsim.workload.requests import Request

__all__ = ["Device", "build_device", "counter_wrap_bytes"]


@dataclass(frozen=True)
class Device:
    """What a schedule runs: programs of blocks for each (sub-)batch."""

    config: RunConfig
    whole: Iteration
    """The whole batch, for totals."""
    iterations: tuple[Iteration, ...]
    members: tuple[tuple[int, ...], ...]
    """Indices into the batch of each (sub-)batch."""
    channel: tuple[int, ...]
    """Channel of each request of the batch."""
    kv: tuple[BlockKv, ...]
    """How each simulated block keeps its keys and values."""
    mapper: BlockMapper
    experts: tuple[tuple[ExpertPlacement | None, ...], ...]
    """By (sub-)batch and simulated block: where its experts run; None: it has none."""
    counter_wrap_bytes: int
    """Where the artifact's address counter starts anew; 0 where its order is not followed."""

    @property
    def parts(self) -> Sequence[int]:
        """The (sub-)batches."""
        return range(len(self.iterations))

    @property
    def layers(self) -> int:
        """Simulated blocks."""
        return self.whole.layers

    @property
    def uses_pim(self) -> bool:
        """Attention, or some experts, run on PIM."""
        return any(kv.shape is not None for kv in self.kv)

    def block(self, part: int, layer: int) -> BlockProgram:
        """Program of block ``layer`` for (sub-)batch ``part``."""
        members = self.members[part]
        placed = Placed(
            part, layer, members, tuple(self.channel[i] for i in members), self.kv[layer].shape,
            self.experts[part][layer], self.config.schedule.policy == "blocked",
        )  # fmt: skip
        return self.mapper.program(self.iterations[part], placed)
