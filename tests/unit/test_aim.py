"""AiM's host instructions and mappings, as formulas over its timing names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.command_bench import bench_of_design

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.hardware.pim.aim_isr import isr_stream, parse_isr_trace, read_isr_trace
from pimsim.hardware.pim.designs.aim import elementwise, gemv
from pimsim.hardware.pim.stream import StreamResult, run_stream

AIM = load_stream_pim("aim").config
T = AIM.all_timings
HOST_SEES_END = 2
ROW_TURN = T["tRTP"] + T["tRP"]


def run(*lines: str) -> StreamResult:
    isrs = parse_isr_trace([*lines, "AiM EOC"], "trace", AIM)
    return run_stream(AIM, isr_stream(isrs, AIM))


@pytest.mark.parametrize("columns", [1, 2, 64])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_all_bank_mac_rows(columns: int, rows: int) -> None:
    row = T["nRCDRDMAC"] + T["tCCD_L"] * (columns - 1)
    again = max(row + T["tRTP"], T["tRAS"]) + T["tRP"]
    again = max(again, T["tRC"])
    result = run(*(f"AiM MAC_ABK {columns} 0xffffffff {row}" for row in range(rows)))
    assert result.cycles == (rows - 1) * again + row + 1 + HOST_SEES_END
    assert result.commands["MAC16"] == 32 * rows * columns
    assert result.commands["ACT16"] == 32 * rows


def test_register_commands_switch_the_mode_once_each_way() -> None:
    result = run("AiM WR_BIAS 0 1", "AiM RD_MAC 0 1", "AiM MAC_ABK 1 1 0", "AiM RD_MAC 0 1")
    read = T["nMODCH"] + T["nCWLREG"] + T["nBL"] + T["tWTR_L"]
    answer = read + T["nCLREG"] + T["nBL"] + 1
    mac = answer + T["nMODCH"] + T["nRCDRDMAC"]
    last = mac + T["tCCD_L"] + T["nMODCH"] + T["nCLREG"] + T["nBL"]
    # the host sends the end of the trace a cycle after it has the answer
    assert result.cycles == last + 1 + HOST_SEES_END
    assert result.commands["TMOD"] == 3


def test_activation_functions_are_rows_of_their_own() -> None:
    same = run("W CFR 2 1", "AiM AF 1", "W CFR 2 1", "AiM AF 1")
    other = run("W CFR 2 1", "AiM AF 1", "W CFR 2 2", "AiM AF 1")
    assert (same.commands["ACT16"], other.commands["ACT16"]) == (1, 2)


def test_channels_are_counted_from_the_top_of_the_mask() -> None:
    assert run("AiM MAC_ABK 3 0x80000000 0").channel_commands[0]["MAC16"] == 3
    assert run("AiM MAC_ABK 3 0x1 0").channel_commands[0]["MAC16"] == 0
    assert run("W MEM 0 2 8").channel_commands[0]["WR"] == 1


def test_the_queue_holds_one_kind_of_command_at_a_time() -> None:
    """The host cannot go on to other channels while one has plain writes to get rid of."""
    free = run("W MEM 0 0 0", "AiM MAC_ABK 1 0x7fffffff 0")
    held = run("W MEM 0 0 0", "AiM MAC_ABK 1 0xffffffff 0", "AiM MAC_ABK 1 0x7fffffff 0")
    assert held.cycles > free.cycles + T["tRCDWR"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("AiM MAC_ABC 1 1 0", r"trace:1: AiM has no 'MAC_ABC'; did you mean 'MAC_ABK'\?"),
        ("AiM MAC_ABK 1 1", r"takes 3 fields \(opsize mask row\), found 2"),
        ("AiM MAC_ABK 65 1 0", "opsize: found 65; allowed: 0 to 64"),
        ("AiM MAC_ABK 1 0 0", "channel mask: found 0x0"),
        ("AiM MAC_ABK 1 0x100000000 0", "channel mask: found 0x100000000"),
        ("AiM WR_ABK 0 3 0", "takes a mask of one channel"),
        ("AiM MAC_SBK 1 1 16 0", "bank: found 16; allowed: 0 to 15"),
        ("AiM MAC_ABK 1 1 16376", "row: found 16376; allowed: 0 to 16375"),
        ("AiM MAC_ABK one 1 0", "opsize: found 'one'; a whole number"),
        ("AiM MAC_ABK -1 1 0", "opsize: found -1"),
        ("R MEM 32 0 0", "channel: found 32"),
        ("W CRF 0 1", r"W has no 'CRF'; did you mean 'CFR'\?"),
        ("W CFR 3 1", "register: found 3"),
        ("aim MAC_ABK 1 1 0", r"found 'aim'; did you mean 'AiM'\?"),
        ("AiM", "nothing follows 'AiM'"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(line)


def test_a_trace_ends_with_eoc_and_may_have_comments(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_text("# all\n\n  AiM ISR_SYNC # here\nAiM EOC\nnot read\n")
    assert [isr.opcode for isr in read_isr_trace(path, AIM)] == ["SYNC", "EOC"]
    path.write_text("AiM SYNC\n")
    with pytest.raises(InputError, match="no 'AiM EOC'"):
        read_isr_trace(path, AIM)
    with pytest.raises(InputError, match="no such file"):
        read_isr_trace(tmp_path / "none", AIM)


def test_gemv_writes_the_vector_once_for_all_outputs() -> None:
    result = run_stream(AIM, gemv(AIM, 32 * 16 * 3, 1024 + 512))
    assert result.commands == {
        "ACT16": 32 * 6,
        "PREA": 32 * 5,
        "WRGB": 32 * (64 + 32),
        "WRMAC16": 32 * 6,
        "MAC16": 32 * 3 * (64 + 32),
        "RDMAC16": 32 * 6,
        # to registers, and for each row to the banks and back
        "TMOD": 32 * (1 + 2 * 6),
    }


def test_gemv_with_an_activation_reads_activated_outputs_of_the_last_piece() -> None:
    counts = run_stream(AIM, gemv(AIM, 16, 2048, 1, "af3")).commands
    assert (counts["RDMAC16"], counts["RDAF16"], counts["AF16"]) == (1, 1, 1)
    assert counts["ACT16"] == 3


def test_gemv_shares_outputs_over_channels() -> None:
    few = run_stream(AIM, gemv(AIM, 16 * 33, 1024))
    assert sum(few.copies) == 32
    assert [counts["MAC16"] for counts in few.channel_commands] == [128, 64]
    assert run_stream(AIM, gemv(AIM, 17, 16)).copies == (2,)


def test_multiply_takes_a_column_of_each_bank_group() -> None:
    each = 4 * 16
    result = run_stream(AIM, elementwise(AIM, "multiply", 32 * each * 65))
    assert result.commands["EWMUL16"] == 32 * 65
    assert result.commands["ACT16"] == 32 * 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gemv(AIM, 32 * 16 * 16377, 1), "takes 16377 rows of each bank; there are 16376"),
        (lambda: gemv(AIM, 16, 16, 1, "relu"), "no activation function 'relu'"),
        (lambda: elementwise(AIM, "add", 16), "no activation function 'add'"),
        (lambda: elementwise(AIM, "multiply", 32 * 64 * 64 * 16377), "takes 16377 rows"),
    ],
)
def test_what_aim_cannot_do_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def test_refresh_costs_its_share() -> None:
    """Each refresh takes tRFC, and a row turn where no turn was due anyway."""
    refreshed = load_stream_pim("aim-refresh").config
    plain, with_it = (run_stream(d, gemv(d, 8192, 8192)) for d in (AIM, refreshed))
    rounds = with_it.commands["REFab"] // 32
    assert rounds == with_it.cycles // refreshed.all_timings["tREFI"]
    cost = (with_it.cycles - plain.cycles) / rounds
    assert T["tRFC"] < cost < T["tRFC"] + ROW_TURN + T["nRCDRDMAC"]


def test_a_chip_of_two_channels_is_the_published_one() -> None:
    """1 TFLOPS and 1 TB/s inside a chip, 32 GFLOPS a bank (ISSCC 2022; IANUS table 1)."""
    assert AIM.peak is not None
    seconds = T["tCCD_L"] * AIM.tCK * 1e-12
    assert 2 * 2 * AIM.peak_macs / seconds == pytest.approx(1.024e12)
    assert 2 * AIM.peak_macs / 16 / seconds == pytest.approx(32e9)
    banks, column = AIM.organization.channel_banks, AIM.organization.burst_bytes
    assert 2 * banks * column / seconds == pytest.approx(1.024e12)
    assert AIM.peak_macs == banks * column // AIM.element_bytes
    assert AIM.organization.capacity_bytes // 32 == 512 * 2**20


def test_the_simulator_s_activations_are_closer_than_the_device_s() -> None:
    """Plain reads of 16 banks, a row each: the last ACT goes 15 steps after the first. The public
    simulator takes its steps from a table, 5 clocks between bank groups and 6 within, its preset
    and the device 11."""
    lines = [f"R MEM 0 {bank} 5" for bank in range(16)] + ["AiM EOC"]

    def cycles(name: str, count: int) -> int:
        design = load_stream_pim(name).config
        isrs = parse_isr_trace([*lines[:count], lines[-1]], "trace", design)
        return run_stream(design, isr_stream(isrs, design)).cycles

    assert cycles("aim", 16) - cycles("aim", 1) == 15 * 11
    assert cycles("aim-simulator", 16) - cycles("aim-simulator", 1) == 15 * 5
    for name, between, within in (("aim", 11, 11), ("aim-simulator", 5, 6)):
        bench = bench_of_design(load_stream_pim(name).config)
        bench.issue("ACT", 0)
        group = AIM.organization.banks_per_group
        assert (bench.earliest("ACT", group), bench.earliest("ACT", 1)) == (between, within)
    timings = load_stream_pim("aim-simulator").config.all_timings
    assert {key: timings[key] for key in timings if timings[key] != T[key]} == {
        "tRRD_S": 5, "tRRD_L": 6,
    }  # fmt: skip
