"""Every number of AiM's presets moves a result: none is there for show."""

from __future__ import annotations

from functools import cache

import pytest
from stream_knobs import memory_knobs

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.aim_isr import isr_stream, parse_isr_trace
from pimsim.hardware.pim.designs.aim import gemv
from pimsim.hardware.pim.stream import peak_interval_cycles, run_stream

TRACES = [
    ["W MEM 0 0 0", "W MEM 0 1 0", "W MEM 0 4 0", "W MEM 0 0 1", "AiM RD_MAC 0 0x80000000"],
    ["R MEM 0 0 0", "R MEM 0 1 0", "W MEM 0 4 0", "W MEM 0 1 0", "R MEM 0 4 0"],
    ["R MEM 0 0 0", "AiM EWMUL 2 0x80000000 0", "AiM AF 0x80000000"],
    ["AiM WR_GB 64 0 0x80000000", "AiM RD_MAC 0 0x80000000", "AiM WR_GB 1 0 0x80000000"],
    ["AiM COPY_BKGB 2 1 0 0", "AiM COPY_GBBK 2 1 0 0", "AiM COPY_GBBK 2 1 4 1"],
    ["AiM WR_ABK 0 1 0", "AiM WR_ABK 0 1 1", "R MEM 31 0 0"],
    ["AiM RD_MAC 0 1", "AiM WR_BIAS 0 1", "AiM RD_MAC 0 1", "AiM WR_BIAS 0 1"],
    ["AiM MAC_ABK 2 1 0", "AiM MAC_SBK 2 1 0 0", "AiM MAC_SBK 2 1 1 0", "AiM EWMUL 2 1 0"],
    ["R MEM 0 0 0", "R MEM 0 0 1"],
    [*["W GPR 0"] * 9, "AiM RD_MAC 0 1"],
]


def outcome(*overrides: str) -> object:
    design = load_stream_pim("aim-refresh", overrides).config
    try:
        streams = [
            isr_stream(parse_isr_trace([*lines, "AiM EOC"], "t", design), design)
            for lines in TRACES
        ]
        streams.append(gemv(design, 16 * 33, 4096, 4, "af1"))
        results = [run_stream(design, stream) for stream in streams]
        peak = peak_interval_cycles(design)
    except InputError as error:
        return str(error)
    energy = [stream_energy_pj(design, result.commands) for result in results]
    return [result.cycles for result in results], energy, peak


@cache
def default() -> object:
    return outcome()


def knobs() -> list[tuple[str, float | str]]:
    design = load_stream_pim("aim-refresh").config
    found: list[tuple[str, float | str]] = []
    found += [(f"timings.{name}", cycles + 60) for name, cycles in design.timings.items()]
    found += memory_knobs("aim-refresh")
    found += [(f"energy_pj.{name}", pj + 1) for name, pj in design.energy_pj.items()]
    found += [
        ("capacities.global_buffer_bytes", 1024),
        ("capacities.activation_tables", 16384),
        ("controller.queue_depth", 1),
        ("controller.instructions_per_cycle", 0),
        ("controller.mode_switch", "null"),
        ("controller.refresh", "null"),
        ("memory.organization.channels", 16),
        ("memory.organization.columns", 32),
        ("memory.organization.burst_length", 32),
        ("element_bytes", 1),
        ("peak.interval", "CWL"),
    ]
    return found


@pytest.mark.parametrize(("key", "value"), knobs())
def test_it_moves_a_result(key: str, value: float | str) -> None:
    assert outcome(f"{key}={value}") != default()
