"""Timings of a memory that a design's own rules and latencies read, and another value of each."""

from __future__ import annotations

from pimsim.config.delay import timing_names
from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim

__all__ = ["memory_knobs"]


def memory_knobs(preset: str) -> list[tuple[str, int]]:
    """Keys of the preset's memory, each with a value that the memory takes.

    A short time that the preset has as long as the long one, which may be no shorter, binds nothing
    by itself.
    """
    design = load_stream_pim(preset).config
    delays = [rule.delay for rule in design.rules] + [text for _, text in design.delays()]
    times = design.memory.timings
    read = {
        name for name in timing_names(delays) - design.timings.keys()
        if not name.endswith("_S") or times[name] != times[f"{name[:-1]}L"]
    }  # fmt: skip
    return [(f"memory.timings.{name}", _other(preset, name)) for name in sorted(read)]


def _other(preset: str, name: str) -> int:
    value = load_stream_pim(preset).config.memory.timings[name]
    for other in (3 * value + 300, value + 1, value // 2):
        try:
            load_stream_pim(preset, [f"memory.timings.{name}={other}"])
        except InputError:
            continue
        return other
    raise AssertionError(f"{preset}: no other value of {name} goes with the rest")
