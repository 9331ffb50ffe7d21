"""What the loop and its kernels keep, as numpy records: requests, lists of them, a step.

Everything that a step touches lies in these arrays, so that schedulers are short loops that numba
compiles, and a step of hundreds of requests costs microseconds. All times are picoseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ASIDE", "ENTRY", "LIST", "NONE", "REQUEST", "RUNNING", "STEP", "WAITING", "Records",
    "new_lists", "new_step",
]  # fmt: skip

Records = NDArray[np.void]

NONE = -1
"""In place of a number: no request, no block, not yet."""
WAITING, RUNNING, ASIDE = 0, 1, 2
"""A replica's lists of requests: those that wait, those that run, and some while a step is made."""

_WHOLE = np.int64
REQUEST = np.dtype(
    [
        # how far it is; what every step looks at lies together
        ("next", _WHOLE),  # in its list
        ("previous", _WHOLE),
        ("computed", _WHOLE),  # tokens whose keys and values are in the cache, drafts included
        ("length", _WHOLE),  # tokens that are known: the prompt, and what was made
        ("blocks", _WHOLE),  # that it holds
        ("drafts", _WHOLE),  # guessed tokens behind the known ones, for the next step
        ("entry", np.int32),  # its entry in the step that is being made
        ("slot", np.int32),  # its row of the table of blocks
        ("flying", np.bool_),  # in a step that has not ended
        ("decoding", np.bool_),  # all known tokens but the last one have been fed
        # what is asked
        ("prompt", _WHOLE),
        ("output", _WHOLE),
        ("last_token_ps", _WHOLE),
        ("longest_gap_ps", _WHOLE),
        ("first_token_ps", _WHOLE),
        ("first_scheduled_ps", _WHOLE),
        ("id", _WHOLE),
        ("priority", _WHOLE),  # smaller is served first
        ("arrival_ps", _WHOLE),
        ("prefix_first", _WHOLE),  # its first block among those of all requests that may be shared
        ("prefix_blocks", _WHOLE),  # how many it has
        ("offered", _WHOLE),  # of its blocks, those at its start that others may share
        # what is said of it
        ("replica", _WHOLE),
        ("prefill_replica", _WHOLE),  # where its prompt was fed, if not there
        ("kv_sent_ps", _WHOLE),  # when its keys and values began to leave that one
        ("kv_arrived_ps", _WHOLE),  # when the last of them had come
        ("first_scheduled_step", _WHOLE),
        ("first_token_step", _WHOLE),
        ("finish_ps", _WHOLE),
        ("finish_step", _WHOLE),
        ("preemptions", _WHOLE),
        ("cached", _WHOLE),  # tokens of the prompt found in the cache when it was first admitted
        ("recomputed", _WHOLE),  # tokens that were fed before and had to be fed again
        ("verifications", _WHOLE),
        ("accepted", _WHOLE),  # drafts
        ("rejected", _WHOLE),  # drafts that were fed for nothing
    ],
    align=True,
)
"""A request of a service."""

LIST = np.dtype([("head", _WHOLE), ("tail", _WHOLE), ("count", _WHOLE)])
"""Requests, or blocks, in an order, linked by ``next`` and ``previous``."""

ENTRY = np.dtype([("request", _WHOLE), ("new", _WHOLE), ("context", _WHOLE), ("drafts", _WHOLE)])
"""One request's part of a step: tokens that are fed, tokens in the cache at its end, and how many
of the new ones are drafts."""

STEP = np.dtype(
    [
        ("number", _WHOLE),  # of the replica's steps, from 1
        ("start_ps", _WHOLE),
        ("end_ps", _WHOLE),
        ("entries", _WHOLE),
        ("tokens", _WHOLE),  # that are fed
        ("context", _WHOLE),  # tokens in the cache at its end, over all entries
        ("preempted", _WHOLE),  # requests that were put out of the cache for it
        ("finished", _WHOLE),  # requests that ended with it
    ]
)
"""A step as a whole."""


def new_lists() -> Records:
    """A replica's lists, empty."""
    lists = np.zeros(3, dtype=LIST)
    lists["head"] = lists["tail"] = NONE
    return lists


def new_step() -> Records:
    """One without entries, shape (1,)."""
    return np.zeros(1, dtype=STEP)
