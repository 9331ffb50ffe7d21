"""The rounds of a decoding strategy, from the runs of the model and of its drafter.

Drafts, verification and, unless it overlaps, the host follow one another: the next pass needs what
the one before it found out. Energy of a round is that of the passes, and what all devices draw with
nothing to do while they wait for the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import fsum

from pimsim.result.rows import Decoding
from pimsim.result.types import Result
from pimsim.workload.rounds import Rounds

__all__ = ["with_pass_before", "with_rounds"]


def with_rounds(result: Result, asked: str, rounds: Rounds, draft: Result | None) -> Result:
    """The run of the model's passes as the run of whole rounds.

    Parameters
    ----------
    result
        Of the passes that verify.
    asked
        The strategy, as the config has it.
    rounds
        What was simulated.
    draft
        Of the drafter's passes; None: it has none.
    """
    settings = rounds.strategy.settings
    verify_s, draft_s = result.iteration_s, 0.0 if draft is None else draft.iteration_s
    device_s, host_s = verify_s + draft_s, rounds.host_s
    round_s = max(device_s, host_s) if settings.host_overlapped else device_s + host_s
    made = rounds.made * rounds.count * len(rounds.steps[0].entries)
    passes = [result] if draft is None else [result, draft]
    waited_j = result.devices * result.idle_w * (round_s - device_s)
    joule = {part: fsum(each.token_j[part] * each.tokens for each in passes)
             for part in result.token_j}  # fmt: skip
    for part in ("static", "total"):
        joule[part] += waited_j
    interval = result.tokens_per_s_interval
    if interval is not None:
        others_s = round_s - verify_s
        interval = (
            _rate(made, result.tokens, interval[0], others_s),
            _rate(made, result.tokens, interval[1], others_s),
        )
    return replace(
        result,
        tokens_per_s=made / round_s,
        tokens_per_s_interval=interval,
        tokens_per_j=made / joule["total"] if joule["total"] else 0.0,
        token_j={part: each / made for part, each in joule.items()},
        iteration_s=round_s,
        decoding=Decoding(
            strategy=asked,
            rows=rounds.strategy.rows,
            tokens_a_step=rounds.made,
            made=made,
            verify_s=verify_s,
            draft_s=draft_s,
            host_s=host_s,
            host_overlapped=settings.host_overlapped,
            added_bytes=rounds.added_bytes,
            flops_share=_shares(passes),
            draft_model="" if draft is None else draft.model,
        ),
        warnings=(
            *result.warnings,
            *(f"drafts: {words}" for each in passes[1:] for words in each.warnings),
        ),
    )


def with_pass_before(result: Result, first: Result, tokens: int) -> Result:
    """The run of two passes of which the first chooses what the second is fed.

    Parameters
    ----------
    result
        Of the second.
    first
        Of the first.
    tokens
        That were asked to be fed, of all requests.
    """
    whole_s = first.iteration_s + result.iteration_s
    joule = {
        part: fsum(each.token_j.get(part, 0.0) * each.tokens for each in (first, result))
        for part in result.token_j
    }
    interval = result.tokens_per_s_interval
    if interval is not None:
        low, high = (first.iteration_s + result.tokens / each for each in interval)
        interval = tokens / low, tokens / high
    return replace(
        result,
        tokens=tokens,
        tokens_per_s=tokens / whole_s,
        tokens_per_s_interval=interval,
        tokens_per_j=tokens / joule["total"] if joule["total"] else 0.0,
        token_j={part: each / tokens for part, each in joule.items()},
        iteration_s=whole_s,
        warnings=(*result.warnings, *(f"pass before: {words}" for words in first.warnings)),
    )


def _rate(made: float, fed: int, fed_per_s: float, others_s: float) -> float:
    """Tokens a second where the model's passes feed so many a second."""
    return made / (fed / fed_per_s + others_s)


def _shares(passes: Iterable[Result]) -> Mapping[str, float]:
    """Arithmetic by unit; blocks that were not simulated are like those that were."""
    flops: dict[str, float] = {}
    for each in passes:
        more = each.layers_model / each.layers_simulated
        for row in each.operators:
            times = more if row.layer < each.layers_model else 1.0
            flops[row.unit] = flops.get(row.unit, 0.0) + times * row.flops
    whole = fsum(flops.values())
    return {unit: flops[unit] / whole for unit in sorted(flops) if flops[unit]}
