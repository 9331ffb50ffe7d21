"""BurstGPT's traces (HPMLL/BurstGPT): seconds, and tokens of requests and responses.

A response of no tokens is a request that failed.
"""

from __future__ import annotations

from pimsim.workload.columns import CsvColumns
from pimsim.workload.request_formats import CsvFormat
from pimsim.workload.traffic import Traffic, whole_ps

__all__ = ["FORMAT"]

_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
_PS_PER_S = 10**12


def _read(table: CsvColumns) -> Traffic:
    times = table.numbers(_COLUMNS[0])
    return Traffic(
        whole_ps(times - times[0], _PS_PER_S), table.whole(_COLUMNS[1]),
        table.whole(_COLUMNS[2]), place=table.where,
    )  # fmt: skip


FORMAT = CsvFormat((_COLUMNS,), _read)
