"""HBM-PIM's kernels: programs and requests fit each other, what it cannot do is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.designs.hbm_pim import (
    Instruction,
    elementwise,
    elementwise_program,
    gemv,
    gemv_program,
    steps,
)
from pimsim.hardware.pim.host_traffic import host_traffic
from pimsim.hardware.pim.stream import CommandStream, run_stream


@pytest.fixture(scope="module")
def design() -> PimDesignConfig:
    return load_stream_pim("hbm-pim").config


def stepping(design: PimDesignConfig, stream: CommandStream) -> int:
    """Accesses that step the PIM blocks' program: those of rows that can hold operands."""
    names = list(design.all_commands)
    in_pim = np.isin(stream.entries[:, 0], [names.index("RD_AB"), names.index("WR_AB")])
    return int((in_pim & (stream.entries[:, 6] < design.capacities["weight_rows"])).sum())


def test_a_jump_goes_back_as_often_as_it_says() -> None:
    program = (
        Instruction("MAC", 0, 8),
        Instruction("JUMP", repeat=2, offset=1),
        Instruction("NOP", repeat=3),
        Instruction("EXIT"),
    )
    assert steps(program) == 3 * 8 + 3


@pytest.mark.parametrize("inputs", [16, 128, 129, 256, 640, 4096])
@pytest.mark.parametrize(("outputs", "batch"), [(4096, 1), (4097, 3)])
def test_a_gemv_steps_its_program_once_for_each_tile_and_vector(
    design: PimDesignConfig, outputs: int, inputs: int, batch: int
) -> None:
    tiles = -(-outputs // 4096)
    each = steps(gemv_program(design, -(-inputs // 128)))
    assert stepping(design, gemv(design, outputs, inputs, batch)) == tiles * batch * each


@pytest.mark.parametrize("function", ["add", "multiply", "relu"])
@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_elementwise_steps_its_program_to_the_end(
    design: PimDesignConfig, function: str, tiles: int
) -> None:
    stream = elementwise(design, function, tiles * 131072 - 1)
    assert stepping(design, stream) == steps(elementwise_program(design, function, tiles))


def test_every_weight_is_read_once_a_vector(design: PimDesignConfig) -> None:
    result = run_stream(design, gemv(design, 8192, 1024, 2))
    per_read = 8 * design.organization.burst_bytes
    assert design.all_commands["RD_AB"].drives == 8
    assert result.commands["RD_AB"] * per_read == 2 * 8192 * 1024 * 2


def test_cycles_grow_with_tiles_and_vectors(design: PimDesignConfig) -> None:
    def cycles(*size: int) -> int:
        return run_stream(design, gemv(design, *size)).cycles

    assert cycles(1024, 1024) == cycles(4096, 1024) < cycles(4097, 1024)
    assert cycles(4096, 1000) == cycles(4096, 1024) < cycles(4096, 1025)
    assert cycles(4096, 1024, 1) < cycles(4096, 1024, 2)


def test_rows_beyond_those_for_operands_are_refused(design: PimDesignConfig) -> None:
    with pytest.raises(InputError, match="rows of each bank; 4096 can be operands"):
        gemv(design, 131072, 32768)
    with pytest.raises(InputError, match="rows of each bank"):
        elementwise(design, "add", 2**30)


def test_what_it_has_no_instruction_for_is_refused(design: PimDesignConfig) -> None:
    with pytest.raises(InputError, match=r"no 'softmax'; .*add, multiply, relu"):
        elementwise(design, "softmax", 1024)
    with pytest.raises(InputError, match="hbm-pim has no 'attention'"):
        mapping_of(design, "attention")


def test_a_program_longer_than_the_crf_is_refused(design: PimDesignConfig) -> None:
    few = {**design.capacities, "crf_instructions": 4}
    with pytest.raises(InputError, match="the CRF holds 4"):
        gemv(design.model_copy(update={"capacities": few}), 4096, 256)


def test_host_traffic_covers_every_burst_once(design: PimDesignConfig) -> None:
    stream = host_traffic(design, [("RD", 0, 100_000), ("WR", 100_032, 5_000)], [0, 1])
    result = run_stream(design, stream)
    assert result.commands["RD"] == 100_000 // 32
    assert result.commands["WR"] == -(-(100_032 + 5_000) // 32) - 100_032 // 32
    assert sum(stream.copies) == design.organization.channels


def test_host_traffic_does_not_reach_the_peak_nor_beat_it(design: PimDesignConfig) -> None:
    size = 1 << 23
    cycles = run_stream(design, host_traffic(design, [("RD", 0, size)], [0])).cycles
    org, times = design.organization, design.all_timings
    least = size // org.burst_bytes // org.channels * times["nBL"]
    assert least < cycles < 1.2 * least


@pytest.mark.parametrize("name", ["hbm-pim", "duplex"])
@pytest.mark.parametrize("override", ["dtype=bf16", "element_bytes=1"])
def test_other_number_formats_are_refused(name: str, override: str) -> None:
    other = load_stream_pim(name, [override]).config
    with pytest.raises(InputError, match="fp16 of 2 bytes"):
        mapping_of(other, "gemv")(other, 64, 64, 1)


def test_host_traffic_needs_an_address_map_that_fits(design: PimDesignConfig) -> None:
    with pytest.raises(InputError, match="must hold each of ro, ra, bg, ba, ch, co"):
        load_stream_pim("hbm-pim", ["memory.address_map=rarocobgba"])
    with pytest.raises(InputError, match=r"memory.organization\.channels is 48"):
        load_stream_pim("hbm-pim", ["memory.organization.channels=48"])
    with pytest.raises(InputError, match=r"duplex: a host's traffic needs controller\.order"):
        host_traffic(load_stream_pim("duplex").config, [("RD", 0, 64)], [0])
    odd = load_stream_pim("hbm-pim", ["memory.organization.channels=32"]).config
    assert (
        run_stream(odd, gemv(odd, 2048, 256)).cycles
        == run_stream(design, gemv(design, 4096, 256)).cycles
    )
