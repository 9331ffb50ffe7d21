"""A design said in one file: an LPDDR5 whose neighbouring banks share a unit at half the rate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.oracle.stream_rules import broken_rules, reached

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.stream import peak_interval_cycles, run_stream

FILE = Path(__file__).parents[1] / "data" / "lpddr5-pim.yaml"
DESIGN = load_stream_pim(str(FILE)).config
T = DESIGN.all_timings
COLUMNS = 512 // 32
"""Of the buffer."""


def cycles(outputs: int, inputs: int, *overrides: str) -> int:
    design = load_stream_pim(str(FILE), overrides).config
    return run_stream(design, mapping_of(design, "gemv")(design, outputs, inputs, 1)).cycles


def test_banks_of_a_unit_take_turns_at_its_rate() -> None:
    """One row of each bank: the buffer, then twice a row's opening, columns and read."""
    loaded = (COLUMNS - 1) * T["nBL"]
    read = T["CL"] + T["nBL"]
    turn = T["tRCDRD"] + COLUMNS * T["nMAC"] + read
    # the first ACTM goes the cycle after the last WRB, the second when the host has seen the sums
    assert cycles(64, 256) == loaded + 1 + turn + 1 + turn
    stream = mapping_of(DESIGN, "gemv")(DESIGN, 64, 256, 1)
    commands = run_stream(DESIGN, stream).commands
    assert commands == {
        name: 4 * count
        for name, count in {"ACTM": 2, "MAC": 2 * COLUMNS, "WRB": COLUMNS, "RDM": 2}.items()
    }
    assert stream_energy_pj(DESIGN, commands) == {
        "activate": 4 * 2 * 8 * 400, "mac": 4 * 2 * COLUMNS * 8 * 120,
        "move": 4 * (COLUMNS + 2) * 300,
    }  # fmt: skip


def test_its_rate_and_its_multipliers_are_in_one_place() -> None:
    assert DESIGN.banks_reached("MAC") == 8
    assert DESIGN.peak_macs == 8 * 16
    assert peak_interval_cycles(DESIGN) == 2 * T["tCCD_L"]
    assert DESIGN.multipliers(DESIGN.memory) == 4 * 8 * 16
    own = ["banks_per_unit=1"]
    one_each = load_stream_pim(str(FILE), own).config
    assert one_each.multipliers(one_each.memory) == 4 * 16 * 16
    assert one_each.banks_reached("MAC") == 16
    assert one_each.peak_macs == 16 * 16


def test_a_unit_of_each_bank_at_full_rate_is_faster_by_what_it_saves() -> None:
    shared, half = cycles(640, 256), cycles(640, 256, "timings.nMAC=4")
    macs = 2 * 10 * COLUMNS  # both banks of a unit, ten rows of each bank
    assert shared - half == macs * 4
    alone = cycles(640, 256, "banks_per_unit=1", "rules={drop: [{delay: 2 * tFAW}]}")
    assert alone < 0.6 * shared


def test_a_smaller_buffer_takes_more_pieces() -> None:
    def sent(*overrides: str) -> dict[str, int]:
        design = load_stream_pim(str(FILE), overrides).config
        return run_stream(design, mapping_of(design, "gemv")(design, 64, 1024, 1)).commands

    whole, quarter = sent(), sent("capacities.global_buffer_bytes=128")
    assert whole["WRB"] == quarter["WRB"] == 4 * 1024 // 16
    assert whole["MAC"] == quarter["MAC"]
    assert quarter["RDM"] == 4 * whole["RDM"] == 4 * 4 * 2 * 4
    assert sent("capacities.global_buffer_bytes=32")["RDM"] == 16 * whole["RDM"]  # one column


def test_every_command_keeps_every_rule() -> None:
    assert reached(DESIGN, "MAC", (0, 0, 2, 3), 4) == {
        (0, 0, group, bank) for group in (2,) for bank in (1, 3)
    } | {(0, 0, group, bank) for group in range(4) for bank in (1, 3)}
    stream = mapping_of(DESIGN, "gemv")(DESIGN, 3000, 700, 1)
    result = run_stream(DESIGN, stream, log=True)
    assert result.commands["REF"] > 0
    for log in result.log:
        assert list(broken_rules(DESIGN, log)) == []


