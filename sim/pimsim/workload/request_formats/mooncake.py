"""Mooncake's traces (kvcache-ai/Mooncake, FAST 2025): milliseconds, tokens, and the blocks of 512
tokens that prompts begin with: equal numbers are the same block behind the same ones."""

from __future__ import annotations

import numpy as np

from pimsim.config.errors import InputError
from pimsim.workload.json_lines import JsonLines
from pimsim.workload.request_formats import JsonFormat
from pimsim.workload.traffic import PrefixBlocks, Traffic, whole_ps

__all__ = ["FORMAT"]

_BLOCK_TOKENS = 512
_PS_PER_MS = 10**9


def _read(lines: JsonLines) -> Traffic:
    prompt = lines.whole("input_length")
    held = [lines.wholes(row, "hash_ids") for row in range(len(lines))]
    counts = np.array([len(each) for each in held], dtype=np.int64)
    most = -(-prompt // _BLOCK_TOKENS)
    wrong = np.flatnonzero(counts > most)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{lines.where(row)}: {counts[row]} hash_ids; a prompt of {prompt[row]} tokens has "
            f"{most[row]} blocks of {_BLOCK_TOKENS}"
        )
    flat = np.array([number for each in held for number in each], dtype=np.int64)
    numbers = np.unique(flat, return_inverse=True)[1].astype(np.int32)
    return Traffic(
        whole_ps(lines.numbers("timestamp"), _PS_PER_MS), prompt,
        lines.whole("output_length"), place=lines.where,
        prefixes=PrefixBlocks(_BLOCK_TOKENS, numbers, np.cumsum(counts) - counts, counts),
    )  # fmt: skip


FORMAT = JsonFormat((("timestamp", "input_length", "output_length", "hash_ids"),), _read)
