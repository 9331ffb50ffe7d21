"""A DRAMsim3 ``.ini`` as a memory, read as that tool reads it, its defaults included.

Keys that DRAMsim3 does not read (tRTP_S, tRTP_L, tRC, write_buf_size) change nothing here either;
what it defaults (tRTRS 2, tRTP 5, hbm_dual_cmd true for HBM) is defaulted the same
(DRAMsim3 configuration.cc, timing.cc). The rules are those of our preset of the same family. One
thing is done right instead of alike: ``BANK_LEVEL_STAGGERED`` is JEDEC's per-bank refresh, which
DRAMsim3 has the wrong way round (its issue 24).
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pimsim.config.errors import InputError, first_fault, near_miss
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.config.reading import read_text

__all__ = ["read_dramsim3_ini"]

_MAX_BYTES = 2**20
_TIMING_DEFAULTS = {
    "CL": 12, "CWL": 12, "tCCD_L": 6, "tCCD_S": 4, "tRTRS": 2, "tRTP": 5, "tWTR_L": 5,
    "tWTR_S": 5, "tWR": 10, "tRP": 10, "tRRD_L": 4, "tRRD_S": 4, "tRAS": 24, "tRFC": 74,
    "tREFI": 7800, "tFAW": 50,
}  # fmt: skip


@dataclass(frozen=True)
class _Protocol:
    """What DRAMsim3 makes of a protocol, beyond the keys of the file."""

    preset: str
    """Our memory whose rules it has."""
    beats_per_cycle: int = 2
    """Beats of a burst in one cycle of tCK."""
    column_beats: int = 1
    """Device-wide words that the file's ``columns`` count as one; 0: a whole burst."""
    split_trcd: bool = False
    """tRCDRD and tRCDWR in place of tRCD, which additive latency AL shortens."""


_HBM = _Protocol("hbm2", column_beats=2, split_trcd=True)
_PROTOCOLS = {
    "DDR3": _Protocol("ddr4-3200"),
    "DDR4": _Protocol("ddr4-3200"),
    "LPDDR": _Protocol("ddr4-3200"),
    "LPDDR3": _Protocol("ddr4-3200"),
    "LPDDR4": _Protocol("lpddr4-2400"),
    "GDDR5": _Protocol("gddr6", 4, 0, split_trcd=True),
    "GDDR5X": _Protocol("gddr6", 8, 0, split_trcd=True),
    "GDDR6": _Protocol("gddr6", 16, 0, split_trcd=True),
    "HBM": _HBM,
    "HBM2": _HBM,
}
_OPTIONAL_TIMINGS = {"tPPD": 0, "t32AW": 330}
"""Read, with their defaults, where the rules of the preset name them."""

_CHOICES: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("row_buf_policy", "OPEN_PAGE", {"OPEN_PAGE": "open", "CLOSE_PAGE": "auto-precharge"},
     "a row stays open, or every access closes its own"),
    ("queue_structure", "PER_BANK", {"PER_BANK": ""}, "a queue for each bank is built"),
    ("refresh_policy", "RANK_LEVEL_STAGGERED",
     {"RANK_LEVEL_STAGGERED": "all-bank", "BANK_LEVEL_STAGGERED": "per-bank"},
     "of several ranks that tool would refresh the first alone"),
)  # fmt: skip


