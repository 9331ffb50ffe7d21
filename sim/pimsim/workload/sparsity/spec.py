"""What ``workload.sparsity`` may say, and the masks that it means."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError, near_miss
from pimsim.config.resources import find_source
from pimsim.workload.draws import RandomStream
from pimsim.workload.sparsity.file import SparsityTrace, read_sparsity
from pimsim.workload.sparsity.laws import COEFFICIENTS, activation_ratio

__all__ = ["LawSparsity", "Sparsity", "TraceSparsity", "load_sparsity"]

Mask = NDArray[np.bool_]
_LAW = "law:relu|silu[:size=1.2b][:tokens=BILLIONS][:width-depth=RATIO]"


class Sparsity(Protocol):
    """A source of active features."""

    def active(self, layer: int, tokens: int) -> Mask:
        """Features of block ``layer`` at work for each token, shape (tokens, ffn). The same
        arguments give the same answer."""


@dataclass(frozen=True)
class TraceSparsity:
    """Tokens of a batch are tokens of the trace, drawn once and the same in every block."""

    trace: SparsityTrace
    seed: int = 0

    def active(self, layer: int, tokens: int) -> Mask:
        """See ``Sparsity``."""
        count = self.trace.active.shape[1]
        random = RandomStream(self.seed, 5)
        rounds = -(-tokens // count)
        at = np.concatenate([random.permutation(count) for _ in range(rounds)])[:tokens]
        found: Mask = self.trace.active[layer][at]
        return found


@dataclass(frozen=True)
class LawSparsity:
    """Features are active independently of each other, each as often as it is popular.

    The mean is the law's ratio; popularity is a beta distribution of concentration 1 (a generalised
    arcsine law), so a few features work for most tokens and most for few (**assumed**; the paper's
    figure 9 shows such skew without numbers)."""

    ratio: float
    ffn: int
    seed: int = 0

    def active(self, layer: int, tokens: int) -> Mask:
        """See ``Sparsity``."""
        random = RandomStream(self.seed, layer, 6)
        popularity = random.arcsine(min(max(self.ratio, 1e-9), 1 - 1e-9), self.ffn)
        found: Mask = random.uniform(tokens, self.ffn) < popularity
        return found


def load_sparsity(spec: str, *, layers: int, ffn: int, seed: int = 0) -> Sparsity | None:
    """The sparsity that ``spec`` names, for a model of this shape; None for ``none``.

    Parameters
    ----------
    spec
        ``none``, ``law:relu:tokens=1000`` (billions), the name of a shipped trace, or a Parquet
        file.
    layers
        Blocks of the model.
    ffn
        Features of a feed-forward network.
    seed
        Of what is drawn.

    Raises
    ------
    InputError
        For an unknown name or key, or a trace of another shape.
    """
    if spec == "none":
        return None
    if spec.startswith("law:"):
        return LawSparsity(_law_ratio(spec), ffn, seed)
    try:
        path = find_source("sparsity", spec)
    except InputError as error:
        raise InputError(
            f"workload.sparsity: {spec!r} is neither 'none' nor {_LAW}, and {error}"
        ) from None
    trace = read_sparsity(path)
    for name, expected in {"layers": layers, "ffn": ffn}.items():
        found = getattr(trace, name)
        if found != expected:
            raise InputError(f"{path}: {name} is {found}, the model has {expected}")
    return TraceSparsity(trace, seed)


def _law_ratio(spec: str) -> float:
    _, activation, *rest = spec.split(":")
    if activation not in COEFFICIENTS:
        raise InputError(
            f"workload.sparsity: {spec!r}: no law for {activation!r}"
            f"{near_miss(activation, COEFFICIENTS)}; {_LAW}"
        )
    values = {"size": "1.2b", "tokens": "1000", "width-depth": ""}
    for part in rest:
        key, separator, value = part.partition("=")
        if key not in values or not separator:
            raise InputError(
                f"workload.sparsity: {spec!r}: unknown {part!r}{near_miss(key, values)}; {_LAW}"
            )
        values[key] = value
    size = values["size"].lower()
    if size not in COEFFICIENTS[activation]:
        known = ", ".join(COEFFICIENTS[activation])
        raise InputError(f"workload.sparsity: {spec!r}: size {size!r}; known: {known}")
    tokens = _number(spec, "tokens", values["tokens"])
    ratio = values["width-depth"]
    return activation_ratio(
        activation, size, tokens, _number(spec, "width-depth", ratio) if ratio else None
    )


def _number(spec: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or value <= 0:
        raise InputError(f"workload.sparsity: {spec!r}: {key} must be a number above 0")
    return value
