"""Where the tokens of a mixture of experts went, for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pimsim.result.types import Experts
from pimsim.workload.moe import DROPPED

if TYPE_CHECKING:
    from pimsim.engine.device import Device
    from pimsim.engine.xpu_device import XpuDevice

__all__ = ["expert_summary"]


def expert_summary(devices: Sequence[Device] | Sequence[XpuDevice]) -> Experts | None:
    """Over the simulated blocks with experts, of all steps; None where there are none.

    Parameters
    ----------
    devices
        At each step.
    """
    placements = [p for each in devices for part in each.experts for p in part if p is not None]
    if not placements:
        return None
    loads = [tokens for placed in placements for tokens in placed.tokens.values()]
    pairs = sum(loads)
    on_pim = sum(placed.pairs(placed.on_pim) for placed in placements)
    groups, dropped = [], 0
    for device in devices:
        routed = device.work.routed(range(len(device.whole.requests)))
        assert routed is not None
        placed = zip(device.whole.layer_numbers, device.experts[0], strict=True)
        for number in sorted({number for number, own in placed if own is not None}):
            groups.append(routed.group_tokens(number))
            dropped += int(np.sum(routed.whole(number) == DROPPED))
    return Experts(
        hit_mean=len(loads) / len(placements),
        tokens_mean=pairs / len(loads) if loads else 0.0,
        tokens_max=max(loads, default=0),
        on_pim_share=on_pim / pairs if pairs else 0.0,
        threshold_max=max(placed.threshold for placed in placements),
        dropped=dropped,
        device_imbalance=float(np.mean([_imbalance(group) for group in groups])),
    )


def _imbalance(tokens: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> float:
    return float(tokens.max() / tokens.mean()) if tokens.any() else 1.0
