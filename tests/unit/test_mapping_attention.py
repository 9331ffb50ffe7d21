"""Vector work behind attention on PIM: what a head, and in the artifact a tile of it, waits for."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.config.loader import load_memory, load_npu_of, load_pim
from pimsim.hardware.dram.layout import P_MARK, P_OP
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import ResultWork
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.attention import NOTHING, AttentionBatch, value_work

CONTEXTS = (1024, 512)
"""The first takes two rows a tile, the second one."""
HEADS, HEAD_DIM, BYTES = 2, 128, 2
TILES = 4
"""Of 32 banks in a head of 128."""


def values(pim: str, memory: str, preset: str) -> tuple[list[np.ndarray], int, ResultWork]:
    design, dram = load_pim(pim).config, load_memory(memory).config
    shape = AttentionShape.of(HEADS, HEADS, HEAD_DIM, dram, design, BYTES)
    rows = tuple(
        KvRows.from_row(first, shape.kv_sections, context)
        for first, context in zip((0, 200), CONTEXTS, strict=True)
    )
    batch = AttentionBatch(shape, rows, CONTEXTS, (0, 1))
    programs, marks, after = value_work(batch, 0, dram, design, load_npu_of(preset).vector, BYTES)
    return [written_out(program) for program in programs], marks, after


@pytest.mark.parametrize(
    ("pim", "preset"),
    [
        ("neupims-artifact", "neupims-artifact-main"),
        ("newton-artifact", "neupims-artifact-npu-pim"),
    ],
)
def test_the_artifact_adds_and_stores_a_tile_at_a_time(pim: str, preset: str) -> None:
    programs, marks, after = values(pim, "hbm2-neupims-artifact", preset)
    assert marks == len(CONTEXTS) * HEADS * TILES == len(after.duration)
    # each tile stores as much as the whole head has: 128 elements, four bursts
    assert after.bursts.tolist() == [4] * 8 + [0] * 8
    assert after.output_bytes == HEADS * TILES * HEAD_DIM * BYTES
    assert after.duration.tolist() == [0] * 8 + [NOTHING] * 8
    assert after.channel.tolist() == [0] * 8 + [1] * 8
    read = programs[0][programs[0][:, P_MARK] >= 0][:, P_MARK].tolist()
    # head by head, both chunks of its four tiles
    assert read == [*range(4), *range(4), *range(4, 8), *range(4, 8)]
    assert programs[1][programs[1][:, P_MARK] >= 0][:, P_MARK].tolist() == [*range(8, 16)]


def test_a_device_adds_a_head_at_a_time_and_stores_nothing() -> None:
    programs, marks, after = values("neupims", "hbm2-neupims", "neupims")
    assert marks == len(CONTEXTS) * HEADS
    assert after.bursts.tolist() == [0] * 4
    assert after.duration.tolist() == [1, 1, NOTHING, NOTHING]
    read = programs[0][programs[0][:, P_MARK] >= 0]
    assert read[:, P_MARK].tolist() == [0] * 8 + [1] * 8
    assert set(read[:, P_OP].tolist()) == {int(Command.GEMV)}
