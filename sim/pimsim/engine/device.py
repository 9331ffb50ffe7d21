"""A device with a model and a batch on it, ready to run one decode iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimsim.config.run import RunConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import AddressPlan, plan_addresses
from pimsim.mapping.attention import operand_rows
from pimsim.mapping.block import BlockMapper
from pimsim.mapping.placement import (
    assign_channels,
    estimate_attention_cycles,
    split_sub_batches,
)
from pimsim.mapping.tasks import BlockProgram
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.decode import decode_iteration, fits_memory
from pimsim.workload.operators import Iteration
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
    shape: AttentionShape | None
    mapper: BlockMapper
    layers: int
    counter_wrap_bytes: int
    """Where the artifact's address counter starts anew; 0 where its order is not followed."""

    @property
    def parts(self) -> Sequence[int]:
        """The (sub-)batches."""
        return range(len(self.iterations))

    def block(self, part: int, layer: int) -> BlockProgram:
        """Program of block ``layer`` for (sub-)batch ``part``."""
        members = self.members[part]
        return self.mapper.program(
            self.iterations[part], layer, members, [self.channel[i] for i in members], self.shape
        )


def build_device(config: RunConfig, card: ModelCard, requests: Sequence[Request]) -> Device:
    """Place ``requests`` and map ``card`` for ``config``.

    Raises ``InputError`` where the model or its KV cache does not fit, a request names a channel
    that is not there, or a design cannot do the work.
    """
    parallel, schedule = config.parallel, config.schedule
    on_pim = schedule.policy != "serial" and config.pim is not None
    if on_pim:  # PIM commands are known to one controller only
        config = config.model_copy(update={"memory": device_memory(config.memory)})
    memory = config.memory
    split = parallelism(card, parallel.tp, parallel.pp)
    append = not schedule.artifact_no_kv_append
    fits_memory(card, requests, split.tp, split.pp, memory.organization.capacity_bytes)

    def iteration(batch: Sequence[Request]) -> Iteration:
        return decode_iteration(
            card, batch, split.tp, split.pp, config.workload.layers, append_kv=append
        )

    whole = iteration(requests)
    shape = None
    cost = [request.context for request in requests]
    score = whole.blocks[0].operator("score")
    if on_pim:
        assert config.pim is not None
        shape = AttentionShape.of(
            score.heads, score.kv_heads, score.head_dim, memory, config.pim, card.kv_dtype_bytes
        )
        known = {c: estimate_attention_cycles(c, shape, memory, config.pim) for c in set(cost)}
        cost = [known[c] for c in cost]
    channel = assign_channels(
        requests, memory.organization.channels, schedule.channel_assignment, cost
    )
    members = [tuple(range(len(requests)))]
    if schedule.sub_batches:
        halves = split_sub_batches(channel, cost, schedule.split)
        members = [tuple(half) for half in halves if half]
    if schedule.artifact_channel_order:
        members = [tuple(sorted(half, key=lambda i: (channel[i], i))) for half in members]
    addresses = _addresses(config, whole, shape, requests, channel)
    mapper = BlockMapper(
        npu=config.npu, memory=memory, pim=config.pim, link=config.link,
        addresses=addresses, activation=card.activation, norm=card.norm, append_kv=append,
        element_bytes=card.dtype_bytes,
    )  # fmt: skip
    iterations = tuple(iteration([requests[i] for i in half]) for half in members)
    return Device(
        config, whole, iterations, tuple(members), tuple(channel), shape, mapper, whole.layers,
        counter_wrap_bytes(config, card, split.tp),
    )  # fmt: skip


def counter_wrap_bytes(config: RunConfig, card: ModelCard, tp: int) -> int:
    """5 E^2 elements of the artifact's 2 bytes, shared by ``tp`` devices or not."""
    order = config.npu.artifact_request_order
    if order == "none":
        return 0
    whole = 10 * card.hidden**2
    return whole // tp if order == "device" else whole


def _addresses(
    config: RunConfig, whole: Iteration, shape: AttentionShape | None,
    requests: Sequence[Request], channel: Sequence[int],
) -> AddressPlan:  # fmt: skip
    weights = {o.name: o.weight_bytes for o in whole.blocks[0].operators if o.weight_bytes}
    kv = 0 if shape is not None else sum(o.kv_read_bytes for o in whole.blocks[0].operators)
    activations = max(o.input_bytes + o.output_bytes for o in whole.blocks[0].operators)
    rows = operand_rows(config.pim) if config.pim is not None else 0
    return plan_addresses(
        config.memory, weights, max(kv, 2 * activations), whole.layers, shape,
        [request.context for request in requests], channel, rows,
    )  # fmt: skip
