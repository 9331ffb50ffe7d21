"""What ``workload.routing`` may say, and the routing that it means."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from pimsim.config.errors import InputError, near_miss
from pimsim.config.resources import find_source
from pimsim.workload.moe import Routing, UniformRouting
from pimsim.workload.routing.file import read_routing
from pimsim.workload.routing.generators import TokenIdRouting, ZipfRouting
from pimsim.workload.routing.replay import CapacityLimit, TraceRouting

__all__ = ["GENERATORS", "load_routing"]

GENERATORS = ("uniform", "zipf:EXPONENT", "token-id", "token-id:EXPONENT")


def load_routing(
    spec: str, *, layers: int, experts: int, experts_per_token: int, seed: int = 0,
    capacity_factor: float | None = None,
) -> Routing:  # fmt: skip
    """The routing that ``spec`` names, for a model of this shape.

    ``uniform``, ``zipf:1.2``, ``token-id`` (or ``token-id:1.0``), the name of a shipped trace, or
    a Parquet file. ``capacity_factor``: experts drop what exceeds it. Raises ``InputError`` for an
    unknown name, an exponent that is none, or a trace of another shape.
    """
    routing = _routing(spec, layers, experts, experts_per_token, seed)
    if capacity_factor is None:
        return routing
    return CapacityLimit(routing, capacity_factor, experts, experts_per_token)


def _routing(spec: str, layers: int, experts: int, per_token: int, seed: int) -> Routing:
    name, _, argument = spec.partition(":")
    if name == "uniform" and not argument:
        return UniformRouting(experts, per_token, seed)
    if name == "zipf":
        return ZipfRouting(experts, per_token, _exponent(spec, argument), seed)
    if name == "token-id":
        exponent = _exponent(spec, argument) if argument else 1.0
        return TokenIdRouting(experts, per_token, exponent, seed=seed)
    try:
        path = find_source("routing", spec)
    except InputError as error:
        raise InputError(
            f"workload.routing: {spec!r} is none of {', '.join(GENERATORS)}"
            f"{near_miss(name, ['uniform', 'zipf', 'token-id'])}, and {error}"
        ) from None
    return _replay(path, layers, experts, per_token, seed)


def _replay(path: Path, layers: int, experts: int, per_token: int, seed: int) -> Routing:
    trace = read_routing(path)
    shape = {"layers": layers, "experts": experts, "experts_per_token": per_token}
    for name, expected in shape.items():
        found = getattr(trace, name)
        if found != expected:
            raise InputError(f"{path}: {name} is {found}, the model has {expected}")
    return TraceRouting(trace, seed)


def _exponent(spec: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not 0 <= value <= 10:
        raise InputError(f"workload.routing: {spec!r}: an exponent of 0 to 10 is expected")
    return value
