"""pimsim's own request traces (``traces/README.md``): seconds, tokens of prompt and output.

A service makes all tokens of a request: ``generated_tokens``, how far a batch had come, is of
``pimsim run`` and changes nothing here. A column ``priority`` may say who is served first.
"""

from __future__ import annotations

from typing import Any

from pimsim.workload.columns import CsvColumns
from pimsim.workload.request_formats import CsvFormat
from pimsim.workload.traffic import Traffic, whole_ps

__all__ = ["FORMAT"]

_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
_PS_PER_S = 10**12


def _read(table: CsvColumns) -> Traffic:
    given: dict[str, Any] = {}
    if "request_id" in table.header:
        given["id"] = table.whole("request_id")
    if "priority" in table.header:
        given["priority"] = table.whole("priority")
    return Traffic(
        whole_ps(table.numbers("arrival_s"), _PS_PER_S),
        table.whole("prompt_tokens"), table.whole("output_tokens"), place=table.where, **given,
    )  # fmt: skip


FORMAT = CsvFormat((_COLUMNS,), _read)
