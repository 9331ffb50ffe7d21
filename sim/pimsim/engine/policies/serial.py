"""One unit after the other, attention wherever it was mapped: the NPU-only machine."""

from __future__ import annotations

from collections.abc import Generator

from pimsim.engine.policies import Machine, Stage

__all__ = ["stages"]


def stages(machine: Machine) -> Generator[Stage, None, None]:
    """A: norm and QKV. B: attention. E: projection to the end of the block, beside it the
    experts that run on PIM."""
    for layer in range(machine.layers):
        block = machine.block(0, layer)
        yield "A", block.qkv, ()
        on_pim = [task for task in block.attention if task.unit == "pim"]
        yield "B", [task for task in block.attention if task.unit != "pim"], on_pim
        yield "E", block.rest, block.experts
