"""Azure's LLM inference traces (Azure/AzurePublicDataset, 2023 and 2024), and their times in
microseconds."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.columns import CsvColumns
from pimsim.workload.request_formats import CsvFormat
from pimsim.workload.traffic import Traffic, whole_ps

__all__ = ["FORMAT"]

_DATED = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_PLAIN = ("arrival_us", "prompt", "output")
_PS_PER_US, _PS_PER_NS = 10**6, 10**3
_TIME = re.compile(
    r"(19[7-9]|20[0-9])[0-9]-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?"
)
"""Numpy takes more for times: an empty text, ``today``, years that wrap around."""


def _read(table: CsvColumns) -> Traffic:
    if set(_PLAIN) <= set(table.header):
        ranked = "priority" in table.header
        return Traffic(
            whole_ps(table.whole("arrival_us"), _PS_PER_US),
            table.whole("prompt"), table.whole("output"),
            priority=table.whole("priority") if ranked else np.zeros(0, dtype=np.int64),
            place=table.where,
        )  # fmt: skip
    times = _nanoseconds(table)
    return Traffic(
        whole_ps(times - times[0], _PS_PER_NS), table.whole(_DATED[1]), table.whole(_DATED[2]),
        place=table.where,
    )  # fmt: skip


def _nanoseconds(table: CsvColumns) -> NDArray[np.int64]:
    """Of each time since 1970; the zone, where one is written, is the same in all lines."""
    texts = [
        cell.strip().removesuffix("+00:00").removesuffix("Z") for cell in table.text(_DATED[0])
    ]
    try:
        if all(map(_TIME.fullmatch, texts)):
            return np.array(texts, dtype="datetime64[ns]").astype(np.int64)
    except ValueError:  # of a month or an hour that there is not
        pass
    for row, text in enumerate(texts):
        try:
            if _TIME.fullmatch(text):
                np.datetime64(text, "ns")
                continue
        except ValueError:
            pass
        raise InputError(
            f"{table.where(row)}: {_DATED[0]} is {text[:40]!r}; a time such as "
            "'2023-11-16 18:17:03.9799600' is expected"
        )
    raise AssertionError("each time is one, but not all of them")


FORMAT = CsvFormat((_DATED, _PLAIN), _read)
