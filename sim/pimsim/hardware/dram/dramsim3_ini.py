"""A DRAMsim3 ``.ini`` as a memory, read as that tool reads it, its defaults included.

Keys that DRAMsim3 does not read (tRTP_S, tRTP_L, tRC) change nothing here either; what it
defaults (tRTRS 2, tRTP 5, hbm_dual_cmd true for HBM) is defaulted the same
(DRAMsim3 configuration.cc). Only protocols whose rules are known are accepted.
"""

from __future__ import annotations

import configparser
import difflib
from pathlib import Path

from pydantic import ValidationError

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig

__all__ = ["read_dramsim3_ini"]

_TIMING_DEFAULTS = {
    "AL": 0, "CL": 12, "CWL": 12, "tCCD_L": 6, "tCCD_S": 4, "tRTRS": 2, "tRTP": 5, "tWTR_L": 5,
    "tWTR_S": 5, "tWR": 10, "tRP": 10, "tRRD_L": 4, "tRRD_S": 4, "tRAS": 24, "tRFC": 74,
    "tREFI": 7800, "tFAW": 50, "tRCDRD": 24, "tRCDWR": 20,
}  # fmt: skip
_PROTOCOLS = ("HBM", "HBM2")


class _Ini:
    """Values of an ini file with DRAMsim3's defaults; errors name file and key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parser = configparser.ConfigParser(
            inline_comment_prefixes=(";", "#"), strict=False, interpolation=None
        )
        self.parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            self.parser.read_string(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: no DRAMsim3 config: {reason}") from error

    def text(self, section: str, key: str, default: str) -> str:
        return self.parser.get(section, key, fallback=default).strip()

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
            return float(found)
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
    """The memory that DRAMsim3 would simulate for ``path``.

    Raises ``InputError`` on an unknown protocol, a policy that is not built, a malformed value.
    """
    ini = _Ini(path)
    protocol = ini.text("dram_structure", "protocol", "DDR3")
    if protocol not in _PROTOCOLS:
        near = difflib.get_close_matches(protocol, _PROTOCOLS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"{path}: [dram_structure] protocol {protocol!r}: supported are "
            f"{', '.join(_PROTOCOLS)}{hint}"
        )
    for section, key, default, built in (
        ("system", "row_buf_policy", "OPEN_PAGE", ("OPEN_PAGE",)),
        ("system", "queue_structure", "PER_BANK", ("PER_BANK",)),
        ("system", "refresh_policy", "RANK_LEVEL_STAGGERED", ("RANK_LEVEL_STAGGERED",)),
    ):
        found = ini.text(section, key, default)
        if found not in built:
            raise InputError(f"{path}: [{section}] {key} {found!r}: built is {', '.join(built)}")
    structure, system = "dram_structure", "system"
    groups = ini.count(structure, "bankgroups", 2)
    per_group = ini.count(structure, "banks_per_group", 2)
    if not ini.flag(structure, "bankgroup_enable", True):
        groups, per_group = 1, groups * per_group
    rows = ini.count(structure, "rows", 1 << 16)
    columns = ini.count(structure, "columns", 1 << 10) * 2  # HBM: columns of a 2n prefetch
    width = ini.count(structure, "device_width", 8)
    burst = ini.integer(structure, "BL", 8) or 4
    bus = ini.count(system, "bus_width", 64)
    devices = max(bus // width, 1)
    rank_mib = columns * width // 8 * (rows // 1024) // 1024 * groups * per_group * devices
    channel_mib = ini.integer(system, "channel_size", 1024)
    ranks = max(channel_mib // rank_mib, 1) if rank_mib else 1
    timings = {key: ini.integer("timing", key, value) for key, value in _TIMING_DEFAULTS.items()}
    timings["nBL"] = burst // 2
    if groups == 1:  # one bank group: DRAMsim3 uses the short timings throughout
        for key in ("tCCD", "tWTR", "tRRD"):
            timings[f"{key}_L"] = timings[f"{key}_S"]
    clock_ns = ini.number("timing", "tCK", 1.0)
    base = load_memory("hbm2").config.model_dump()
    base.update(
        name=path.stem,
        standard=protocol,
        source=f"DRAMsim3 config {path.name}",
        tCK=round(clock_ns * 1000),
        timings=timings,
        address_map=ini.text(system, "address_mapping", "chrobabgraco"),
        organization={
            "channels": ini.count(system, "channels", 1),
            "ranks": ranks,
            "bank_groups": groups,
            "banks_per_group": per_group,
            "rows": rows,
            "columns": columns // burst,
            "bus_width_bits": bus,
            "burst_length": burst,
            "devices_per_rank": devices,
        },
        controller={
            "bank_queue_depth": ini.integer(system, "cmd_queue_size", 16),
            "read_queue_depth": ini.integer(system, "trans_queue_size", 32),
            "write_queue_depth": ini.integer(system, "trans_queue_size", 32),
            "commands_per_cycle": 2 if ini.flag(structure, "hbm_dual_cmd", True) else 1,
        },
        currents={
            key: ini.number("power", key, default)
            for key, default in (
                ("VDD", 1.2), ("IDD0", 48), ("IDD2N", 34), ("IDD3N", 43), ("IDD4R", 140),
                ("IDD4W", 123), ("IDD5AB", 250),
            )
        },
    )  # fmt: skip
    try:
        return MemoryConfig.model_validate(base)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from error
