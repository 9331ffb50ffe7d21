"""The steps of a run: what each request is asked, in pieces, and how it goes on after that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pimsim.config.run import StepsConfig
from pimsim.workload.requests import Request
from pimsim.workload.step import Mask, Step, StepEntry

__all__ = ["prompt_pieces", "run_steps", "step_at_end", "step_held"]


def run_steps(requests: Sequence[Request], workload: StepsConfig) -> tuple[Step, ...]:
    """The steps that ``workload`` asks for, in their order.

    A request is asked its ``new_tokens`` where the request file says so; else one token in phase
    ``decode`` and its whole prompt in phase ``prefill``. At most ``chunk`` of them are fed in a
    step. With ``steps`` the run has so many, and a request whose tokens are fed goes on with one
    token a step; without it the run ends when all are fed, and a request leaves when its own are.

    Parameters
    ----------
    requests
        Of the batch.
    workload
        Phase, chunk and steps.
    """
    fed = [_pieces_of(request, workload) for request in requests]
    steps: list[Step] = []
    for number in range(workload.steps or max(map(len, fed))):
        entries: list[StepEntry] = []
        for request, own in zip(requests, fed, strict=True):
            ahead = number + 1 - len(own)
            if ahead <= 0:
                entries.append(own[number])
            elif workload.steps is not None:
                entries.append(StepEntry(request, 1, own[-1].context + ahead))
        steps.append(Step(tuple(entries)))
    return tuple(steps)


def prompt_pieces(
    request: Request, cached: int, new_tokens: int, chunk: int | None
) -> list[StepEntry]:
    """The entries that feed a prompt; logits are wanted of the last token alone.

    Parameters
    ----------
    request
        That is fed.
    cached
        Tokens before these.
    new_tokens
        That are fed.
    chunk
        Tokens of a piece, at most; None: all at once.
    """
    end = cached + new_tokens
    firsts = range(cached, end, chunk or new_tokens)
    return [
        StepEntry(request, stop - first, stop, int(stop == end), int(stop == end))
        for first, stop in pairwise((*firsts, end))
    ]


def _pieces_of(request: Request, workload: StepsConfig) -> list[StepEntry]:
    new = _new_tokens(request, workload)
    return prompt_pieces(request, _context(request, workload) - new, new, workload.chunk)


def _new_tokens(request: Request, workload: StepsConfig) -> int:
    if request.new_tokens is not None:
        return request.new_tokens
    return request.prompt_tokens if workload.phase == "prefill" else 1


def _context(request: Request, workload: StepsConfig) -> int:
    """Tokens of the request when all that it is asked is fed."""
    if request.new_tokens is None and workload.phase == "prefill":
        return request.prompt_tokens
    return request.context


def step_held(steps: Sequence[Step]) -> Step:
    """What memory must hold of each request of ``steps``: the longest context it comes to, and
    beside a window the most new tokens that it is fed at once.

    Parameters
    ----------
    steps
        Of a run.
    """
    most: dict[int, int] = {}
    for entry in (entry for step in steps for entry in step.entries):
        most[entry.request.id] = max(entry.new_tokens, most.get(entry.request.id, 1))
    return Step(
        tuple(
            entry if most[entry.request.id] == 1
            else StepEntry(entry.request, most[entry.request.id], entry.context)
            for entry in step_at_end(steps).entries
        )
    )  # fmt: skip


def step_at_end(steps: Sequence[Step]) -> Step:
    """One token of each request of ``steps`` that reads the longest context it comes to.

    Parameters
    ----------
    steps
        Of a run.
    """
    longest: dict[int, StepEntry] = {}
    for step in steps:
        for entry in step.entries:
            known = longest.get(entry.request.id)
            if known is None or entry.context > known.context:
                longest[entry.request.id] = _one_token(entry)
    return Step(tuple(longest.values()))


def _one_token(entry: StepEntry) -> StepEntry:
    """One token of the request, at the end of ``entry``: that itself in most decode steps."""
    if (entry.new_tokens, entry.logits, entry.made, entry.mask) == (1, 1, 1, Mask.CAUSAL):
        return entry
    return StepEntry(entry.request, 1, entry.context)
