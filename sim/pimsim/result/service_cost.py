"""What a service costs at the user's prices; none ship."""

from __future__ import annotations

from pimsim.config.prices import Prices
from pimsim.result.cost import energy_cost
from pimsim.result.service_types import Cost

__all__ = ["service_cost"]

_S_PER_HOUR = 3600.0
_MILLION = 1e6


def service_cost(
    prices: Prices | None, replica_hour: float, replica_s: float, decode_replica_s: float,
    joule: float | None, tokens: int, fed: int,
) -> Cost | None:  # fmt: skip
    """Cost of replicas, whether they work or not, and of what they draw.

    Parameters
    ----------
    prices
        None: there are none, so that nothing is told.
    replica_hour
        What a replica costs for an hour (``cost.hour_cost``).
    replica_s
        Seconds of all replicas, one after the other; of those that feed prompts where there is a
        second pool.
    decode_replica_s
        The same of the second pool.
    joule
        Of all replicas; None: it is not known.
    tokens
        That were made.
    fed
        The same and those of prompts.

    Returns
    -------
    Cost or None
        In the currency of the prices.
    """
    if prices is None:
        return None
    second = replica_hour if prices.decode_replica_hour is None else prices.decode_replica_hour
    machines = (replica_hour * replica_s + second * decode_replica_s) / _S_PER_HOUR
    energy = 0.0
    if prices.kwh is not None and joule is not None:
        energy = energy_cost(prices.kwh, prices.power_overhead, joule)
    total = machines + energy
    return {
        "currency": prices.currency,
        "total": total,
        "machines": machines,
        "energy": energy,
        "million_tokens_made": total / tokens * _MILLION if tokens else None,
        "million_tokens": total / fed * _MILLION if fed else None,
    }
