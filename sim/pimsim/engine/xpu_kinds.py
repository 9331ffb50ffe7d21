"""What blocks of a step cost on GPUs, each kind worked out once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pimsim.config.errors import InputError
from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_attention import ProgramTimes, kv_transfer_s
from pimsim.engine.xpu_block import (
    BlockCost,
    added,
    block_cost,
    gemm_cost,
    prompts_cost,
    with_attention,
)
from pimsim.engine.xpu_device import XpuDevice
from pimsim.engine.xpu_links import moved_between
from pimsim.engine.xpu_products import FixedCosts, KernelTime
from pimsim.hardware.fabric.schedule import Operation
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import BlockKernels, kernels_of, per_element
from pimsim.workload.operators import Block, CollectiveKind, ForwardPass, Operator, OperatorKind

__all__ = ["CostsOfSteps"]

_BITS = 8
_OPERATIONS = {
    CollectiveKind.ALL_REDUCE: Operation.ALL_REDUCE,
    CollectiveKind.ALL_GATHER: Operation.ALL_GATHER,
    CollectiveKind.SEND: Operation.SEND,
}


class CostsOfSteps:
    """Costs of blocks on ``config``; what does not change from step to step is kept.

    ``contexts``: of all steps, where attention on PIM is to be simulated or interpolated.
    """

    def __init__(self, config: SystemConfig, contexts: Sequence[int]) -> None:
        self.config = config
        self._alone = config.model_copy(
            update={"attention": "xpu", "overlap": "none", "ffn_split": False,
                    "attention_contexts": None}
        )  # fmt: skip
        self._programs = ProgramTimes(contexts, config.attention_contexts)
        self._fixed: dict[object, FixedCosts] = {}

    def blocks(self, device: XpuDevice) -> Iterator[BlockCost]:
        """The cost of each simulated block of a step, in their order."""
        return self.costs_of(device, device.whole)

    def costs_of(self, device: XpuDevice, forward: ForwardPass) -> Iterator[BlockCost]:
        """The same of another pass of the step: of more of its blocks, say."""
        known: dict[int, BlockCost] = {}
        for block in forward.blocks:
            if id(block) not in known:
                known[id(block)] = self._cost(device, forward, block)
            yield known[id(block)]

    def kernels(self, device: XpuDevice) -> Iterator[BlockKernels]:
        """The kernels of each simulated block of a step."""
        known: dict[int, BlockKernels] = {}
        for block in device.whole.blocks:
            if id(block) not in known:
                known[id(block)] = self._kernels(device, device.whole, block)
            yield known[id(block)]

    def _kernels(self, device: XpuDevice, forward: ForwardPass, block: Block) -> BlockKernels:
        elsewhere = self.config.attention != "xpu"
        if elsewhere:
            _check_reads(forward, block, self.config.attention)
        return kernels_of(
            forward, block, fused_gate=self.config.fused_gate, shape=device.shape,
            cache_elsewhere=elsewhere,
        )  # fmt: skip

    def _cost(self, device: XpuDevice, forward: ForwardPass, block: Block) -> BlockCost:
        kernels = self._kernels(device, forward, block)
        config = self.config
        if config.attention == "xpu":
            return block_cost(kernels, self._fixed_of(kernels, config), config)
        if not kernels.alone:  # prompts: the device attends
            cost = block_cost(kernels, self._fixed_of(kernels, self._alone), self._alone)
            return added(cost, self._cached(kernels))
        single = replace(kernels, flash=())
        cost = block_cost(single, self._fixed_of(single, config), config, self._programs)
        if not kernels.flash:
            return cost
        prompts = prompts_cost(kernels, self._alone)
        return added(with_attention(cost, prompts), self._cached(kernels))

    def _fixed_of(self, kernels: BlockKernels, config: SystemConfig) -> FixedCosts:
        key = (
            config is self.config, kernels.projections, kernels.ffn, kernels.add_norms,
            kernels.activations, kernels.reduced_bytes, kernels.experts,
        )  # fmt: skip
        if key not in self._fixed:
            self._fixed[key] = FixedCosts.of(kernels, config)
        return self._fixed[key]

    def _cached(self, kernels: BlockKernels) -> BlockCost:
        """New keys and values to who holds the cache, and those of earlier steps from there."""
        moved = kernels.kv_written_bytes + kernels.kv_cached_bytes
        time_s = kv_transfer_s(moved, self.config)
        energy = {"link": moved * _BITS * self.config.link_pj_per_bit}
        row = KernelTime(
            "keys and values", "link", time_s, "link", OperatorKind.COLLECTIVE, moved_bytes=moved,
            least_s=time_s,
        )  # fmt: skip
        return BlockCost({"communication": time_s}, {}, energy, {"link": time_s}, (row,))

    def beside(self, block: Block, device: XpuDevice) -> BlockCost:
        """Work beside the decoder blocks: tables, the last norm, what goes to the next stage."""
        found = BlockCost({}, {}, {}, {}, ())
        for each in block.operators:
            found = added(found, self._operator(each, device.whole.dtype_bytes))
        return found

    def _operator(self, operator: Operator, element_bytes: int) -> BlockCost:
        config = self.config
        if operator.kind is OperatorKind.COLLECTIVE:
            time_s, size = moved_between(
                _OPERATIONS[operator.collective], operator.output_bytes, config
            )
            row = KernelTime(
                operator.name, "link", time_s, "link", operator.kind, moved_bytes=size,
                least_s=time_s,
            )  # fmt: skip
            energy = {"link": size * _BITS * config.link_pj_per_bit}
            return BlockCost({"communication": time_s}, {}, energy, {"link": time_s}, (row,))
        if operator.kind is OperatorKind.GEMM:
            if not operator.m:
                return BlockCost({}, {}, {}, {}, ())
            elements = operator.n * operator.k * operator.count
            product = Product(
                operator.m, operator.n, operator.k, operator.count, element_bytes,
                per_element(operator.weight_bytes, elements),
            )  # fmt: skip
            return gemm_cost(operator.name, product, config)
        moved = operator.weight_bytes + operator.input_bytes + operator.output_bytes
        if not moved:
            return BlockCost({}, {}, {}, {}, ())
        kernel = config.xpu.add_norm
        cost = roofline.stream(moved, operator.flops, kernel, config.xpu)
        row = KernelTime(
            operator.name, "xpu", cost.time_s, cost.bound, operator.kind,
            moved_bytes=moved if kernel.bandwidth_share <= 1 else 0,
        )  # fmt: skip
        energy = {"memory": cost.memory_pj, "core": cost.core_pj}
        return BlockCost({"elementwise": cost.time_s}, {}, energy, {}, (row,))


def _check_reads(forward: ForwardPass, block: Block, unit: str) -> None:
    """Raises ``InputError`` where single tokens are to read latents beside the device."""
    single = any(entry.new_tokens == 1 for entry in forward.step.entries)
    values = [each for each in block.operators if each.kind is OperatorKind.ATTENTION_VALUE]
    if single and not all(each.kv_read_bytes for each in values):
        raise InputError(
            f"attention: {unit}; model {forward.model} keeps latents (MLA), of which keys and "
            "values are one: only attention on xpu reads them so"
        )
