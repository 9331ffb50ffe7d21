"""What was decided about one block of a (sub-)batch."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.experts import ExpertPlacement
from pimsim.mapping.linear_kv import LinearLayout

__all__ = ["BlockPlacement"]


@dataclass(frozen=True)
class BlockPlacement:
    """Where the requests and the experts of one block are."""

    part: int
    """Number of the (sub-)batch."""
    layer: int
    """Number of the simulated block."""
    members: tuple[int, ...]
    """Indices into the batch."""
    channel: tuple[int, ...]
    """Channel of each member."""
    shape: AttentionShape | None
    """Of the cache in PIM's layout; None: it is linear, all attention is on the NPU."""
    linear: LinearLayout | None = None
    """Of a linear cache; None: it is in PIM's layout, or there is none."""
    in_design: bool = False
    """A PIM design with a controller of its own attends to the linear cache."""
    experts: ExpertPlacement | None = None
    pim_tokens: int = 1
    """Most new tokens of a request that attends on PIM."""
