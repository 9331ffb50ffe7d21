"""Text files that are changed in one word or line each: configs of DRAMsim3, traces of commands, of
requests to DRAM and of AiM's instructions; and what a preset's words may be."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from cases import HERE, values
from values_leaves import GONE, leaves, told, with_change

WORDS = ("x", "-1", "0", "3", "99999999", "1.5", "")


def given_file(file: str, case: str, name: str) -> str:
    """A file that a case of commands has."""
    content = yaml.safe_load((HERE / "commands" / f"{file}.yaml").read_text())
    own = content["cases"][case]
    files = content.get("files", {}) | (own.get("files", {}) if isinstance(own, dict) else {})
    return str(files[name])


def changed_lines(
    text: str, read: Callable[[Path], Any], suffix: str = ".txt", first: int = 0
) -> Iterator[str]:
    """What is said of a file whose lines are left out, doubled, or have another word; words before
    the ``first`` stay."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f{suffix}"

        def tried(lines: list[str]) -> str:
            path.write_text("\n".join(lines) + "\n")
            return told(lambda: read(path)).replace(str(path), "f").replace(folder, "")

        lines = text.splitlines()
        as_is = tried(lines)
        yield f"as it is: {as_is}"
        for at, line in enumerate(lines):
            rest = lines[at + 1 :]
            tries = [("left out", lines[:at] + rest), ("twice", [*lines[:at], line, line, *rest])]
            words = line.split()
            for number, word in list(enumerate(words))[first:]:
                for other in WORDS:
                    own = " ".join([*words[:number], other, *words[number + 1 :]])
                    tries.append((f"{word} = {other!r}", [*lines[:at], own, *rest]))
            for label, changed in tries:
                found = tried(changed)
                yield f"{at + 1} {label}: {'the same' if found == as_is else found}"
        for label, changed in {"empty": [], "blank": [""], "upper": [text.upper()]}.items():
            yield f"{label}: {tried(changed)}"


@values("lines/dramsim3")
def _dramsim3() -> Iterator[str]:
    from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini

    def read(path: Path) -> str:
        found = read_dramsim3_ini(path).model_dump(mode="json", exclude_defaults=True)
        return str({key: each for key, each in found.items() if key not in ("name", "source")})

    before = None
    for line in changed_lines(given_file("kernels", "dram-ini", "device.ini"), read, ".ini", 2):
        label, _, found = line.partition(": ")
        yield f"{label}: {found if before is None else _difference(before, found)}"
        before = before or found


def _difference(before: str, found: str) -> str:
    """Of two printed records, the parts that the first has not."""
    if not found.startswith("{"):
        return found
    own = set(before.replace("{", "").replace("}", "").split(", "))
    new = [p for p in found.replace("{", "").replace("}", "").split(", ") if p not in own]
    return ", ".join(new) or "nothing moves"


@values("lines/dram-traces")
def _dram_traces() -> Iterator[str]:
    """In each form that is read."""
    from pimsim.config.loader import load_memory
    from pimsim.hardware.dram.address import AddressMap
    from pimsim.hardware.dram.trace_file import read_trace

    memory = load_memory("ddr4-3200").config
    mapping = AddressMap.parse(memory.address_map, memory.organization)

    def read(path: Path) -> str:
        found = read_trace(path, memory.organization.capacity_bytes, mapping)
        parts = [getattr(found, name) for name in found.__dataclass_fields__]
        return str([each.tolist() if hasattr(each, "tolist") else each for each in parts])

    for text in (
        "0x40 READ 7\n0x80 WRITE 9", "LD 0x40\nST 128", "R 0x40\nW 0x80", "LD 64\nST 0x80",
        "READ 0,0,0,0,1,2\nWRITE 0,1,0,0,1,3", "R 0,0,1,2,5,8\nW 0,0,1,2,5,9",
        "0x40 R\n0x80 W # more", "0x40,R,7",
    ):  # fmt: skip
        yield f"=== {text.splitlines()}"
        yield from changed_lines(text, read)


LOG = """\
0 activate 0 0 0 0 7 0
40 read 0 0 0 0 7 8
48 read 0 0 0 0 7 16
56 activate 0 0 1 2 5 0
90 write 0 0 1 2 5 0
160 precharge 0 0 0 0 7 0
240 activate 0 0 0 0 9 0
2000 precharge 0 0 0 0 9 0
2001 precharge 0 0 1 2 5 0
2100 refresh 0 0 0 0 0 0
"""
"""Cycle, command, channel, rank, group, bank, row, column."""


@values("lines/commands")
def _commands() -> Iterator[str]:
    """A log of commands against the rules of memories."""
    from pimsim.config.loader import load_memory
    from pimsim.hardware.dram.command_trace import read_command_trace
    from pimsim.hardware.dram.legality import check_commands

    for name in ("hbm2",):
        memory = load_memory(name).config

        def read(path: Path, memory: Any = memory) -> str:
            lines = read_command_trace(path, memory)
            found = check_commands((item.entry for item in lines), memory)
            return f"{len(lines)} lines, {'legal' if found is None else found}"

        yield f"=== {name}"
        yield from changed_lines(LOG, read)


@values("lines/isr")
def _isr() -> Iterator[str]:
    from pimsim.config.loader import load_pim
    from pimsim.hardware.pim.aim_isr import isr_stream, read_isr_trace

    design: Any = load_pim("aim").config

    def read(path: Path) -> str:
        isrs = read_isr_trace(path, design)
        stream = isr_stream(isrs, design)
        sizes = [
            f"{name} {getattr(stream, name).shape}"
            for name in stream.__dataclass_fields__
            if hasattr(getattr(stream, name), "shape")
        ]
        return f"{len(isrs)}: {isrs[0]}, {isrs[-2:]}; {sizes}"

    for name in ("a.isr", "b.isr"):
        yield f"=== {name}"
        yield from changed_lines(given_file("kernels", "pim-trace", name), read)


PRESETS = {
    "memory": ("hbm2-neupims",), "pim": ("aim", "attacc-bank", "neupims"),
    "hardware": ("npu-only",), "xpu": ("h100",), "system": ("dgx-attacc-bank",), "nccl": ("h100",),
    "area": ("default",),
}  # fmt: skip


@values("lines/words-of-presets")
def _words() -> Iterator[str]:
    """Keys left out, names and lists changed: what does not fit the others."""
    from pimsim.config.loader import load_preset
    from pimsim.config.resources import preset_names

    for kind, names in PRESETS.items():
        known = preset_names(kind)
        for name in names:
            assert name in known, name
            config = load_preset(kind, name).config
            model, whole = type(config), config.model_dump(mode="json", exclude_unset=True)

            def tried(given: Any, model: Any = model) -> str:
                return told(lambda: "taken" if model.model_validate(given) else "")

            yield f"=== {kind} {name}: {tried(whole)}"
            for at in leaves(whole, most=1):
                value = whole
                for key in at:
                    value = value[key]
                where = ".".join(map(str, at))
                others = [GONE] if isinstance(value, (int, float)) else [GONE, "x", []]
                for other in others:
                    shown = "left out" if other is GONE else f"= {other!r}"
                    found = tried(with_change(whole, at, other))
                    if "Value error" in found or "Error: " in found:  # not of one key by itself
                        yield f"{where} {shown}: {found}"
