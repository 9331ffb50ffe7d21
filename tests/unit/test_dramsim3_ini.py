"""DRAMsim3 .ini files: what is read, what DRAMsim3's defaults fill in, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini

Sections = dict[str, dict[str, str]]
Change = dict[str, dict[str, str | None]]

HBM2: Sections = {
    "dram_structure": {
        "protocol": "HBM2", "bankgroups": "4", "banks_per_group": "4", "rows": "32768",
        "columns": "64", "device_width": "128", "BL": "4",
    },
    "timing": {
        "tCK": "1", "CL": "14", "CWL": "4", "tRCDRD": "14", "tRCDWR": "14", "tRP": "14",
        "tRAS": "34", "tRFC": "260", "tREFI": "3900", "tRRD_S": "4", "tRRD_L": "6",
        "tWTR_S": "6", "tWTR_L": "8", "tFAW": "30", "tWR": "16", "tCCD_S": "1", "tCCD_L": "2",
        "tRTP_L": "6", "tRTP_S": "4",
    },
    "power": {
        "VDD": "1.2", "IDD0": "65", "IDD2N": "40", "IDD3N": "55", "IDD4W": "500", "IDD4R": "390",
        "IDD5AB": "250",
    },
    "system": {
        "channel_size": "1024", "channels": "8", "bus_width": "128",
        "address_mapping": "rorabgbachco", "queue_structure": "PER_BANK",
        "row_buf_policy": "OPEN_PAGE", "cmd_queue_size": "8", "trans_queue_size": "32",
    },
}  # fmt: skip

Read = Callable[[Change], MemoryConfig]


def ini_text(change: Change) -> str:
    """The HBM2 file with keys changed, or left out where the new value is None."""
    lines = []
    for section, keys in HBM2.items():
        merged = {**keys, **change.get(section, {})}
        lines.append(f"[{section}]")
        lines += [f"{key} = {value}" for key, value in merged.items() if value is not None]
    return "\n".join(lines) + "\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """``read({"system": {"channels": "2"}})``: the HBM2 file, so changed, as a memory."""

    def run(change: Change) -> MemoryConfig:
        path = tmp_path / "device.ini"
        path.write_text(ini_text(change))
        return read_dramsim3_ini(path)

    return run


def test_the_shipped_file_is_the_hbm2_preset(read: Read) -> None:
    found, preset = read({}), load_memory("hbm2").config
    assert found.organization == preset.organization
    assert found.controller == preset.controller
    assert found.currents == preset.currents
    assert found.rules == preset.rules
    assert found.tCK == preset.tCK
    assert found.address_map == preset.address_map
    # DRAMsim3's default for REFpb, which its file does not give
    assert {key: found.timings[key] for key in preset.timings} == preset.timings | {"tRFCpb": 20}


@pytest.mark.parametrize(
    ("key", "default"),
    [("tRTRS", 2), ("tRTP", 5), ("tCCD_L", 6), ("tFAW", 50), ("tRFC", 74), ("CL", 12)],
)
def test_timings_that_a_file_leaves_out_are_dramsim3s(read: Read, key: str, default: int) -> None:
    assert read({"timing": {key: None}}).timings[key] == default
    assert read({"timing": {key: ""}}).timings[key] == default
    assert read({"timing": {key: str(default + 7)}}).timings[key] == default + 7


def test_trtp_by_bank_group_is_not_read(read: Read) -> None:
    """DRAMsim3 reads neither; its HBM files give both."""
    given = read({"timing": {"tRTP_L": "60", "tRTP_S": "40"}})
    assert given.timings == read({"timing": {"tRTP_L": None, "tRTP_S": None}}).timings


@pytest.mark.parametrize(
    ("value", "commands"), [(None, 2), ("true", 2), ("True", 2), ("false", 1), ("0", 1)]
)
def test_dual_command_is_on_unless_switched_off(
    read: Read, value: str | None, commands: int
) -> None:
    memory = read({"dram_structure": {"hbm_dual_cmd": value}})
    assert memory.controller.commands_per_cycle == commands


def test_without_bank_groups_the_short_timings_hold(read: Read) -> None:
    memory = read({"dram_structure": {"bankgroup_enable": "false"}})
    with_groups = read({})
    assert memory.organization.bank_groups == 1
    assert memory.organization.banks == with_groups.organization.banks
    for key in ("tCCD", "tWTR", "tRRD"):
        assert memory.timings[f"{key}_L"] == with_groups.timings[f"{key}_S"]
        assert with_groups.timings[f"{key}_L"] != with_groups.timings[f"{key}_S"]


def test_ranks_follow_from_the_channels_size(read: Read) -> None:
    one = read({})
    rank_bytes = one.organization.capacity_bytes // one.organization.channels
    for ranks in (1, 2, 4):
        size = str(ranks * rank_bytes // 2**20)
        memory = read({"system": {"channel_size": size}})
        assert memory.organization.ranks == ranks
        assert memory.organization.capacity_bytes == ranks * one.organization.capacity_bytes


def test_queue_depths_and_comments(read: Read) -> None:
    memory = read({"system": {"cmd_queue_size": "16 ; per bank", "trans_queue_size": "64"}})
    control = memory.controller
    assert control.bank_queue_depth == 16
    assert (control.read_queue_depth, control.write_queue_depth) == (64, 64)
    assert read({"system": {"cmd_queue_size": None}}).controller.bank_queue_depth == 16
    assert read({"system": {"trans_queue_size": None}}).controller.read_queue_depth == 32


def test_close_page_is_auto_precharge(read: Read) -> None:
    assert read({}).controller.page_policy == "open"
    closed = read({"system": {"row_buf_policy": "CLOSE_PAGE"}})
    assert closed.controller.page_policy == "auto-precharge"
    own = {rule.first[0]: rule.delay for rule in closed.rules if "RDA" in rule.first
           and "ACT" in rule.then}  # fmt: skip
    assert own == {"RDA": "nBL + tRTP + tRP"}


def test_clock_in_picoseconds(read: Read) -> None:
    assert read({"timing": {"tCK": "0.66"}}).tCK == 660
    assert read({"timing": {"tCK": "0.666 (1/1.5)"}}).tCK == 666  # as GDDR5X_8Gb_x32.ini has it


BAD: dict[str, tuple[Change, list[str]]] = {
    "an unknown protocol": (
        {"dram_structure": {"protocol": "HBM4"}}, ["protocol", "'HBM4'", "HBM, HBM2", "DDR4"]),
    "a protocol misspelt": (
        {"dram_structure": {"protocol": "HMB2"}}, ["'HMB2'", "did you mean 'HBM2'?"]),
    "a cube": ({"dram_structure": {"protocol": "HMC"}}, ["'HMC'", "supported are DDR3, DDR4"]),
    "one queue for reads and writes": ({"system": {"unified_queue": "true"}}, ["unified_queue"]),
    "self refresh": ({"system": {"enable_self_refresh": "true"}}, ["enable_self_refresh"]),
    "timings that contradict each other": (
        {"timing": {"tRRD_L": "3"}}, ["timings.tRRD_L is 3", "tRRD_S = 4"]),
    "per-bank refresh of a standard without it": (
        {"dram_structure": {"protocol": "DDR4"},
         "system": {"refresh_policy": "BANK_LEVEL_STAGGERED"}},
        ["controller.refresh is per-bank", "tRFCpb", "DDR4"]),
    "a page policy that is none": (
        {"system": {"row_buf_policy": "CLOSED_PAGE"}},
        ["row_buf_policy", "CLOSED_PAGE", "OPEN_PAGE, CLOSE_PAGE"]),
    "a queue per rank": (
        {"system": {"queue_structure": "PER_RANK"}}, ["queue_structure", "PER_RANK", "PER_BANK"]),
    "refresh of all ranks at once": (
        {"system": {"refresh_policy": "RANK_LEVEL_SIMULTANEOUS"}},
        ["refresh_policy", "RANK_LEVEL_SIMULTANEOUS", "RANK_LEVEL_STAGGERED"]),
    "a timing that is no number": (
        {"timing": {"tRP": "fast"}}, ["[timing] tRP", "'fast'", "no whole number"]),
    "a timing that is no whole number": (
        {"timing": {"tRP": "13.5"}}, ["[timing] tRP", "'13.5'", "no whole number"]),
    "a negative timing": ({"timing": {"tRP": "-17"}}, ["timings.tRP", "found -17"]),
    "a clock that is no number": (
        {"timing": {"tCK": "1ns"}}, ["[timing] tCK", "'1ns'", "no number"]),
    "a current that is no number": ({"power": {"IDD0": "x"}}, ["[power] IDD0", "'x'"]),
    "a switch that is none": (
        {"dram_structure": {"hbm_dual_cmd": "maybe"}}, ["hbm_dual_cmd", "'maybe'"]),
    "rows that are no power of two": ({"dram_structure": {"rows": "30720"}}, ["rows", "30720"]),
    "no channels": ({"system": {"channels": "0"}}, ["[system] channels", "at least 1"]),
    "a device without width": (
        {"dram_structure": {"device_width": "0"}}, ["device_width", "at least 1"]),
    "a map with a field twice": (
        {"system": {"address_mapping": "rorabgbachch"}}, ["rorabgbachch"]),
    "a map that is too short": ({"system": {"address_mapping": "robaco"}}, ["robaco"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(read: Read, case: str) -> None:
    change, said = BAD[case]
    with pytest.raises(InputError) as refusal:
        read(change)
    message = str(refusal.value)
    assert "device.ini" in message
    assert "\n" not in message
    for part in said:
        assert part in message, message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"just some text\n", "no DRAMsim3 config"),
        (b"\xff\xfe\x00binary", "not UTF-8 text"),
        (b"", "dram_structure"),
    ],
)
def test_a_file_that_is_no_ini(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "device.ini"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as refusal:
        read_dramsim3_ini(path)
    assert "device.ini" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.ini"):
        read_dramsim3_ini(tmp_path / "absent.ini")


def test_refresh_per_bank_is_jedecs(read: Read) -> None:
    change: Change = {
        "system": {"refresh_policy": "BANK_LEVEL_STAGGERED"},
        "timing": {"tRFCb": "160", "tREFIb": "243"},
    }
    memory = read(change)
    assert memory.controller.refresh == "per-bank"
    assert (memory.timings["tRFCpb"], memory.timings["tREFIpb"]) == (160, 243)


@pytest.mark.parametrize(("given", "kept"), [(None, None), ("5", None), ("60", 60.0)])
def test_a_per_bank_current_below_standby_is_not_used(
    read: Read, given: str | None, kept: float | None
) -> None:
    assert kept == read({"power": {"IDD5PB": given}}).currents.IDD5PB


DDR4: Change = {
    "dram_structure": {"protocol": "DDR4", "columns": "1024", "device_width": "8", "BL": "8"},
    "timing": {"tRCD": "22", "tRCDRD": "99", "tRCDWR": "99"},
    "system": {"bus_width": "64", "channel_size": "16384"},
}


def test_additive_latency_goes_into_what_it_delays(read: Read) -> None:
    """RL = AL + CL, WL = AL + CWL; RD to PRE AL + tRTP; a column may follow ACT by AL sooner."""
    plain = read(DDR4).timings
    change: Change = {**DDR4, "timing": {**DDR4["timing"], "AL": "5"}}
    delayed = read(change).timings
    assert {key: delayed[key] - plain[key] for key in ("CL", "CWL", "tRTP")} == {
        "CL": 5, "CWL": 5, "tRTP": 5,
    }  # fmt: skip
    for key in ("tRCDRD", "tRCDWR"):
        assert (plain[key], delayed[key]) == (22, 17)


@pytest.mark.parametrize(
    ("protocol", "burst", "cycles", "columns"),
    [("DDR3", 8, 4, 128), ("DDR4", 8, 4, 128), ("LPDDR4", 16, 8, 64), ("GDDR5", 8, 2, 1024),
     ("GDDR5X", 16, 2, 1024), ("GDDR6", 16, 1, 1024), ("HBM2", 4, 2, 512)],
)  # fmt: skip
def test_burst_and_columns_of_a_protocol(
    read: Read, protocol: str, burst: int, cycles: int, columns: int
) -> None:
    """Columns are device words (DDR), pairs of them (HBM) or bursts (GDDR)."""
    structure = {"protocol": protocol, "columns": "1024", "BL": str(burst), "device_width": "8"}
    memory = read({"dram_structure": {**structure}, "system": {"bus_width": "64"}})
    assert memory.timings["nBL"] == cycles
    assert (memory.organization.burst_length, memory.organization.columns) == (burst, columns)
    assert memory.organization.devices_per_rank == 8


def test_rules_of_a_family(read: Read) -> None:
    """tPPD in LPDDR4 and GDDR, a window of 32 activations in GDDR, with DRAMsim3's defaults."""
    gddr = read({"dram_structure": {"protocol": "GDDR6", "BL": "16"}})
    assert (gddr.timings["t32AW"], gddr.timings["tPPD"]) == (330, 0)
    assert [rule.window for rule in gddr.rules if rule.delay == "t32AW"] == [32]
    lpddr = read({"dram_structure": {"protocol": "LPDDR4"}, "timing": {"tPPD": "3"}})
    assert lpddr.timings["tPPD"] == 3
    assert any(rule.delay == "tPPD" for rule in lpddr.rules)
    assert not any(rule.delay == "tPPD" for rule in read({}).rules)


PRESETS = {"DDR4_8Gb_x8_3200": "ddr4-3200", "GDDR6_8Gb_x16": "gddr6", "HBM2_8Gb_x128": "hbm2"}


@pytest.mark.parametrize("name", PRESETS)
def test_our_preset_has_the_numbers_of_the_reference_file(name: str, reference_dir: Path) -> None:
    found = read_dramsim3_ini(reference_dir / "dram" / "configs" / f"{name}.ini").model_dump()
    preset = load_memory(PRESETS[name]).config.model_dump()
    for key in ("name", "standard", "source"):
        del found[key], preset[key]
    for memory in (found, preset):
        memory["timings"].pop("tRFCpb", None)  # the presets' is JEDEC's, not DRAMsim3's
    assert found == preset


def test_the_files_of_the_reference_are_read(reference_dir: Path) -> None:
    files = sorted((reference_dir / "dram" / "configs").glob("*.ini"))
    assert {read_dramsim3_ini(path).standard for path in files} == {"HBM", "DDR4", "GDDR6"}
