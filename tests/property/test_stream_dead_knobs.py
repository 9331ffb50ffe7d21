"""Every number of HBM-PIM's and Duplex's presets moves a result: none is there for show."""

from __future__ import annotations

from functools import cache

import pytest
from stream_knobs import memory_knobs

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.host_traffic import host_traffic
from pimsim.hardware.pim.stream import CommandStream, run_stream

PRESETS = ("hbm-pim", "duplex", "duplex-bank-group", "duplex-bank")

SET_BY_THE_OPERATION = {"nCOLUMN", "nBUFFER"}
ADDRESSES = {"park_row", "register_row"}
"""Rows that must only be other rows than those of operands."""
LIMITS = {
    "crf_instructions": 1, "crf_loop_count": 1, "weight_rows": 1,
    "result_buffer_bytes": 64, "input_buffer_bytes": 64,
}  # fmt: skip
"""They bind when they are small."""


def _streams(design: PimDesignConfig) -> list[CommandStream]:
    gemv = mapping_of(design, "gemv")
    # two passes, done before the first refresh, where there is an input buffer
    few, many = (512, 5) if design.design == "hbm_pim" else (32, 66)
    streams = [gemv(design, 16384, 1024, 1), gemv(design, few, 8192, many)]
    if design.design == "hbm_pim":
        streams.append(mapping_of(design, "elementwise")(design, "add", 600_000))
        size = 1 << 21
        streams.append(host_traffic(design, [("RD", 0, size), ("WR", size, size)], [0, 0]))
    return streams


def outcome(preset: str, *overrides: str) -> object:
    design = load_stream_pim(preset, overrides).config
    try:
        results = [run_stream(design, stream) for stream in _streams(design)]
    except InputError as error:
        return str(error)
    return [(r.cycles, r.commands, stream_energy_pj(design, r.commands)) for r in results]


@cache
def default(preset: str) -> object:
    return outcome(preset)


def knobs(preset: str) -> list[tuple[str, str, float]]:
    design = load_stream_pim(preset).config
    found: list[tuple[str, str, float]] = []
    for name, cycles in design.timings.items():
        if name not in SET_BY_THE_OPERATION:
            found.append((preset, f"timings.{name}", 3 * cycles + 300))
    found += [(preset, key, value) for key, value in memory_knobs(preset)]
    for name, value in design.capacities.items():
        if name not in ADDRESSES:
            changed = LIMITS.get(name, 2 * value if name != "crf_per_burst" else 1)
            found.append((preset, f"capacities.{name}", changed))
    found += [(preset, f"energy_pj.{name}", pj + 1) for name, pj in design.energy_pj.items()]
    found.append((preset, "controller.queue_depth", 4))
    return found


@pytest.mark.parametrize(
    ("preset", "key", "value"), [knob for preset in PRESETS for knob in knobs(preset)]
)
def test_it_moves_a_result(preset: str, key: str, value: float) -> None:
    assert outcome(preset, f"{key}={value}") != default(preset)