@pytest.mark.parametrize(
    ("old", "new", "said", "line"),
    [
        ("global_buffer_bytes: 512", "global_buffer_bytes: 31",
         "capacities.global_buffer_bytes: 31 bytes hold less than one operand, a column of 32",
         "capacities: {"),
        ("memory: lpddr5-6400",
         "memory: {extends: lpddr5-6400, organization: {bus_width_bits: 8, burst_length: 4}}\n"
         "element_bytes: 8", "element_bytes: 8; a column of lpddr5-6400 has 4 bytes",
         "element_bytes: 8"),
        ("memory: lpddr5-6400", "memory: ddr4-3200", "rules.0.delay: no timing 'nACT'",
         "- {level: channel, first: [ACTM], then: [ACTM, PREM, PREA"),
        ("- {level: bank, first: [MAC]", "- {level: bnk, first: [MAC]",
         "rules.10.level: unknown level 'bnk'; did you mean 'bank'?", "- {level: bnk"),
        ("  PREM: {", "  ACTX: {bus: row, effect: open}\n  PREM: {",
         "commands.ACTX: nothing closes the rows that it opens", "ACTX:"),
        ("precharge: PREM, ", "", "commands.MAC.precharge is missing; row 'open' needs it", "MAC:"),
        ("effect: close, broadcast: [bank_group, unit]", "effect: close, broadcast: [bank_group]",
         "commands.MAC.precharge: PREM does not reach all banks of MAC", "MAC:"),
        ("banks_per_unit: 2", "banks_per_unit: 3",
         "banks_per_unit: 3 banks a unit do not divide the 4 banks", "banks_per_unit"),
        ("PREM: {bus: row, effect: close, broadcast: [bank_group, unit]",
         "PREM: {bus: row, effect: close, broadcast: [bank_group, unti]",
         "commands.PREM.broadcast.1: unknown level 'unti'; did you mean 'unit'?", "PREM:"),
        ("multiply: MAC", "multiply: MAK",
         "gemv.multiply: unknown command 'MAK'; did you mean 'MAC'", "gemv:"),
        ("- {level: rank, first: [PREA], then: [ACTM, REF], delay: tRP}",
         "- {level: rank, first: [PREA], then: [ACTM], delay: tRP}",
         "no rule says when REF may follow PREA: a bank is precharged first", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_with_file_and_line(
    old: str, new: str, said: str, line: str, tmp_path: Path
) -> None:
    changed = FILE.read_text().replace(old, new)
    assert changed != FILE.read_text()
    (tmp_path / "mine.yaml").write_text(changed)
    with pytest.raises(InputError) as refusal:
        load_stream_pim(str(tmp_path / "mine.yaml"))
    message = str(refusal.value)
    found = re.search(r"mine\.yaml:(\d+): (.*)", message)
    assert found is not None
    assert found[2].startswith(said)
    assert changed.splitlines()[int(found[1]) - 1].strip().startswith(line)


def test_a_product_that_the_commands_cannot_do_is_refused() -> None:
    def refused(*overrides: str) -> str:
        with pytest.raises(InputError) as refusal:
            cycles(64, 256, *overrides)
        return str(refusal.value)

    wide = [f"commands.{name}.broadcast=[bank_group, bank]" for name in ("ACTM", "PREM", "MAC")]
    assert "MAC multiplies in 16 banks of a rank at once, which has 8 units" in refused(*wide)
    few = [f"commands.{name}.broadcast=[bank_group]" for name in ("ACTM", "PREM", "MAC")]
    assert (
        "MAC reaches 4 of a channel's 16 banks; design 'bank_units' has 8 work at once"
        in refused(*few)
    )
    assert "key gemv is missing" in refused("gemv=null")
    assert "capacities.global_buffer_bytes" in refused("capacities.global_buffer_bytes=0")
