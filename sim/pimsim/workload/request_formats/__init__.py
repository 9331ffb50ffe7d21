"""Formats of request traces, one module each, told apart by what is in the file.

A module has a ``FORMAT``: the columns of a CSV, or the keys of an object of JSON lines, that make
it one, and how it is read.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pimsim.config.errors import InputError
from pimsim.config.plugins import load_module, module_names
from pimsim.config.reading import decode_text, read_bytes
from pimsim.config.resources import display_path
from pimsim.workload.columns import CsvColumns, read_csv
from pimsim.workload.json_lines import JsonLines
from pimsim.workload.traffic import Traffic

__all__ = ["AUTO", "CsvFormat", "JsonFormat", "ReadTraffic", "read_traffic"]

AUTO = "auto"
"""In place of a format's name: whichever it is."""
MAX_BYTES = 2**30
"""Of a request trace, unpacked."""


@dataclass(frozen=True)
class CsvFormat:
    """A CSV with a header."""

    columns: tuple[tuple[str, ...], ...]
    """Sets of columns, each of which makes it this format."""
    read: Callable[[CsvColumns], Traffic]
    kind: Literal["csv"] = "csv"


@dataclass(frozen=True)
class JsonFormat:
    """JSON lines."""

    keys: tuple[tuple[str, ...], ...]
    """Sets of keys of the first object, each of which makes it this format."""
    read: Callable[[JsonLines], Traffic]
    kind: Literal["jsonl"] = "jsonl"


@dataclass(frozen=True)
class ReadTraffic:
    """What was read, and from what."""

    traffic: Traffic
    format: str
    sha256: str


def read_traffic(path: Path, name: str = AUTO) -> ReadTraffic:
    """A request trace, packed by gzip or not.

    Parameters
    ----------
    path
        The file.
    name
        Its format, or ``AUTO``.

    Raises
    ------
    InputError
        For a file of no format that is known, or of another one than ``name``; for arrivals out of
        order, and what its format finds.
    """
    content = read_bytes(path, "a request trace", MAX_BYTES)
    text = _unpacked(path, content)
    shown = display_path(path)
    found: CsvColumns | JsonLines
    if text.lstrip()[:1] == "{":
        kind, found = "jsonl", JsonLines(path, text)
        held = tuple(found.objects[0])
    else:
        kind, found = "csv", read_csv(path, "a request trace", text)
        held = found.header
    sets = _sets(kind)
    fits = [each for each, choices in sets.items() if any(set(held) >= set(c) for c in choices)]
    what = "columns" if kind == "csv" else "keys"
    if not fits:
        known = "; ".join(f"{each}: {', '.join(choices[0])}" for each, choices in sets.items())
        raise InputError(
            f"{shown}:1: no request trace: {what} are {', '.join(held[:12]) or 'none'}; known are "
            f"{known}"
        )
    if name not in (AUTO, *fits):
        raise InputError(
            f"{shown}:1: requests.format is {name!r}, but these are the {what} of {fits[0]!r}: "
            f"{', '.join(held[:12])}"
        )
    chosen = fits[0] if name == AUTO else name
    if not len(found):
        raise InputError(f"{shown}: the request trace is empty (a header, but no requests)")
    traffic = load_module("request_format", chosen).FORMAT.read(found)
    return ReadTraffic(traffic, chosen, hashlib.sha256(content).hexdigest())


def _sets(kind: str) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """What makes a file one of each format of a kind; those that need the most come first."""
    found = {}
    for name in module_names("request_format"):
        one = load_module("request_format", name).FORMAT
        if one.kind == kind:
            found[name] = one.columns if kind == "csv" else one.keys
    return dict(sorted(found.items(), key=lambda item: -len(item[1][0])))


def _unpacked(path: Path, content: bytes) -> str:
    shown = display_path(path)
    if content[:2] == b"\x1f\x8b":
        try:
            content = _gunzipped(content)
        except zlib.error as error:
            raise InputError(f"{shown}: a damaged gzip file: {error}") from None
        except EOFError:
            raise InputError(
                f"{shown}: a gzip file that is cut off, or of more than {MAX_BYTES} bytes"
            ) from None
    return decode_text(content, shown)


def _gunzipped(packed: bytes) -> bytes:
    """All members of a gzip file (``cat a.gz b.gz`` and parallel packers make several).

    Raises ``EOFError`` where it is cut off or unpacks to too much, ``zlib.error`` where it is
    damaged.
    """
    parts: list[bytes] = []
    room = MAX_BYTES
    while packed.rstrip(b"\0"):  # tapes and blocks are filled up with zeros
        unpack = zlib.decompressobj(wbits=31)
        parts.append(unpack.decompress(packed, room + 1))
        room -= len(parts[-1])
        if not unpack.eof or room < 0:
            raise EOFError
        packed = unpack.unused_data
    return b"".join(parts)
