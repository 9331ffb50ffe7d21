"""Decoding strategies whose drafts a scheduler's steps verify."""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.service import MOST_DRAFTS, SpeculationConfig
from pimsim.serving.ending import Speculation
from pimsim.workload.decoding import DecodingStrategy, load_strategy

__all__ = ["equal_acceptance", "guesses"]

_HALVINGS = 60
"""Of the interval of an acceptance, which is then known to the last bit."""


def guesses(config: SpeculationConfig, seed: int) -> Speculation:
    """What the scheduler guesses, and how much of it is right.

    Parameters
    ----------
    config
        Of the service.
    seed
        Of drafts that are right.

    Raises
    ------
    InputError
        For a strategy whose rounds are no steps of a scheduler.
    """
    if config.strategy is None:
        assert config.drafts is not None and config.accept is not None
        return Speculation(config.drafts, config.accept, seed)
    strategy = load_strategy(config.strategy)
    reason = _unlike_a_step(strategy)
    if reason:
        raise InputError(f"speculation.strategy: {config.strategy!r} {reason}")
    return Speculation(strategy.depth, equal_acceptance(strategy.made, strategy.depth), seed)


def _unlike_a_step(strategy: DecodingStrategy) -> str:
    """Why a scheduler's step does not verify what the strategy guesses; empty: it does."""
    kind = type(strategy)
    if kind.drafter is not DecodingStrategy.drafter:
        return (
            "drafts on the device, and steps of a service are the model's alone; allowed: what "
            "the host guesses (prompt_lookup), or drafts and accept, which take no time"
        )
    if kind.passes is not DecodingStrategy.passes:
        return "feeds blocks of masks, which schedulers do not"
    if kind.model is not DecodingStrategy.model or strategy.rows != strategy.depth + 1:
        return (
            "adds operators or trees to a step, and those of a service are the model's alone; "
            "allowed: drafts in a row that the host guesses (prompt_lookup)"
        )
    if not 1 <= strategy.depth <= MOST_DRAFTS:
        return f"has {strategy.depth} drafts; allowed: 1 to {MOST_DRAFTS}"
    if strategy.settings.host_us and not strategy.settings.host_overlapped:
        return (
            "has the host work between steps (host_us), which a scheduler's steps do not wait "
            "for; allowed: host_overlapped=true, or host_us=0"
        )
    return ""


def equal_acceptance(made: float, depth: int) -> float:
    """The acceptance of each draft, behind right ones, with which rounds make ``made`` tokens.

    Parameters
    ----------
    made
        Tokens of a round on average, the model's own included; 1 to ``depth`` + 1.
    depth
        Drafts in a row.

    Returns
    -------
    float
        ``a`` of ``1 + a + ... + a^depth = made`` (Leviathan et al. 2023, arXiv 2211.17192,
        equation 1).
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(middle**at for at in range(depth + 1)) < made:
            low = middle
        else:
            high = middle
    return high
