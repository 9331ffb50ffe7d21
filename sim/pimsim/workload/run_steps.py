"""The steps of a run: what each request is asked, in pieces, and how it goes on after that."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.config.run import WorkloadConfig
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry

__all__ = ["run_steps", "step_at_end"]


def run_steps(requests: Sequence[Request], workload: WorkloadConfig) -> tuple[Step, ...]:
    """The steps that ``workload`` asks for, in their order.

    A request is asked its ``new_tokens`` where the request file says so; else one token in phase
    ``decode`` and its whole prompt in phase ``prefill``. At most ``chunk`` of them are fed in a
    step. With ``steps`` the run has so many, and a request whose tokens are fed goes on with one
    token a step; without it the run ends when all are fed, and a request leaves when its own are.
    """
    chunk = workload.chunk
    left = [_new_tokens(request, workload) for request in requests]
    contexts = [
        _context(request, workload) - new for request, new in zip(requests, left, strict=True)
    ]
    most = max(-(-new // chunk) if chunk else 1 for new in left)
    count = workload.steps or most
    steps: list[Step] = []
    for _ in range(count):
        entries: list[StepEntry] = []
        for at, request in enumerate(requests):
            if not left[at] and workload.steps is None:
                continue
            pending = left[at] or 1
            new = min(pending, chunk or pending)
            left[at] = max(left[at] - new, 0)
            contexts[at] += new
            is_last = not left[at]
            entries.append(StepEntry(request, new, contexts[at], int(is_last), int(is_last)))
        steps.append(Step(tuple(entries)))
    return tuple(steps)


def _new_tokens(request: Request, workload: WorkloadConfig) -> int:
    if request.new_tokens is not None:
        return request.new_tokens
    return request.prompt_tokens if workload.phase == "prefill" else 1


def _context(request: Request, workload: WorkloadConfig) -> int:
    """Tokens of the request when all that it is asked is fed."""
    if request.new_tokens is None and workload.phase == "prefill":
        return request.prompt_tokens
    return request.context


def step_at_end(steps: Sequence[Step]) -> Step:
    """One token of each request of ``steps`` that reads the longest context it comes to: what
    memory must hold."""
    longest: dict[int, StepEntry] = {}
    for step in steps:
        for entry in step.entries:
            known = longest.get(entry.request.id)
            if known is None or entry.context > known.context:
                longest[entry.request.id] = StepEntry(entry.request, 1, entry.context)
    return Step(tuple(longest.values()))
