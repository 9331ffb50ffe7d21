"""Request traces of our own, drawn from published statistics with a seed.

Published (NeuPIMs, arXiv 2403.00579, section 8.1): the mean prompt and output lengths of ShareGPT
(80 and 296 tokens) and of Alpaca (12 and 56), and that batches are "warmed up", their requests
being at different points of their outputs.

Assumed, as the paper gives means only: the shape (lognormal), its coefficient of variation, the
longest prompt and output, and that the two lengths are independent. ``DATASETS`` holds these
numbers, each with its reason.

A batch is a look at continuous batching in steady state, at a random decode step. A request with
``o`` output tokens takes part in ``o - 1`` decode steps (prefill makes its first token), so it is
seen with a probability proportional to ``o - 1``, and at each of its steps equally often: the
output length is drawn from the length-biased distribution, the position uniformly from 1 to
``o - 1``. Contexts are therefore longer than means suggest, by the inspection paradox.

The same seed gives the same bytes on every machine and with every numpy (``draws``). A shorter
trace is the start of a longer one of the same data set and seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from types import MappingProxyType

from pimsim.config.errors import InputError, near_miss
from pimsim.config.files import write_whole
from pimsim.workload.draws import RandomStream, inverse
from pimsim.workload.requests import Request

__all__ = [
    "DATASETS",
    "Dataset",
    "LengthDistribution",
    "draw_requests",
    "generate_trace",
    "length_probabilities",
    "seen_output_probabilities",
]

_HEADER = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"
_MAX_REQUESTS = 1_000_000


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Lengths in tokens: a lognormal rounded to integers and clipped to 1 .. ``longest``.

    ``mean`` is that of the clipped integers, exactly; ``cv`` is that of the lognormal before.
    """

    mean: float
    cv: float
    longest: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """The length statistics of a data set."""

    prompt: LengthDistribution
    output: LengthDistribution


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        # Conversations are long-tailed: a standard deviation as large as the mean, that of a
        # conversation which ends with equal chance at any token. Half of the 2048 tokens of a
        # GPT-3 context for each of prompt and output, so that no request outgrows it.
        "sharegpt": Dataset(
            prompt=LengthDistribution(mean=80.0, cv=1.0, longest=1024),
            output=LengthDistribution(mean=296.0, cv=1.0, longest=1024),
        ),
        # Instructions are one sentence each, hence the narrower prompts; answers vary as above.
        "alpaca": Dataset(
            prompt=LengthDistribution(mean=12.0, cv=0.5, longest=1024),
            output=LengthDistribution(mean=56.0, cv=1.0, longest=1024),
        ),
    }
)
"""Means are published, all else is assumed: see the module's text."""


def length_probabilities(lengths: LengthDistribution) -> tuple[float, ...]:
    """The probability of each length from 1 to ``longest``; their mean is ``lengths.mean``.

    Parameters
    ----------
    lengths
        Mean, coefficient of variation and longest, in tokens.

    Returns
    -------
    tuple[float, ...]
        (longest,), adding up to 1.
    """
    sigma = math.sqrt(math.log1p(lengths.cv**2))
    low, high = 0.0, math.log(lengths.longest) + 10 * sigma
    # The mean grows with mu, and clipping moves it: look for the mu that gives the stated one.
    for _ in range(100):
        middle = (low + high) / 2
        if _mean(_clipped_lognormal(middle, sigma, lengths.longest)) < lengths.mean:
            low = middle
        else:
            high = middle
    return _clipped_lognormal((low + high) / 2, sigma, lengths.longest)


def seen_output_probabilities(lengths: LengthDistribution) -> tuple[float, ...]:
    """The probability that a request in a decode step has an output of 1, 2, ... tokens.

    Parameters
    ----------
    lengths
        Mean, coefficient of variation and longest, in tokens.

    Returns
    -------
    tuple[float, ...]
        (longest,), adding up to 1.
    """
    steps = [
        probability * (length - 1)
        for length, probability in enumerate(length_probabilities(lengths), start=1)
    ]
    total = math.fsum(steps)
    return tuple(step / total for step in steps)


def draw_requests(dataset: str, requests: int, seed: int) -> tuple[Request, ...]:
    """That many requests of a warmed-up batch, all there from the start.

    Parameters
    ----------
    dataset
        One of ``DATASETS``.
    requests
        How many.
    seed
        0 to 2**64 - 1.

    Raises
    ------
    InputError
        For an unknown data set, or a count or seed out of range.

    References
    ----------
    NeuPIMs, arXiv 2403.00579, section 8.1.
    """
    if dataset not in DATASETS:
        raise InputError(
            f"unknown data set {dataset!r}{near_miss(dataset, DATASETS)}; "
            f"known: {', '.join(DATASETS)}"
        )
    if not 1 <= requests <= _MAX_REQUESTS:
        raise InputError(f"{requests} requests asked for; allowed are 1 to {_MAX_REQUESTS}")
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed}; allowed are 0 to 2**64 - 1")
    prompts = tuple(accumulate(length_probabilities(DATASETS[dataset].prompt)))
    outputs = tuple(accumulate(seen_output_probabilities(DATASETS[dataset].output)))
    u_prompt, u_output, u_position = RandomStream(seed).uniform(requests, 3).T
    prompt = 1 + inverse(prompts, u_prompt)
    output = 1 + inverse(outputs, u_output)
    generated = 1 + (u_position * (output - 1)).astype(int)
    rows = zip(prompt.tolist(), output.tolist(), generated.tolist(), strict=True)
    return tuple(Request(index, 0.0, *row) for index, row in enumerate(rows))


def generate_trace(dataset: str, requests: int, seed: int, path: str | Path) -> Path:
    """Write a trace of ``draw_requests`` as CSV and return its path; ``traces/README.md``.

    Parameters
    ----------
    dataset
        One of ``DATASETS``.
    requests
        How many.
    seed
        0 to 2**64 - 1.
    path
        Of the file.

    Raises
    ------
    InputError
        As ``draw_requests``, and where the file cannot be written; nothing half-written stays.
    """
    rows = draw_requests(dataset, requests, seed)
    lines = [_HEADER]
    lines += [
        f"{row.id},{row.arrival_s:.1f},{row.prompt_tokens},{row.output_tokens},"
        f"{row.generated_tokens}"
        for row in rows
    ]
    return write_whole(path, ("\n".join(lines) + "\n").encode("ascii"))


def _clipped_lognormal(mu: float, sigma: float, longest: int) -> tuple[float, ...]:
    """Probabilities of 1 .. ``longest``: each integer takes what rounds or clips to it."""
    scale = 1 / (sigma * math.sqrt(2))
    below = [0.0]
    below += [
        0.5 * (1 + math.erf((math.log(length + 0.5) - mu) * scale)) for length in range(1, longest)
    ]
    below.append(1.0)
    return tuple(b - a for a, b in pairwise(below))


def _mean(probabilities: Sequence[float]) -> float:
    return math.fsum(length * p for length, p in enumerate(probabilities, start=1))
