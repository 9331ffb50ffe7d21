"""Request traces: which requests are in the batch, and how long each of them is.

Two CSV formats are read, told apart by their header:

- pimsim's own, ``request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens`` and, where
  a request has them, ``channel`` and ``new_tokens``;
- the NeuPIMs artifact's, ``seq_len,ch_idx``: a context length and the channel of its KV cache.

``equal:PROMPT+GENERATED`` in place of a file's name are requests that are all alike.

``traces/README.md`` describes each column.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import decode_text, read_bytes
from pimsim.config.resources import display_path, find_source
from pimsim.workload.columns import CsvColumns, read_csv, shown_cell

__all__ = [
    "MAX_TOKENS",
    "MAX_TRACE_BYTES",
    "Request",
    "RequestTrace",
    "TraceFormat",
    "load_requests",
]

TraceFormat = Literal["pimsim", "neupims-artifact", "equal"]

MAX_TOKENS = 1_000_000
"""Longest prompt, output or context accepted, in tokens."""

MAX_TRACE_BYTES = 64 * 2**20
"""Largest trace file accepted, in bytes: well over a million requests."""

_MAX_INDEX = 2**31 - 1
_OURS = ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "generated_tokens")
_ARTIFACT = ("seq_len", "ch_idx")
_EQUAL = re.compile(r"equal:([0-9]{1,9})(?:\+([0-9]{1,9}))?")
_MOST_EQUAL = 1_000_000
_COLUMNS: dict[TraceFormat, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pimsim": (_OURS, (*_OURS, "channel", "new_tokens")),
    "neupims-artifact": (_ARTIFACT, _ARTIFACT),
}
"""The columns that a format needs, and those that it may have."""
_INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Request:
    """One request at the moment the iteration starts.

    ``arrival_s`` is in seconds. ``generated_tokens`` counts the tokens made so far; the last of
    them is the one this step feeds to the model. ``channel`` is the memory channel that the trace
    gives its KV cache, or ``None`` where the trace leaves that to the mapping.
    """

    id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    generated_tokens: int
    channel: int | None = None
    new_tokens: int | None = None
    """Of the context, tokens at its end that the run feeds; None: what the run's phase says."""

    @property
    def context(self) -> int:
        """Tokens that attention reads in this step, the current one included."""
        return self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """The requests of a trace in file order, and where they came from.

    ``sha256`` is that of the whole file, whatever part of it ``batch`` took.
    """

    name: str
    path: Path
    requests: tuple[Request, ...]
    sha256: str
    source: TraceFormat

    @property
    def contexts(self) -> tuple[int, ...]:
        """The context of each request, in tokens."""
        return tuple(request.context for request in self.requests)


def load_requests(name_or_path: str | Path, batch: int | None = None) -> RequestTrace:
    """Read a request trace, ours or the artifact's.

    Parameters
    ----------
    name_or_path
        Name of a shipped trace (``sharegpt-256``) or path of a CSV file (a ``Path``, or text with a
        separator or the suffix ``.csv``); or ``equal:PROMPT`` or ``equal:PROMPT+GENERATED``:
        ``batch`` requests of these lengths, one where it is None.
    batch
        Requests that are taken, from the front; None: all.

    Raises
    ------
    InputError
        Naming the file, the line and what was expected.
    """
    if isinstance(name_or_path, str) and name_or_path.startswith("equal:"):
        return _equal(name_or_path, batch)
    path = name_or_path if isinstance(name_or_path, Path) else find_source("trace", name_or_path)
    content = read_bytes(path, "a request trace, a CSV file,", MAX_TRACE_BYTES)
    shown = display_path(path)
    if batch is not None and batch < 1:
        raise InputError(
            f"{shown}: a batch of {batch} requests was asked for; at least 1 is needed"
        )
    source, requests = _parse(path, content)
    if batch is not None and batch > len(requests):
        raise InputError(
            f"{shown}: a batch of {batch} requests was asked for, the trace has {len(requests)}"
        )
    return RequestTrace(
        name=path.stem,
        path=path,
        requests=requests[:batch],
        sha256=hashlib.sha256(content).hexdigest(),
        source=source,
    )


def _equal(text: str, batch: int | None) -> RequestTrace:
    """Requests that are all alike, as ``text`` says. Raises ``InputError``."""
    found = _EQUAL.fullmatch(text)
    prompt, generated = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    if not 1 <= prompt <= MAX_TOKENS or prompt + generated > MAX_TOKENS:
        raise InputError(
            f"workload.requests: found {shown_cell(text)}; allowed: equal:PROMPT or "
            f"equal:PROMPT+GENERATED, a prompt of 1 token or more, at most {MAX_TOKENS} in all, "
            "such as equal:2048+1"
        )
    if batch is not None and not 1 <= batch <= _MOST_EQUAL:
        raise InputError(f"workload.batch: {batch} requests asked for; allowed: 1 to {_MOST_EQUAL}")
    return RequestTrace(
        name=text,
        path=Path(text),
        requests=tuple(
            Request(
                id=number, arrival_s=0.0, prompt_tokens=prompt,
                output_tokens=max(generated, 1), generated_tokens=generated,
            )
            for number in range(batch or 1)
        ),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        source="equal",
    )  # fmt: skip


