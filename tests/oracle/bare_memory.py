"""A memory for small designs that are made up in tests: its commands have names of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pimsim.config.loader import load_memory

__all__ = ["bare_memory"]


def bare_memory(organization: Mapping[str, int], tck_ps: int = 1000) -> dict[str, Any]:
    """Values of a memory whose commands are called ``M_ACT`` and so on, so that no rule of it binds
    a command of the design. ``column_bytes`` of ``organization``: one burst."""
    values = load_memory("hbm2").config.model_dump()
    commands = {name: f"M_{name}" for name in values["commands"]}
    values["commands"] = {commands[name]: does for name, does in values["commands"].items()}
    for rule in values["rules"]:
        for side in ("first", "then"):
            rule[side] = [commands[name] for name in rule[side]]
    counts = dict(organization)
    counts["bus_width_bits"] = counts.pop("column_bytes") * 8
    values["organization"] = {"ranks": 1, **counts, "burst_length": 1}
    if counts.get("pseudo_channels", 1) > 1:
        for key in ("address_map", "stream_map"):
            values[key] = re.sub("ch", "pcch", values[key])
    return {**values, "tCK": tck_ps}
