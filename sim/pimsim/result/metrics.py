"""The figures of a run, each declared once: what it is called in tables, pages, timelines, sweeps
and searches, in which unit it is shown, where it comes from, and which of its values are better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pimsim.result.types import Result

__all__ = ["METRICS", "PRICED", "Metric", "Row", "figure", "metric_label"]


class Row(Protocol):
    """Values by column: a mapping, or a row of a frame."""

    def get(self, key: str, default: Any = ..., /) -> Any:
        """The value of a column; ``default`` where there is none."""


@dataclass(frozen=True)
class Metric:
    """A figure of a run."""

    name: str
    """In tables, searches and constraints; with its unit, where it has one."""
    words: str
    """In pages, tables of a terminal and axes."""
    unit: str
    """As it is shown; empty: a count."""
    meaning: str
    """More of it, for who chooses an objective."""
    better: Literal["higher", "lower"]
    field: str
    """Of ``result.json`` and of a sweep's table; parts behind dots."""
    digits: int = 1
    """Behind the point, as it is shown."""
    significant: int = 0
    """Digits in all, in place of those behind the point; 0: these."""
    scale: float = 1.0
    """Units of one of the field's."""
    reciprocal: bool = False
    """It is ``scale`` over the field, not the field times ``scale``."""
    heading: str = ""
    """Of its column in a table; empty: its unit."""
    factors: tuple[tuple[str, int], ...] = ()
    """Further fields, and the powers of them that it is multiplied by."""

    def of(self, source: Result | Row) -> float:
        """The figure of a result, or of a row of a sweep's table.

        Returns
        -------
        float
            In the unit of the name: a share where that is shown in percent. NaN where the source
            does not have it, or does not know it; infinite where it is a reciprocal of nothing.
        """
        found = figure(source, self.field)
        value = float("nan") if found is None else float(found)
        if not self.reciprocal:
            value = value if self.unit.startswith("%") else value * self.scale
        else:
            value = self.scale / value if value else float("inf")
        for path, power in self.factors:
            found = figure(source, path)
            factor = float("nan") if found is None else float(found)
            value *= factor**power if factor or power > 0 else float("inf")
        return value

    def number(self, value: float, digits: int | None = None) -> str:
        """A value, in the unit of the name, as text without the unit; empty where it is none."""
        if value != value or value in (float("inf"), float("-inf")):
            return ""
        if digits is None and self.significant:
            return f"{float(f'{value:.{self.significant}g}'):,.15g}"
        places = self.digits if digits is None else digits
        if self.unit.startswith("%"):
            return f"{value:.{places}%}"
        return f"{value:,.{places}f}"

    def text(self, value: float, digits: int | None = None) -> str:
        """A value with its unit; ``none`` where there is none."""
        number = self.number(value, digits)
        if not number:
            return "none"
        return f"{number} {self.unit.removeprefix('%').strip()}".rstrip()

    @property
    def label(self) -> str:
        """Of an axis: words and unit."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    @property
    def column(self) -> str:
        """What heads its column in a table."""
        return self.heading or self.unit or self.words

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """To better values."""
        return "maximize" if self.better == "higher" else "minimize"


def figure(source: Result | Row, path: str) -> Any:
    """A figure of a result, or of a row of a sweep's table.

    Parameters
    ----------
    source
        Of it.
    path
        Of ``result.json`` and of a sweep's table; parts behind dots.

    Returns
    -------
    Any
        Not a number, or None, where there is none.
    """
    if not isinstance(source, Result):
        return source.get(path, float("nan"))
    value: Any = source
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name, float("nan"))
        else:
            value = getattr(value, name, None)
    return value


METRICS: Mapping[str, Metric] = {
    each.name: each
    for each in (
        Metric(
            "tokens_per_s", "throughput", "tokens/s", "tokens a second of all devices", "higher",
            "tokens_per_s",
        ),
        Metric(
            "cycles", "cycles", "", "cycles of the simulated blocks", "lower", "cycles", digits=0
        ),
        Metric("time_s", "time", "s", "time of the simulated blocks", "lower", "time_s", digits=6),
        Metric(
            "iteration_s", "iteration", "s",
            "time of an iteration of all blocks: TPOT of a decode, TTFT of whole prompts", "lower",
            "iteration_s", digits=6,
        ),
        Metric(
            "devices", "devices", "", "devices that share the model", "lower", "devices", digits=0
        ),
        Metric(
            "npu", "multiply-accumulates", "% of peak",
            "multiply-accumulates of the NPU's arrays or of the GPU, of those that they could do",
            "higher", "utilisation.npu", heading="MACs",
        ),
        Metric(
            "vector", "vector units", "% of the time", "vector units at work", "higher",
            "utilisation.vector", heading="vector",
        ),
        Metric(
            "pim", "PIM at work", "% of the time", "PIM commands under way, over the channels",
            "higher", "utilisation.pim", heading="PIM",
        ),
        Metric(
            "dram_bus", "DRAM data buses", "% of the time", "data buses busy, over the channels",
            "higher", "utilisation.dram_bus", heading="DRAM bus",
        ),
        Metric(
            "command_bus", "DRAM command buses", "% of the time", "C/A buses busy", "higher",
            "utilisation.command_bus", heading="C/A bus",
        ),
        Metric(
            "energy_j", "energy of the blocks", "J",
            "energy of one device for the simulated blocks", "lower", "energy_j.total", digits=5,
        ),
        Metric(
            "mj_per_token", "energy", "mJ/token", "energy of a token, all devices", "lower",
            "tokens_per_j", digits=3, scale=1e3, reciprocal=True,
        ),
        Metric(
            "tokens_per_j", "tokens for energy", "tokens/J",
            "tokens of a joule (tokens/s per watt), all devices", "higher", "tokens_per_j",
            digits=2,
        ),
        Metric(
            "area_mm2", "silicon", "mm2", "silicon of all devices, by configs/area", "lower",
            "area_mm2.total", digits=0,
        ),
        Metric(
            "logic_mm2", "logic silicon", "mm2",
            "silicon of all devices' logic dies, by configs/area", "lower", "area_mm2.logic_dies",
            digits=0, heading="mm2 of logic",
        ),
        Metric(
            "dram_mm2", "DRAM silicon", "mm2",
            "silicon of all devices' DRAM dies, PIM in them, by configs/area", "lower",
            "area_mm2.dram_dies", digits=0, heading="mm2 of DRAM",
        ),
        Metric(
            "memory_gib", "memory", "GiB", "DRAM of all devices", "lower", "memory_bytes",
            digits=0, scale=2**-30,
        ),
        Metric(
            "tokens_per_s_device", "throughput of a device", "tokens/s/device",
            "tokens a second of all devices over how many they are", "higher", "tokens_per_s",
            factors=(("devices", -1),),
        ),
        Metric(
            "tokens_per_s_mm2", "throughput of silicon", "tokens/s/mm2",
            "tokens a second over the silicon of all devices", "higher", "tokens_per_s",
            significant=5, factors=(("area_mm2.total", -1),),
        ),
        Metric(
            "tokens_per_s_logic_mm2", "throughput of logic silicon", "tokens/s/mm2",
            "tokens a second over the silicon of all logic dies", "higher", "tokens_per_s",
            significant=5, heading="tokens/s/mm2 of logic",
            factors=(("area_mm2.logic_dies", -1),),
        ),
        Metric(
            "tokens_per_s_dram_mm2", "throughput of DRAM silicon", "tokens/s/mm2",
            "tokens a second over the silicon of all DRAM dies", "higher", "tokens_per_s",
            significant=5, heading="tokens/s/mm2 of DRAM",
            factors=(("area_mm2.dram_dies", -1),),
        ),
        Metric(
            "power_w", "power", "W", "mean power of one device over the simulated blocks", "lower",
            "power_w.total",
        ),
        Metric(
            "energy_delay_js", "energy-delay product", "J s",
            "energy of an iteration, all devices, times its time", "lower", "tokens_per_s",
            significant=4, factors=(("iteration_s", 2), ("tokens_per_j", -1)),
        ),
        Metric(
            "cost", "cost of the machine", "",
            "parts of all devices at the user's prices (--prices, prices of a search)", "lower",
            "cost.total", significant=4, heading="cost",
        ),
        Metric(
            "tokens_per_s_cost", "throughput for its cost", "tokens/s/cost",
            "tokens a second over what the machine costs at the user's prices", "higher",
            "tokens_per_s", significant=4, factors=(("cost.total", -1),),
        ),
        Metric(
            "cost_million_tokens", "cost of tokens", "cost/Mtoken",
            "of a million tokens at the user's prices: the machine's part, and energy where it has "
            "a price", "lower", "cost.million_tokens", significant=4,
        ),
    )
}  # fmt: skip
"""By name."""


PRICED = ("cost", "tokens_per_s_cost", "cost_million_tokens")
"""Metrics that the user's prices give a value to (``result.cost``)."""


def metric_label(column: str) -> str:
    """What an axis is called that shows a column of a sweep's table, or a metric.

    Parameters
    ----------
    column
        Name of a metric, of a figure or of a key.
    """
    for each in METRICS.values():
        plain = not each.reciprocal and not each.factors and each.scale == 1.0
        if each.name == column or (each.field == column and plain):
            return each.label
    return column