@lru_cache(maxsize=8)
def _parse(path: Path, content: bytes) -> tuple[TraceFormat, tuple[Request, ...]]:
    """All requests; points of a sweep take different numbers of them."""
    table = read_csv(path, "a request trace", decode_text(content, display_path(path)))
    source = _check_header(table)
    requests: list[Request] = []
    first_seen: dict[int, int] = {}
    for number, cells in enumerate(table.lines):
        row = _Row(table, number, dict(zip(table.header, cells, strict=True)))
        request = _request(row) if source == "pimsim" else _neupims_request(row, len(requests))
        if request.id in first_seen:
            before = table.line(first_seen[request.id])
            raise InputError(
                f"{table.where(number)}: request_id {request.id} was used before, in line {before}"
            )
        first_seen[request.id] = number
        requests.append(request)
    if not requests:
        raise InputError(f"{table.shown}: the request trace is empty (a header, but no requests)")
    return source, tuple(requests)


def _check_header(table: CsvColumns) -> TraceFormat:
    header, where = table.header, table.header_where
    source: TraceFormat = "neupims-artifact" if set(header) & set(_ARTIFACT) else "pimsim"
    required, allowed = _COLUMNS[source]
    unknown = [column for column in header if column not in allowed]
    for column in required:
        if column not in header:
            near = difflib.get_close_matches(column, unknown, n=1)
            hint = f"; is {near[0]!r} meant to be it?" if near else ""
            found = ", ".join(shown_cell(name) for name in header[:8])
            raise InputError(f"{where}: column {column!r} is missing; found {found}{hint}")
    if unknown:
        raise InputError(
            f"{where}: unknown column {shown_cell(unknown[0])}{near_miss(unknown[0], allowed)}; "
            f"allowed: {', '.join(allowed)}"
        )
    return source


@dataclass(frozen=True, slots=True)
class _Row:
    """The cells of a line, by column; every error names file, line and column."""

    table: CsvColumns
    number: int
    cells: dict[str, str]

    def error(self, column: str, expected: str) -> InputError:
        where, found = self.table.where(self.number), shown_cell(self.cells[column])
        return InputError(f"{where}: {column} is {found}; {expected}")

    def integer(self, column: str, low: int, high: int) -> int:
        expected = f"an integer from {low} to {high} is expected"
        text = self.cells[column].strip()
        # int() alone would take "1_000" and digits of other scripts, and refuse 5000 digits.
        if _INTEGER.fullmatch(text) is None or len(text) > 40:
            raise self.error(column, expected)
        value = int(text)
        if not low <= value <= high:
            raise self.error(column, expected)
        return value

    def seconds(self, column: str) -> float:
        try:
            value = float(self.cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise self.error(column, "a finite number of seconds, 0 or more, is expected")
        return value


def _request(row: _Row) -> Request:
    request = Request(
        id=row.integer("request_id", 0, _MAX_INDEX),
        arrival_s=row.seconds("arrival_s"),
        prompt_tokens=row.integer("prompt_tokens", 1, MAX_TOKENS),
        output_tokens=row.integer("output_tokens", 1, MAX_TOKENS),
        generated_tokens=row.integer("generated_tokens", 0, MAX_TOKENS),
        channel=_channel(row),
        new_tokens=_new_tokens(row),
    )
    if request.generated_tokens > request.output_tokens:
        raise row.error(
            "generated_tokens", f"at most output_tokens ({request.output_tokens}) is expected"
        )
    if request.context > MAX_TOKENS:
        raise row.error(
            "generated_tokens",
            f"with prompt_tokens ({request.prompt_tokens}) the context may be at most {MAX_TOKENS}",
        )
    if request.new_tokens is not None and request.new_tokens > request.context:
        raise row.error(
            "new_tokens",
            f"at most prompt_tokens + generated_tokens ({request.context}) is expected",
        )
    return request


def _new_tokens(row: _Row) -> int | None:
    if not row.cells.get("new_tokens", "").strip():
        return None
    return row.integer("new_tokens", 1, MAX_TOKENS)


def _channel(row: _Row) -> int | None:
    if not row.cells.get("channel", "").strip():
        return None
    return row.integer("channel", 0, _MAX_INDEX)


def _neupims_request(row: _Row, index: int) -> Request:
    """The artifact's requests arrive at 0 and make exactly one token (MECHANISMS 4.14)."""
    return Request(
        id=index,
        arrival_s=0.0,
        prompt_tokens=row.integer("seq_len", 1, MAX_TOKENS),
        output_tokens=1,
        generated_tokens=0,
        channel=row.integer("ch_idx", 0, _MAX_INDEX),
    )