class _Ini:
    """Values of an ini file with DRAMsim3's defaults; errors name file and key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parser = configparser.ConfigParser(
            inline_comment_prefixes=(";", "#"), strict=False, interpolation=None
        )
        self.parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            self.parser.read_string(read_text(path, "a DRAMsim3 config", _MAX_BYTES))
        except configparser.Error as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: no DRAMsim3 config: {reason}") from error
        if not self.parser.has_section("dram_structure"):
            raise InputError(f"{path}: no DRAMsim3 config: no section [dram_structure]")

    def text(self, section: str, key: str, default: str) -> str:
        return self.parser.get(section, key, fallback=default).strip() or default

    def integer(self, section: str, key: str, default: int) -> int:
        found = self.text(section, key, str(default))
        try:
            return int(found)
        except ValueError:
            raise InputError(
                f"{self.path}: [{section}] {key}: {found!r} is no whole number"
            ) from None

    def count(self, section: str, key: str, default: int) -> int:
        found = self.integer(section, key, default)
        if found < 1:
            raise InputError(f"{self.path}: [{section}] {key} is {found}; at least 1 is needed")
        return found

    def number(self, section: str, key: str, default: float) -> float:
        found = self.text(section, key, str(default))
        try:
            return float(found.partition("(")[0])  # some files remark on it in brackets
        except ValueError:
            raise InputError(f"{self.path}: [{section}] {key}: {found!r} is no number") from None

    def flag(self, section: str, key: str, default: bool) -> bool:
        found = self.text(section, key, str(default)).lower()
        if found in ("true", "yes", "on", "1"):
            return True
        if found in ("false", "no", "off", "0"):
            return False
        raise InputError(f"{self.path}: [{section}] {key}: {found!r} is neither true nor false")


def read_dramsim3_ini(path: Path) -> MemoryConfig:
    """The memory that DRAMsim3 would simulate for a config of its own.

    Parameters
    ----------
    path
        An ``.ini``; keys that are missing have DRAMsim3's defaults.

    Returns
    -------
    MemoryConfig
        Named after the file; times in cycles of its tCK, which is in ps.

    Raises
    ------
    InputError
        On an unknown protocol, a policy that is not built, a malformed value; names file and key.

    References
    ----------
    DRAMsim3 configuration.cc and timing.cc.
    """
    ini = _Ini(path)
    name = ini.text("dram_structure", "protocol", "DDR3")
    if name not in _PROTOCOLS:
        raise InputError(
            f"{path}: [dram_structure] protocol {name!r}{near_miss(name, _PROTOCOLS)}; "
            f"supported are {', '.join(_PROTOCOLS)}"
        )
    protocol = _PROTOCOLS[name]
    for key in ("unified_queue", "enable_self_refresh"):
        if ini.flag("system", key, False):
            raise InputError(f"{path}: [system] {key} is true; only false is built")
    policies = {
        key: _policy(ini, key, default, built, why_not) for key, default, built, why_not in _CHOICES
    }
    preset = load_memory(protocol.preset).config
    organization = _organization(ini, protocol)
    # No file of that tool says what a stack is; it is the standard's, as in the preset.
    organization["channels_per_stack"] = preset.organization.channels_per_stack
    per_bank = policies["refresh_policy"] == "per-bank"
    values = {
        **preset.model_dump(),
        "name": path.stem,
        "standard": name,
        "source": f"DRAMsim3 config {path.name}",
        "tCK": round(ini.number("timing", "tCK", 1.0) * 1000),
        "timings": _timings(ini, protocol, preset, organization["bank_groups"], per_bank),
        "address_map": ini.text("system", "address_mapping", "chrobabgraco"),
        "organization": organization,
        "controller": {
            "bank_queue_depth": ini.integer("system", "cmd_queue_size", 16),
            "read_queue_depth": ini.integer("system", "trans_queue_size", 32),
            "write_queue_depth": ini.integer("system", "trans_queue_size", 32),
            "commands_per_cycle": 2
            if protocol is _HBM and ini.flag("dram_structure", "hbm_dual_cmd", True)
            else 1,
            "page_policy": policies["row_buf_policy"],
            "refresh": policies["refresh_policy"],
        },
        "currents": _currents(ini),
    }
    try:
        return MemoryConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from error


def _policy(ini: _Ini, key: str, default: str, built: dict[str, str], why_not: str) -> str:
    found = ini.text("system", key, default)
    if found not in built:
        raise InputError(
            f"{ini.path}: [system] {key} {found!r}{near_miss(found, built)}; "
            f"built: {', '.join(built)} ({why_not})"
        )
    return built[found]


def _burst(ini: _Ini, protocol: _Protocol) -> tuple[int, int]:
    """Beats of a burst, and cycles that it holds the data bus (BL 0: no time at all)."""
    beats = ini.integer("dram_structure", "BL", 8)
    return beats or (4 if protocol is _HBM else 8), beats // protocol.beats_per_cycle


def _organization(ini: _Ini, protocol: _Protocol) -> dict[str, int]:
    structure, system = "dram_structure", "system"
    burst, _ = _burst(ini, protocol)
    groups = ini.count(structure, "bankgroups", 2)
    per_group = ini.count(structure, "banks_per_group", 2)
    if not ini.flag(structure, "bankgroup_enable", True):
        groups, per_group = 1, groups * per_group
    rows = ini.count(structure, "rows", 1 << 16)
    columns = ini.count(structure, "columns", 1 << 10) * (protocol.column_beats or burst)
    width = ini.count(structure, "device_width", 8)
    bus = ini.count(system, "bus_width", 64)
    devices = max(bus // width, 1)
    # in whole MiB, rounded down as DRAMsim3 does
    bank_mib = columns * width // 8 * (rows // 1024) // 1024
    rank_mib = bank_mib * groups * per_group * devices
    channel_mib = ini.integer(system, "channel_size", 1024)
    return {
        "channels": ini.count(system, "channels", 1),
        "ranks": max(channel_mib // rank_mib, 1) if rank_mib else 1,
        "bank_groups": groups,
        "banks_per_group": per_group,
        "rows": rows,
        "columns": columns // burst,
        "bus_width_bits": bus,
        "burst_length": burst,
        "devices_per_rank": devices,
    }


def _timings(
    ini: _Ini, protocol: _Protocol, preset: MemoryConfig, groups: int, per_bank: bool
) -> dict[str, int]:
    """Cycles by JEDEC name; additive latency AL is part of CL, CWL, tRTP and tRCD."""

    def read(key: str, default: int) -> int:
        return ini.integer("timing", key, default)

    timings = {key: read(key, value) for key, value in _TIMING_DEFAULTS.items()}
    named = preset.timings
    timings |= {key: read(key, value) for key, value in _OPTIONAL_TIMINGS.items() if key in named}
    timings["nBL"] = _burst(ini, protocol)[1]
    additive = read("AL", 0)
    for key in ("CL", "CWL", "tRTP"):
        timings[key] += additive
    if protocol.split_trcd:
        timings |= {"tRCDRD": read("tRCDRD", 24), "tRCDWR": read("tRCDWR", 20)}
    else:
        timings |= dict.fromkeys(("tRCDRD", "tRCDWR"), read("tRCD", 10) - additive)
    if "tRFCpb" in named:
        timings["tRFCpb"] = read("tRFCb", 20)
    if "tRREFD" in named:  # no key of that tool: the same time as in the preset
        clock_ps = max(round(ini.number("timing", "tCK", 1.0) * 1000), 1)
        timings["tRREFD"] = -(-named["tRREFD"] * preset.tCK // clock_ps)
    if per_bank:
        timings["tREFIpb"] = read("tREFIb", 1950)
    if groups == 1:  # one bank group: DRAMsim3 uses the short timings throughout
        for key in ("tCCD", "tWTR", "tRRD"):
            timings[f"{key}_L"] = timings[f"{key}_S"]
    return timings


def _currents(ini: _Ini) -> dict[str, float]:
    """IDD5PB only where it lies above the standby current that it includes: in some files, and
    in DRAMsim3's default of 5 mA, it does not."""
    defaults = (
        ("VDD", 1.2), ("IDD0", 48), ("IDD2N", 34), ("IDD3N", 43), ("IDD4R", 135), ("IDD4W", 123),
        ("IDD5AB", 250),
    )  # fmt: skip
    currents = {key: ini.number("power", key, default) for key, default in defaults}
    per_bank = ini.number("power", "IDD5PB", 5)
    return currents | ({"IDD5PB": per_bank} if per_bank >= currents["IDD3N"] else {})
