"""What memories and designs are compiled to: when commands may follow one another, where addresses
lie, what commands cost, peaks and powers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cases import values
from facts import facts, number_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BURSTS = np.array([0, 1, 2, 3, 5, 31, 64, 127, 1000, 4097, 65537, 123456, 1234567, 9876543])


def _memories() -> Iterator[tuple[str, object]]:
    from pimsim.config.loader import load_memory
    from pimsim.config.resources import preset_names

    for name in sorted(preset_names("memory")):
        yield name, load_memory(name).config


def _places(bench: object) -> list[tuple[str, int]]:
    """Banks from the nearest to the first: the same one, and those ever further away."""
    banks = bench.banks  # type: ignore[attr-defined]
    found = [("same", 0)]
    at = 1
    while at < banks:
        found.append((f"bank {at}", at))
        at *= 2
    return found


def _earliest(make: object) -> Iterator[str]:
    """After each command at bank 0, when each other may go, by how far away it is."""
    names = make().commands  # type: ignore[operator]
    for first in names:
        bench = make()  # type: ignore[operator]
        try:
            at = bench.issue(first, 0, bank=0)
        except (ValueError, AssertionError, KeyError):
            continue
        for where, bank in _places(bench):
            waits = [(then, bench.earliest(then, bank=bank) - at) for then in names]
            row = [f"{then} {wait}" for then, wait in waits if wait > 0]
            if row:
                yield f"{first}, {where}: {', '.join(row)}"


def _compiled(memory: Any) -> Iterator[str]:
    """Delays at each level, of a controller that has no bench of its own."""
    from pimsim.hardware.dram.rules import Command, compile_rules

    tables = compile_rules(memory, None)
    for command in Command:
        for level in range(tables.first.shape[1] - 1):
            rows = tables.rules[slice(*tables.first[command, level : level + 2])]
            if len(rows):
                delays = ", ".join(f"{Command(row[1]).name} {row[2]}" for row in rows.tolist())
                yield f"{command.name}, level {level}: {delays}"
    yield from facts(tables.windows, "windows")


@values("tables/earliest-memory")
def _earliest_memory() -> Iterator[str]:
    from command_bench import bench_of_memory

    for name, memory in _memories():
        yield f"=== {name}"
        if memory.controller.model == "bank-queues":  # type: ignore[attr-defined]
            yield from _earliest(lambda memory=memory: bench_of_memory(memory))
        else:
            yield from _compiled(memory)


@values("tables/earliest-designs")
def _earliest_designs() -> Iterator[str]:
    from command_bench import bench_of_design, bench_of_memory

    from pimsim.config.loader import load_memory, load_pim
    from pimsim.config.resources import preset_names

    for name in sorted(preset_names("pim")):
        design = load_pim(name).config
        yield f"=== {name}"
        if design.controller is not None:
            yield from _earliest(lambda design=design: bench_of_design(design))
        elif isinstance(design.memory, str):
            memory = load_memory(design.memory).config
            yield from _earliest(lambda m=memory, d=design: bench_of_memory(m, d))
        else:
            memory = design.memory
            yield from _earliest(lambda m=memory, d=design: bench_of_memory(m, d))


@values("tables/addresses")
def _addresses() -> Iterator[str]:
    from pimsim.hardware.dram.address import AddressMap

    for name, memory in _memories():
        for key in ("address_map", "stream_map"):
            found = AddressMap.parse(getattr(memory, key), memory.organization)
            at = found.decode(BURSTS)
            yield f"=== {name} {key} {getattr(memory, key)}"
            yield from facts(at, "at")
            yield from facts([found.below(int(one)).tolist() for one in BURSTS], "below")
            yield from facts(list(found.vector), "vector")


@values("tables/costs")
def _costs() -> Iterator[str]:
    from pimsim.config.loader import load_energy
    from pimsim.hardware.dram.peak import (
        burst_slot_ps,
        column_clocks,
        data_buses,
        peak_bytes_per_s,
    )
    from pimsim.hardware.dram.sustained import sustained_share
    from pimsim.hardware.energy.dram import command_energy
    from pimsim.hardware.energy.static import dram_peak_w, peak_gb_per_s, refresh_w, standby_w

    for name, memory in _memories():
        yield f"=== {name}"
        for label in ("default", "pj-per-bit"):
            energy = load_energy(label).config
            yield from facts(command_energy(memory, energy), f"energy {label}")
            yield from facts(list(standby_w(memory, energy)), f"standby_w {label}")
            yield f"refresh_w {label} = {number_text(refresh_w(memory, energy))}"
            peaks = [dram_peak_w(memory, energy, buffers) for buffers in (1, 2)]
            yield from facts(peaks, f"peak_w {label}")
        yield f"column clocks = {column_clocks(memory)}, {column_clocks(memory, 'write')}"
        yield f"data buses = {data_buses(memory)}, a burst in {burst_slot_ps(memory)} ps"
        yield f"peak = {number_text(peak_bytes_per_s(memory))} B/s"
        yield f"peak = {number_text(peak_gb_per_s(memory))} GB/s"
        yield f"sustained = {sustained_share(memory)}"


@values("tables/powers")
def _powers() -> Iterator[str]:
    from pimsim.config.loader import load_area, load_run
    from pimsim.config.resources import preset_names
    from pimsim.hardware.area import device_area
    from pimsim.hardware.energy.static import device_static, static_words

    for name in sorted(preset_names("hardware")):
        config = load_run(name).config
        yield f"=== {name}"
        area = device_area(config.npu, config.memory, config.pim, load_area().config)
        yield from facts(area, "area")
        yield f"area.total = {number_text(area.total)}"
        found = device_static(config.npu, config.memory, config.pim, config.link, config.energy)
        yield from facts(found.by_part(), "static_w")
        yield from facts(
            static_words(config.npu, config.memory, config.pim, config.link, config.energy), "words"
        )
