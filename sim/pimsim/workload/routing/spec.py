"""What ``workload.routing`` may say, and the routing that it means."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from pimsim.config.errors import InputError, near_miss
from pimsim.config.resources import find_source
from pimsim.workload.moe import Routing, UniformRouting
from pimsim.workload.routing.shape import MoeShape

if TYPE_CHECKING:
    from pimsim.workload.routing.file import RoutingTrace

__all__ = ["GENERATORS", "load_routing"]

GENERATORS = ("uniform", "zipf:EXPONENT", "token-id", "token-id:EXPONENT")


def load_routing(
    spec: str, shape: MoeShape, *, seed: int = 0, capacity_factor: float | None = None
) -> Routing:
    """The routing that ``spec`` names, for a model of this shape.

    Parameters
    ----------
    spec
        ``uniform``, ``zipf:1.2``, ``token-id`` (or ``token-id:1.0``), the name of a shipped trace,
        a Parquet file, or what a server recorded (``pimsim import-routing``).
    shape
        Of the model's experts.
    seed
        Of what is drawn.
    capacity_factor
        Experts drop what exceeds this multiple of their even share; None: nothing.

    Raises
    ------
    InputError
        For an unknown name, an exponent that is none, or a trace of another shape.
    """
    routing = _routing(spec, shape, seed)
    if capacity_factor is None:
        return routing
    from pimsim.workload.routing.replay import CapacityLimit

    return CapacityLimit(routing, capacity_factor, shape.experts, shape.experts_per_token)


def _routing(spec: str, shape: MoeShape, seed: int) -> Routing:
    experts, per_token = shape.experts, shape.experts_per_token
    name, _, argument = spec.partition(":")
    if name == "uniform" and not argument:
        return UniformRouting(experts, per_token, seed)
    # what most runs do not ask for is loaded by those that do
    from pimsim.workload.routing.generators import TokenIdRouting, ZipfRouting
    from pimsim.workload.routing.replay import TraceRouting

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
    return TraceRouting(_trace(path, shape), seed)


def _trace(path: Path, shape: MoeShape) -> RoutingTrace:
    """A trace of ours, or what a server recorded, of this model."""
    from pimsim.workload.routing.file import is_routing_file, read_routing

    if not is_routing_file(path):
        from pimsim.workload.routing.servers import import_routing

        return import_routing([path], shape).trace
    trace = read_routing(path)
    for name in ("layers", "experts", "experts_per_token"):
        found, expected = getattr(trace, name), getattr(shape, name)
        if found != expected:
            raise InputError(f"{path}: {name} is {found}, the model has {expected}")
    return trace


def _exponent(spec: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not 0 <= value <= 10:
        raise InputError(f"workload.routing: {spec!r}: an exponent of 0 to 10 is expected")
    return value
