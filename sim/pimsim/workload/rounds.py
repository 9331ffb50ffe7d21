"""The rounds of a decoding strategy as steps of models: drafts, and the pass that verifies them.

A round begins with a token of each request that is known and not fed yet. The drafter's passes
feed it what they guess, one after the other; the model is then fed the known token and the drafts.
Of these a request keeps ``made`` tokens on average: the next round begins so many further on, whole
tokens at a time. Of what neither model keeps, keys and values are written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pimsim.config.errors import InputError
from pimsim.config.run import StepsConfig
from pimsim.workload.decoding import DecodingStrategy, Drafter, fed_behind, load_strategy
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["Rounds", "plan_rounds"]


@dataclass(frozen=True)
class Rounds:
    """What a strategy asks of models."""

    strategy: DecodingStrategy
    model: OperatorTrace
    """With what the strategy adds to it."""
    steps: tuple[Step, ...]
    """Of the model, those of one round after those of another."""
    made: float
    """Tokens of a request in a round, on average."""
    added_bytes: int
    """Parameters that the strategy adds to the model's, the drafter's own included."""
    count: int = 1
    """Rounds."""
    drafter: Drafter | None = None
    draft_steps: tuple[Step, ...] = ()
    """Of the drafter, over all rounds."""

    @property
    def host_s(self) -> float:
        """What the host does behind all passes of the model."""
        return len(self.steps) * self.strategy.settings.host_us / 1e6


def plan_rounds(
    workload: StepsConfig, trace: OperatorTrace, requests: Sequence[Request], outside: bool
) -> Rounds:
    """The rounds that ``workload`` asks for.

    Parameters
    ----------
    workload
        With a decoding strategy; ``steps`` are rounds.
    trace
        Of the model.
    requests
        Of the batch.
    outside
        Embedding and output layer are a part of the run.

    Raises
    ------
    InputError
        Where the strategy does not suit the model or the requests.
    """
    strategy = load_strategy(workload.decoding)
    if strategy.beside_blocks and not outside:
        raise InputError(
            f"workload.decoding: {strategy.name} has heads or a drafter beside the decoder blocks, "
            "whose cost would be left out: workload.outside=true takes it in"
        )
    for request in requests:
        if request.new_tokens is not None:
            raise InputError(
                f"workload.decoding: request {request.id} is asked {request.new_tokens} new tokens "
                "(new_tokens of the request trace); a decoding strategy says what is fed"
            )
    made, count = strategy.made, workload.steps or 1
    model, drafter = strategy.model(trace, len(requests)), strategy.drafter(trace)
    begins = [int(number * strategy.advances) for number in range(count + 1)]
    steps = tuple(
        Step(entries)
        for begin, end in pairwise(begins)
        for entries in zip(
            *(strategy.passes(request, begin, end - begin) for request in requests), strict=True
        )
    )
    added = model.facts.parameter_bytes - trace.facts.parameter_bytes
    drafts: list[Step] = []
    if drafter is not None:
        added += drafter.held_bytes
        for begin in begins[:-1]:
            drafts += [
                Step(
                    tuple(
                        fed_behind(
                            request, begin + at * drafter.rows, drafter.rows, drafter.mask, 0
                        )
                        for request in requests
                    )
                )
                for at in range(drafter.passes)
            ]
    return Rounds(strategy, model, steps, made, added, count, drafter, tuple(drafts))
