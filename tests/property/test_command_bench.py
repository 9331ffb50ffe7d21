"""Every memory and PIM preset under random commands: the kernels' rules are those of plain Python,
which reads the YAML's lists."""

from __future__ import annotations

from random import Random

import pytest
from oracle.command_stream import Device
from oracle.dram_controller import Timing
from tests.command_bench import bench_of_design, bench_of_memory, place_of

from pimsim.config.loader import load_memory, load_pim
from pimsim.config.memory import CommandBusConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.rules import command_numbers

MEMORIES = [name for name in preset_names("memory") if name != "hbm2-onnxim"]
"""Interleaved halves of a channel cannot be channels of a device; test_channel_queues.py has it."""
DESIGNS = [name for name in preset_names("pim") if load_pim(name).config.controller is not None]
ROW_COMMANDS = ("activate", "precharge", "read", "write")
SENT = 120


@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_s_rules_are_those_of_its_list(name: str) -> None:
    memory = device_memory(load_memory(name).config)
    memory = memory.model_copy(update={"command_bus": CommandBusConfig()})
    bench, timing, draw = bench_of_memory(memory), Timing(memory), Random(name)
    numbers = command_numbers(memory, None)
    sent = [each for each, action in memory.commands.items() if action in ROW_COMMANDS]
    assert len(sent) == len(ROW_COMMANDS)
    waited = 0
    for _ in range(SENT):
        command, bank = draw.choice(sent), draw.randrange(bench.banks)
        at = bench.earliest(command, bank)
        assert timing.ready(numbers[command], bank, at)
        if at:
            assert not timing.ready(numbers[command], bank, at - 1)
        waited += at > bench.now
        cycle = bench.issue(command, max(at, bench.now) + draw.choice((0, 0, 3)), bank)
        timing.note(numbers[command], bank, cycle)
    assert waited > SENT // 10


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_s_rules_are_those_of_its_list(name: str) -> None:
    design = load_pim(name).config
    bench, plain, draw = bench_of_design(design), Device(design), Random(name)
    assert tuple(bench.commands) == tuple(design.all_commands)
    waited = 0
    for _ in range(SENT):
        command, bank = draw.choice(bench.commands), draw.randrange(bench.banks)
        place = place_of(bank, design.organization.counts)
        at = bench.earliest(command, bank)
        assert at == max(plain.earliest(command, place), 0)
        waited += at > bench.now
        cycle = bench.issue(command, max(at, bench.now) + draw.choice((0, 0, 3)), bank)
        plain.issue(command, place, 0, cycle)
    assert waited > SENT // 10
