"""What a run's machine costs at the user's prices, and what it does for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pimsim.result.metrics import METRICS, PRICED, Row, figure
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas

    from pimsim.config.prices import PartPrices

__all__ = [
    "Priced", "cost_words", "energy_cost", "machine_cost", "priced_metrics", "priced_table",
]  # fmt: skip

_S_PER_HOUR = 3600.0
_J_PER_KWH = 3.6e6
_GB = 2**30


def energy_cost(kwh: float, power_overhead: float, joule: float) -> float:
    """What energy costs.

    Parameters
    ----------
    kwh
        Price of a kilowatt-hour.
    power_overhead
        Energy at the meter over that of the devices.
    joule
        Of all devices.

    Returns
    -------
    float
        In the currency of the price.
    """
    return kwh * power_overhead * joule / _J_PER_KWH


def machine_cost(prices: PartPrices, get: Callable[[str], float]) -> dict[str, float]:
    """Cost of all devices by part, and of tokens.

    Parameters
    ----------
    prices
        Of parts and energy.
    get
        Figures of a run by their names in ``result.json``; not a number where there is none.

    Returns
    -------
    dict
        ``memory``, ``logic`` and ``devices``, in the currency of the prices, of what has a price;
        ``total``, not a number where the silicon that a price is of is not known; and
        ``million_tokens`` where the prices say in how many ``hours`` the machine is paid off.
    """
    units = {
        "memory": (prices.memory_gb, get("memory_bytes") / _GB),
        "logic": (prices.logic_mm2, get("area_mm2.logic_dies")),
        "devices": (prices.device, get("devices")),
    }
    found = {name: price * count for name, (price, count) in units.items() if price is not None}
    total = sum(found.values())
    found["total"] = total
    if prices.hours is not None:
        rate, tokens_per_j = get("tokens_per_s"), get("tokens_per_j")
        second = total / (prices.hours * _S_PER_HOUR)
        if prices.kwh is not None:
            watt = rate / tokens_per_j if tokens_per_j else float("nan")
            second += energy_cost(prices.kwh, prices.power_overhead, watt)
        found["million_tokens"] = second / rate * 1e6 if rate else float("nan")
    return found


class Priced:
    """A result, or a row of a sweep's table, with what its machine costs, for metrics to be of.

    Parameters
    ----------
    source
        Of the figures.
    prices
        Of parts and energy.
    """

    def __init__(self, source: Result | Row, prices: PartPrices) -> None:
        self._source = source
        self.cost: Mapping[str, float] = machine_cost(prices, lambda path: figure(source, path))
        """Of ``machine_cost``."""

    def get(self, key: str, default: Any = float("nan"), /) -> Any:
        """The value of a column; costs are under ``cost.``."""
        section, _, part = key.partition(".")
        if section == "cost":
            return self.cost.get(part, default)
        return figure(self._source, key)


def priced_metrics(prices: PartPrices | None) -> tuple[str, ...]:
    """Names of the metrics that prices give a value to.

    Parameters
    ----------
    prices
        None: there are none, and no such metric.
    """
    if prices is None:
        return ()
    return tuple(name for name in PRICED if prices.hours or name != "cost_million_tokens")


def cost_words(result: Result, prices: PartPrices) -> Iterator[tuple[str, str]]:
    """What there is to tell of a run's cost: names and values with their units.

    Parameters
    ----------
    result
        Of the run.
    prices
        Of parts and energy.
    """
    priced, coin = Priced(result, prices), prices.currency
    if priced.cost["total"] != priced.cost["total"]:
        yield (
            METRICS["cost"].words,
            "not known: the area of this machine's logic is not (prices without logic_mm2, and "
            "with device, tell it)",
        )
        return
    parts = [f"{name} {value:,.4g}" for name, value in priced.cost.items() if name in _PARTS]
    rate = METRICS["tokens_per_s_cost"]
    yield (
        METRICS["cost"].words,
        f"{priced.cost['total']:,.4g} {coin} of all devices ({', '.join(parts)}), "
        f"{rate.number(rate.of(priced))} {METRICS['tokens_per_s'].unit}/{coin}",
    )
    if "million_tokens" in priced.cost:
        yield (
            METRICS["cost_million_tokens"].words,
            f"{priced.cost['million_tokens']:,.4g} {coin} for a million, paid off in "
            f"{prices.hours:,g} hours{'' if prices.kwh is None else ', with energy'}",
        )


_PARTS = ("memory", "logic", "devices")


def priced_table(table: pandas.DataFrame, prices: PartPrices | None) -> pandas.DataFrame:
    """A sweep's table with the costs of each point in columns ``cost.``.

    Parameters
    ----------
    table
        A row a point.
    prices
        None: the table as it is.
    """
    if prices is None or "tokens_per_s" not in table:
        return table
    costs = [Priced(row, prices).cost for row in table.to_dict("records")]
    names = [f"cost.{name}" for name in costs[0]] if costs else []
    return table.assign(**{name: [cost[name[5:]] for cost in costs] for name in names})
