"""Logic-PIM and its rivals: bandwidth, multipliers, and who wins at which Op/B."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.designs.logic_die import bundle_places, column_bytes, column_time_ps, gemv
from pimsim.hardware.pim.stream import peak_interval_cycles, run_stream
from pimsim.validate.duplex import bandwidth_gbps, rows
from pimsim.validate.types import References

NAMES = ("duplex", "duplex-bank-group", "duplex-bank")
OUTPUTS, INPUTS = 4096, 4096


def load(name: str, *overrides: str) -> PimDesignConfig:
    return load_stream_pim(name, overrides).config


def time_ps(design: PimDesignConfig, op_per_byte: int) -> int:
    """An FP16 product does one operation per byte and vector."""
    return run_stream(design, gemv(design, OUTPUTS, INPUTS, op_per_byte)).cycles * design.tCK


def test_figures_that_the_paper_states_follow_from_the_presets() -> None:
    data = Path(__file__).parents[1] / "data"
    found = list(rows(References(tables=data, folder=None)))
    assert len(found) == 7
    for row in found:
        # 650 MHz are 2.5 % short of one multiplication a tCCD_S, and 7.8 Op/B of 8
        assert abs(row.error) < 0.03, row


@pytest.mark.parametrize(
    ("name", "banks", "bundles"),
    [("duplex", 8, 4), ("duplex-bank-group", 8, 4), ("duplex-bank", 32, 1)],
)
def test_bundles_are_all_banks_of_a_pseudo_channel_once(
    name: str, banks: int, bundles: int
) -> None:
    design = load(name)
    assert column_bytes(design) == banks * design.organization.burst_bytes
    assert len(bundle_places(design)) == bundles
    assert (
        banks * bundles * design.organization.pseudo_channels == design.organization.channel_banks
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_peak_of_a_command_is_what_all_modules_of_a_channel_do_meanwhile(name: str) -> None:
    """A bound, so that it may be more by less than one multiplication, never less."""
    design = load(name)
    meanwhile_ps = peak_interval_cycles(design) * design.tCK
    modules = design.organization.pseudo_channels * design.capacities["macs_per_pseudo_channel"]
    macs = modules * meanwhile_ps / design.capacities["mac_clock_ps"]
    assert macs <= design.peak_macs < macs + 1


@pytest.mark.parametrize("name", NAMES)
def test_nobody_beats_the_bandwidth_or_the_multipliers(name: str) -> None:
    design = load(name)
    modules = design.organization.channels * design.organization.pseudo_channels
    for vectors in (1, 8, 24):
        read_ps = OUTPUTS * INPUTS * 2 / bandwidth_gbps(design) * 1000
        multiply_ps = (
            OUTPUTS
            * INPUTS
            * 2
            // column_bytes(design)
            // modules
            * column_time_ps(design, vectors)
        )
        assert time_ps(design, vectors) > max(read_ps, multiply_ps)


@pytest.mark.parametrize("name", ["duplex", "duplex-bank-group"])
def test_time_is_that_of_the_reads_up_to_op_per_byte_8_and_of_the_multipliers_beyond(
    name: str,
) -> None:
    design = load(name, "capacities.bundles=2")
    one, eight, sixteen, thirty_two = (time_ps(design, n) for n in (1, 8, 16, 32))
    assert one <= eight < 1.05 * one
    assert sixteen == pytest.approx(2 * eight, rel=0.06)
    assert thirty_two == pytest.approx(2 * sixteen, rel=0.04)


def test_two_bundles_hide_what_one_shows_of_row_changes() -> None:
    one, two = load("duplex"), load("duplex", "capacities.bundles=2")
    t, columns = one.all_timings, one.organization.columns
    row_change = t["tRCDRD"] + (columns - 1) * t["tCCD_L"] + t["tRTP"] + t["tRP"]
    refresh_share = 1 - t["tRFC"] / t["tREFI"]
    shares = [
        OUTPUTS * INPUTS * 2 / bandwidth_gbps(design) * 1000 / time_ps(design, 1)
        for design in (one, two)
    ]
    assert shares[0] == pytest.approx(columns * t["tCCD_L"] / row_change * refresh_share, rel=0.03)
    assert shares[1] == pytest.approx(refresh_share, rel=0.04)


@pytest.mark.parametrize("bundles", [1, 2])
def test_bank_pim_wins_up_to_op_per_byte_4_and_loses_from_8(bundles: int) -> None:
    """Figure 8: the bank's products are the better ones below a crossover between 4 and 8."""
    logic, bank = load("duplex", f"capacities.bundles={bundles}"), load("duplex-bank")
    for op_per_byte in (1, 2, 4):
        assert time_ps(bank, op_per_byte) < time_ps(logic, op_per_byte)
    for op_per_byte in (8, 16):
        assert time_ps(bank, op_per_byte) > time_ps(logic, op_per_byte)


def test_bank_group_pim_is_as_fast_as_logic_pim() -> None:
    for op_per_byte in (1, 4, 16):
        logic, group = (time_ps(load(n), op_per_byte) for n in ("duplex", "duplex-bank-group"))
        assert group == pytest.approx(logic, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("vectors", [1, 300])
def test_every_weight_vector_and_result_moves_as_often_as_it_must(name: str, vectors: int) -> None:
    design = load(name)
    commands = run_stream(design, gemv(design, OUTPUTS, INPUTS, vectors)).commands
    passes = -(-vectors * INPUTS * 2 // design.capacities["input_buffer_bytes"])
    assert commands["RDB"] * column_bytes(design) == passes * OUTPUTS * INPUTS * 2
    assert commands["RDI"] * column_bytes(design) >= vectors * INPUTS * 2
    assert commands["WRB"] * column_bytes(design) >= vectors * OUTPUTS * 2


def test_what_does_not_fit_is_refused() -> None:
    design = load("duplex")
    with pytest.raises(InputError, match="the input buffer holds 524288"):
        gemv(design, 4096, 600_000)
    with pytest.raises(InputError, match="rows of each bank in 1 of 4 bundles; there are 16384"):
        gemv(design, 65536, 65536)
    gemv(load("duplex", "capacities.bundles=4"), 8192, 65536)
    with pytest.raises(InputError, match=r"capacities\.bundles: found 5; allowed: 1 to 4"):
        gemv(load("duplex", "capacities.bundles=5"), 4096, 4096)
    with pytest.raises(InputError, match="duplex has no 'elementwise'"):
        mapping_of(design, "elementwise")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("commands.RDB.bank_block=3", r"bank_block: 3 banks of a bank group of 4"),
        ("commands.ACTB.bank_block=4", r"ACTB does not reach all banks of RDB"),
    ],
)
def test_a_block_that_is_no_part_of_a_bank_group_is_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("duplex", override)


def test_what_is_buffered_is_a_capacity_and_no_text_of_a_rule() -> None:
    """Rules of the same delay in other words take the same time; more buffered columns take more
    to be multiplied, where multiplying decides."""
    design = load("duplex")
    reworded = [
        rule.model_copy(update={"delay": "nBUFFER + 1 - 1"}) if rule.delay == "nBUFFER" else rule
        for rule in design.rules
    ]
    assert reworded != design.rules
    times = [
        time_ps(each, 24)
        for each in (
            design,
            design.model_copy(update={"rules": reworded}),
            load("duplex", "capacities.buffered_columns=32"),
        )
    ]
    assert times[0] == times[1] < times[2]
    with pytest.raises(InputError, match=r"capacities\.buffered_columns: found 0; design 'logic_"):
        gemv(load("duplex", "capacities.buffered_columns=0"), OUTPUTS, INPUTS)
