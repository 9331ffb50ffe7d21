"""Rows of a service, a request or a step each, as columns and as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pimsim.config.errors import InputError
from pimsim.serving.records import NONE, Records

__all__ = ["StepsFile", "request_columns", "write_requests"]

_PS_PER_S = 10**12
_TIMES = {
    "arrival_s": "arrival_ps",
    "first_scheduled_s": "first_scheduled_ps", "first_token_s": "first_token_ps",
    "finish_s": "finish_ps", "kv_sent_s": "kv_sent_ps", "kv_arrived_s": "kv_arrived_ps",
}  # fmt: skip


def request_columns(requests: Records) -> dict[str, Any]:
    """What is known of each request; times in seconds, NaN where it has not come so far.

    ``tpot_s`` is (finish - first token) / (output - 1), NaN of one token; ``longest_gap_s`` is the
    longest time between two of its tokens.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records.

    Returns
    -------
    dict
        (requests,) of each column.
    """
    found: dict[str, Any] = {
        name: requests[name]
        for name in ("id", "prompt", "output", "priority", "replica", "prefill_replica")
    }
    for column, field in _TIMES.items():
        times = requests[field] / _PS_PER_S
        found[column] = np.where(requests[field] == NONE, np.nan, times)
    found["ttft_s"] = found["first_token_s"] - found["arrival_s"]
    behind = requests["output"] - 1
    spent = (requests["finish_ps"] - requests["first_token_ps"]) / _PS_PER_S
    is_known = (requests["finish_ps"] != NONE) & (behind > 0)
    found["tpot_s"] = np.where(is_known, spent / np.maximum(behind, 1), np.nan)
    found["e2e_s"] = found["finish_s"] - found["arrival_s"]
    found["longest_gap_s"] = requests["longest_gap_ps"] / _PS_PER_S
    for name in (
        "arrival_ps", "first_scheduled_ps", "first_token_ps", "kv_sent_ps",
        "kv_arrived_ps", "finish_ps", "first_scheduled_step",
        "first_token_step", "finish_step", "preemptions", "cached", "recomputed", "verifications",
        "accepted", "rejected",
    ):  # fmt: skip
        found[name] = requests[name]
    return found


def write_requests(requests: Records, path: Path) -> None:
    """``requests.parquet``; the columns of ``request_columns``, exact times in picoseconds (-1: not
    yet) among them.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records.
    path
        Of the file.
    """
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(request_columns(requests)), path)


class StepsFile:
    """``steps.parquet``, written while the service runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def __call__(self, rows: Records) -> None:
        """Append rows (``step_log.STEP_ROW``)."""
        import pyarrow

        self._write(pyarrow.table({name: rows[name] for name in rows.dtype.names or ()}))

    def copy(self, earlier: Path) -> None:
        """Begin with the rows of an earlier file, a part at a time. Raises ``InputError`` where it
        is none."""
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(earlier) as found:
                for group in range(found.num_row_groups):
                    self._write(found.read_row_group(group))
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{earlier}: no table of steps: {error}") from None

    def _write(self, table: Any) -> None:
        import pyarrow.parquet

        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the end of the file; without a row there is none."""
        if self._writer is not None:
            self._writer.close()
