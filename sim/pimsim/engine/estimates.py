"""What is known of every block's time before any is simulated.

Blocks of a kind that differ do so in the experts that are hit or in the features that work. Both
are known of all blocks, as is where each expert would run; so their times differ by about what the
units need for that, of the memory at the rate that it sustains: a block whose experts wait for PIM
loses nothing to refresh of a stream, one that waits for weights does. It is no time of a block, but
what tells one from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pimsim.engine.device import Device
from pimsim.hardware.dram.sustained import sustained_share
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.mapping.experts import ExpertPlacement, together
from pimsim.workload.operators import Block

__all__ = ["block_estimates"]


def block_estimates(device: Device) -> Mapping[str, Mapping[int, int]]:
    """Estimated time of each block of the model, by kind and number, in ps.

    Only kinds whose blocks differ, and only where some of them are not simulated.

    Parameters
    ----------
    device
        With the blocks that are simulated, and the model's.

    Returns
    -------
    Mapping
        By kind and number of the block, ps; empty where all blocks are simulated or none differ.
    """
    work, whole = device.work, device.whole
    layers = sum(count for _, count in whole.model_blocks)
    # of a pipeline, stages have other blocks each even where all were simulated
    are_enough = whole.layers >= layers if whole.pp == 1 else whole.layers > layers
    if not work.differ or are_enough:
        return {}
    every = replace(work, layers=layers, _passes={})
    passes = tuple(every.forward(entries) for entries in device.entries)
    placements = [device.place(passes, part) for part in range(len(passes))]
    config = device.config
    share = sustained_share(config.memory)
    costs = ExpertCosts(config.npu, config.memory, config.pim, share, device.mapper.expert_runs)
    at_once = config.schedule.declared.at_once
    found: dict[str, dict[int, int]] = {}
    for at, number in enumerate(passes[0].layer_numbers):
        cycles = sum(
            _cycles(costs, forward.blocks[at], placed[at], at_once)
            for forward, placed in zip(passes, placements, strict=True)
        )
        kind = passes[0].blocks[at].kind
        found.setdefault(kind, {})[number] = cycles * 10**12 // config.npu.frequency
    return {kind: own for kind, own in found.items() if len(set(own.values())) > 1}


def _cycles(costs: ExpertCosts, block: Block, placed: ExpertPlacement | None, at_once: bool) -> int:
    """NPU cycles of a block's products, those of experts on PIM beside the others or after."""
    others = costs.beside(block, False)
    if placed is None:
        return others
    npu = sum(costs.on_npu(block, placed.tokens[expert]) for expert in placed.on_npu)
    if not placed.on_pim:
        return others + npu
    pim = sum(costs.on_pim(block, at_once, placed.tokens[expert]) or 0 for expert in placed.on_pim)
    return others + together(npu, pim, costs.stream_share(block) if at_once else None)
