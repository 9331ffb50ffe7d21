"""Loads of experts as aiconfigurator's collector of MoE deals them (ai-dynamo/aiconfigurator,
``collector/helper.py``), whose rows say no more than the distribution's name.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.draws import RandomStream

__all__ = ["balanced_loads", "device_loads", "drawn_loads"]

Ints = NDArray[np.int64]

DRAWS = 5
"""Steps that a row is the mean of; the collector's are not seeded."""
_EVEN_SINCE = (0, 15)
"""Version of vLLM from which on its collector deals the rest in turns over the devices."""


def balanced_loads(tokens: int, experts: int, choices: int) -> Ints:
    """Token ``i``'s ``j``-th expert is ``i + j ceil(experts / choices)``, modulo ``experts``.

    Parameters
    ----------
    tokens
        Of the batch.
    experts
        Of a layer.
    choices
        Experts of a token.

    Returns
    -------
    Ints
        (experts,), tokens.
    """
    stride = -(-experts // choices)
    token = np.arange(tokens)[:, None]
    first = token if tokens >= stride else token * stride // tokens
    chosen = (first + np.arange(choices)[None] * stride) % experts
    return np.bincount(chosen.ravel(), minlength=experts).astype(np.int64)


def drawn_loads(
    tokens: int, experts: int, choices: int, alpha: float, devices: int, stream: RandomStream
) -> Ints:
    """Loads from a density x^-alpha, rounded; the rest goes to (or comes from) the least (the most)
    loaded expert, in turns over ``devices`` equal shares of the experts.

    Parameters
    ----------
    tokens
        Of the batch.
    experts
        Of a layer.
    choices
        Experts of a token.
    alpha
        Exponent, not 1.
    devices
        Equal shares of the experts.
    stream
        Drawn from.

    Returns
    -------
    Ints
        (experts,), tokens.

    References
    ----------
    ai-dynamo/aiconfigurator, collector/helper.py.
    """
    low, high = (1.0, 0.8 * tokens) if tokens * choices > experts else (0.01, 2.0)
    power = 1 - alpha
    uniform = stream.uniform(experts)
    drawn = ((high**power - low**power) * uniform + low**power) ** (1 / power)
    loads = np.rint(drawn / drawn.sum() * tokens * choices).astype(np.int64)
    loads = np.minimum(loads, tokens).reshape(devices, -1)
    left = tokens * choices - int(loads.sum())
    turn = 0
    while left:
        share = loads[turn % devices]
        turn += 1
        at = int(share.argmin() if left > 0 else share.argmax())
        if left > 0 and share[at] < tokens:
            share[at] += 1
            left -= 1
        elif left < 0 and share[at] > 0:
            share[at] -= 1
            left += 1
    return np.ravel(loads).astype(np.int64)


def device_loads(
    distribution: str, tokens: int, experts: int, choices: int, devices: int, version: str
) -> list[Ints]:
    """Loads of the fullest device (balanced: of the first), of each step that a row is made of.

    Parameters
    ----------
    distribution
        ``balanced`` or ``power_law_ALPHA``.
    tokens
        Of the batch.
    experts
        Of a layer.
    choices
        Experts of a token.
    devices
        That have an equal share of the experts each.
    version
        Of the collector, whose rule changed.

    Returns
    -------
    list[Ints]
        (experts / devices,) each, tokens.

    Raises
    ------
    InputError
        For a distribution that is neither.

    References
    ----------
    ai-dynamo/aiconfigurator, collector/helper.py.
    """
    share = experts // devices
    if distribution == "balanced":
        return [balanced_loads(tokens, experts, choices)[:share]]
    name, _, alpha = distribution.rpartition("_")
    try:
        exponent = float(alpha)
    except ValueError:
        exponent = 1.0
    if name != "power_law" or exponent == 1:
        raise InputError(
            f"distribution: found {distribution!r}; allowed: balanced, power_law_ALPHA (not 1)"
        )
    stream = RandomStream(0)
    turns = devices if _version(version) >= _EVEN_SINCE else 1
    found = []
    for _ in range(DRAWS):
        loads = drawn_loads(tokens, experts, choices, exponent, turns, stream)
        shares = loads.reshape(devices, share)
        found.append(shares[int(shares.sum(axis=1).argmax())])
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
