"""What a run's machine costs at the user's prices, and what it does for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pimsim.result.metrics import METRICS, PRICED, Row, figure
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas

    from pimsim.config.prices import Prices

__all__ = [
    "Priced", "cost_words", "energy_cost", "hour_cost", "machine_cost", "missing_price",
    "priced_metrics", "priced_table",
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


def machine_cost(prices: Prices, get: Callable[[str], float]) -> dict[str, float]:
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
        ``memory``, ``logic`` and ``devices``, in the currency of the prices, of what has a price,
        and their ``total``, not a number where the silicon that a price is of is not known; nothing
        of these where the machine has a price by the hour. ``million_tokens``, where an hour of
        the machine has a price.
    """
    found = _parts(prices, get) if prices.of_parts else {}
    if prices.of_time:
        rate, tokens_per_j = get("tokens_per_s"), get("tokens_per_j")
        second = hour_cost(prices, get) / _S_PER_HOUR
        if prices.kwh is not None:
            watt = rate / tokens_per_j if tokens_per_j else float("nan")
            second += energy_cost(prices.kwh, prices.power_overhead, watt)
        found["million_tokens"] = second / rate * 1e6 if rate else float("nan")
    return found


def hour_cost(prices: Prices, get: Callable[[str], float]) -> float:
    """Cost of all devices of a machine for an hour, without what they draw.

    Parameters
    ----------
    prices
        That have a price of time.
    get
        Figures of the machine by their names in ``result.json``; not a number where there is none.

    Returns
    -------
    float
        Not a number where the silicon that a price is of is not known, or time has no price.
    """
    if prices.replica_hour is not None:
        return prices.replica_hour
    return _parts(prices, get)["total"] / (prices.hours or float("nan"))


def _parts(prices: Prices, get: Callable[[str], float]) -> dict[str, float]:
    """Of all devices, and their sum."""
    units = {
        "memory": (prices.memory_gb, get("memory_bytes") / _GB),
        "logic": (prices.logic_mm2, get("area_mm2.logic_dies")),
        "devices": (prices.device, get("devices")),
    }
    found = {name: price * count for name, (price, count) in units.items() if price is not None}
    return {**found, "total": sum(found.values())}


class Priced:
    """A result, or a row of a sweep's table, with what its machine costs, for metrics to be of.

    Parameters
    ----------
    source
        Of the figures.
    prices
        Of parts and energy.
    """

    def __init__(self, source: Result | Row, prices: Prices) -> None:
        self._source = source
        self.cost: Mapping[str, float] = machine_cost(prices, lambda path: figure(source, path))
        """Of ``machine_cost``."""

    def get(self, key: str, default: Any = float("nan"), /) -> Any:
        """The value of a column; costs are under ``cost.``."""
        section, _, part = key.partition(".")
        if section == "cost":
            return self.cost.get(part, default)
        return figure(self._source, key)


def priced_metrics(prices: Prices | None) -> tuple[str, ...]:
    """Names of the metrics that prices give a value to.

    Parameters
    ----------
    prices
        None: there are none, and no such metric.
    """
    if prices is None:
        return ()
    return tuple(
        name for name in PRICED
        if (prices.of_time if name in _OF_TIME else prices.of_parts)
    )  # fmt: skip


def missing_price(name: str, prices: Prices | None) -> str:
    """What prices must have for a metric that they give no value to, for a message.

    Parameters
    ----------
    name
        Of the metric.
    prices
        None: there are none.
    """
    if name in _OF_TIME:
        return " with hours or replica_hour"
    return "" if prices is None else " with memory_gb, logic_mm2 or device"


def cost_words(result: Result, prices: Prices) -> Iterator[tuple[str, str]]:
    """What there is to tell of a run's cost: names and values with their units.

    Parameters
    ----------
    result
        Of the run.
    prices
        Of parts and energy.
    """
    priced, coin = Priced(result, prices), prices.currency
    total = priced.cost.get("total", 0.0)
    if total != total:
        yield (
            METRICS["cost"].words,
            "not known: the area of this machine's logic is not (prices without logic_mm2, and "
            "with device, tell it)",
        )
        return
    if prices.of_parts:
        parts = [f"{name} {value:,.4g}" for name, value in priced.cost.items() if name in _PARTS]
        rate = METRICS["tokens_per_s_cost"]
        yield (
            METRICS["cost"].words,
            f"{total:,.4g} {coin} of all devices ({', '.join(parts)}), "
            f"{rate.number(rate.of(priced))} {METRICS['tokens_per_s'].unit}/{coin}",
        )
    if "million_tokens" in priced.cost:
        yield (
            METRICS["cost_million_tokens"].words,
            f"{priced.cost['million_tokens']:,.4g} {coin} for a million, {_time_words(prices)}"
            f"{'' if prices.kwh is None else ', with energy'}",
        )


def _time_words(prices: Prices) -> str:
    """How an hour of the machine is paid for."""
    if prices.replica_hour is not None:
        return f"at {prices.replica_hour:,g} {prices.currency} an hour"
    return f"paid off in {prices.hours:,g} hours"


_PARTS = ("memory", "logic", "devices")
_OF_TIME = ("cost_million_tokens",)


def priced_table(table: pandas.DataFrame, prices: Prices | None) -> pandas.DataFrame:
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
