"""DRAM traces as text, one request a line, in the form of DRAMsim3 or of Ramulator.

Four forms are accepted; the first request decides which one the whole file has:

- ``ADDRESS KIND CYCLE``: DRAMsim3's ``0x1f40 READ 120``. The cycle is the earliest at which the
  request is offered; one that lies before its predecessor's waits for it.
- ``ADDRESS KIND``: ``0x1f40 R``, every cycle 0.
- ``KIND ADDRESS``: Ramulator's ``LD 0x1f40``, every cycle 0.
- ``KIND VECTOR``: its ``R 0,1,2,3,100,31``, every cycle 0: the number of the channel, pseudo
  channel, rank (HBM3: SID), bank group, bank, row and burst in the row; levels that the memory
  does not have are left out, but for the rank where there is no pseudo channel.

KIND is READ, R, RD or LD, or WRITE, W, WR or ST, in either case. ADDRESS counts bytes, in hex
after ``0x``, in decimal without (DRAMsim3 itself reads hex either way). Blank lines are skipped,
``#`` starts a comment.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import open_input
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.trace_text import ADDRESS, CYCLE, KIND, kind_codes, scan

__all__ = ["MAX_CYCLE", "DramTrace", "read_trace"]

MAX_CYCLE = 10**10
"""Latest cycle of a request: 10 s of a 1 GHz memory, whose every refresh is simulated, which takes
about as long."""

MAX_LINE = 4096
_CHUNK = 1 << 22
"""Characters read at a time, so that a long trace takes the memory of its requests only."""

_KINDS = {"READ": 0, "R": 0, "RD": 0, "LD": 0, "WRITE": 1, "W": 1, "WR": 1, "ST": 1}
_KINDS |= {kind.lower(): write for kind, write in _KINDS.items()}

# Possessive, so that no line takes more than time linear in its length.
_FIELDS = {
    "address": "(?:0[xX]0*[0-9a-fA-F]{1,16}|[0-9]{1,19})",
    "kind": f"(?:{'|'.join(sorted(_KINDS, key=len, reverse=True))})",
    "cycle": "[0-9]{1,19}",
    "vector": "[0-9]{1,9}(?:,[0-9]{1,9})++",
}
_CODES = {"address": ADDRESS, "kind": KIND, "cycle": CYCLE}
_KIND_CODES = kind_codes(_KINDS)
_GAP = "[ \t]++"
_NUMBER = re.compile("0[xX][0-9a-fA-F]+|[0-9]+")
_COMMENT = re.compile("#.*")
_LEVELS = {
    "ch": "channel", "pc": "pseudo channel", "ra": "rank", "bg": "bank group", "ba": "bank",
    "ro": "row", "co": "burst",
}  # fmt: skip


@dataclass(frozen=True)
class DramTrace:
    """Requests in the file's order."""

    addresses: NDArray[np.int64]
    """Bytes, below the capacity that was asked for."""
    writes: NDArray[np.int64]
    """1 for a write, 0 for a read."""
    arrivals: NDArray[np.int64]
    """Cycles of the memory's tCK, as given."""


class _Form:
    """One way to write a request; ``fields`` are its columns in order."""

    def __init__(self, fields: tuple[str, ...], example: str) -> None:
        self.fields = fields
        self.named = f"'{' '.join(fields)}' such as '{example}'"
        request = _GAP.join(_FIELDS[field] for field in fields)
        line = rf"[ \t]*+(?:{request}[ \t]*+)?+(?:#.*+)?+\n"
        self.line = re.compile(line)
        """A whole line with its end: a request, a blank, a comment."""
        self.lines = re.compile(f"(?:{line})*+")


_FORMS = (
    _Form(("address", "kind", "cycle"), "0x1f40 READ 0"),
    _Form(("address", "kind"), "0x1f40 R"),
    _Form(("kind", "address"), "LD 0x1f40"),
    _Form(("kind", "vector"), "R 0,0,2,3,100,31"),
)


def read_trace(
    source: Path | TextIO, capacity_bytes: int, mapping: AddressMap | None = None
) -> DramTrace:
    """Read a DRAM trace, in one of four forms (``_FORMS``).

    Parameters
    ----------
    source
        A file, or standard input as a text stream.
    capacity_bytes
        Of the memory; addresses are below it.
    mapping
        Under which address vectors become addresses; None: they are refused.

    Returns
    -------
    DramTrace
        At least one request, in the order of the file.

    Raises
    ------
    InputError
        Names file and line of a malformed line, an address at or above ``capacity_bytes``, a cycle
        above ``MAX_CYCLE``; or says that the file cannot be read or holds no request.
    """
    if not isinstance(source, Path):
        return _read(source, "<stdin>", capacity_bytes, mapping)
    # Bytes that are no UTF-8 become escapes, which a malformed line then shows.
    with (
        open_input(source, "a DRAM trace", None) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", errors="backslashreplace") as stream,
    ):
        return _read(stream, str(source), capacity_bytes, mapping)


def _read(stream: TextIO, label: str, capacity_bytes: int, mapping: AddressMap | None) -> DramTrace:
    parts: list[DramTrace] = []
    form: _Form | None = None
    for first_line, text in _chunks(stream, label):
        form = form or _form_of(text)
        if form is None:
            continue
        if "vector" in form.fields:
            if not form.lines.fullmatch(text):
                raise _first_wrong(text, form, label, first_line)
            parts.append(_parse_vectors(text, mapping, label, first_line))
            continue
        part = _parse(text, form)
        if part is None:
            raise _first_wrong(text, form, label, first_line)
        addresses, arrivals = part.addresses.view(np.uint64), part.arrivals.view(np.uint64)
        wrong = (addresses >= np.uint64(capacity_bytes)) | (arrivals > np.uint64(MAX_CYCLE))
        if wrong.any():
            at = int(wrong.argmax())
            where = f"{label}:{first_line + _line_of(text, at)}"
            if arrivals[at] > MAX_CYCLE:
                raise InputError(f"{where}: cycle {arrivals[at]} is above {MAX_CYCLE}, the limit")
            raise InputError(
                f"{where}: address {int(addresses[at]):#x} is beyond the memory's capacity, "
                f"{capacity_bytes:#x} bytes"
            )
        parts.append(part)
    if not any(len(part.addresses) for part in parts):
        raise InputError(f"{label}: holds no request; lines {_FORMS[0].named} are expected")
    return DramTrace(
        np.concatenate([part.addresses for part in parts]),
        np.concatenate([part.writes for part in parts]),
        np.concatenate([part.arrivals for part in parts]),
    )


def _parse(text: str, form: _Form) -> DramTrace | None:
    """The requests of lines that all have the form, values of 64 bits, not yet checked; None where
    a line has it not."""
    most = text.count("\n")
    columns = [np.zeros(most, dtype=np.int64) for _ in range(3)]
    order = np.array([_CODES[field] for field in form.fields])
    data = np.frombuffer(text.encode(errors="replace"), dtype=np.uint8)
    found = scan(data, order, _KIND_CODES, *columns)
    return None if found < 0 else DramTrace(*(column[:found] for column in columns))


def _parse_vectors(text: str, mapping: AddressMap | None, label: str, first_line: int) -> DramTrace:
    """The same for address vectors, each number checked against its level's size."""
    words = (_COMMENT.sub("", text) if "#" in text else text).split()
    if mapping is None:
        raise InputError(f"{label}:{first_line}: an address vector; addresses are expected")
    names = mapping.vector
    vectors = [word.split(",") for word in words[1::2]]
    for at, vector in enumerate(vectors):
        where = f"{label}:{first_line + _line_of(text, at)}"
        if len(vector) != len(names):
            expected = ", ".join(_LEVELS[name] for name in names)
            raise InputError(
                f"{where}: address vector of {len(vector)} numbers; {len(names)} are expected: "
                f"{expected}"
            )
        for name, number in zip(names, vector, strict=True):
            if int(number) >> mapping.width[name]:
                raise InputError(
                    f"{where}: {_LEVELS[name]} {number}; there are {1 << mapping.width[name]}"
                )
    numbers = np.array(vectors, dtype=np.int64).reshape(-1, len(names))
    return DramTrace(
        mapping.encode(dict(zip(names, numbers.T, strict=True))),
        np.array([_KINDS[word] for word in words[::2]], dtype=np.int64),
        np.zeros(len(vectors), dtype=np.int64),
    )


def _line_of(text: str, request: int) -> int:
    """Index of the line that holds the given request of ``text``."""
    lines = (i for i, line in enumerate(text.split("\n")) if _COMMENT.sub("", line).split())
    return next(islice(lines, request, None))


def _chunks(stream: TextIO, label: str) -> Iterator[tuple[int, str]]:
    """Pieces of whole lines, each with its end, and the number of their first line."""
    number = 1
    while text := stream.read(_CHUNK):
        rest = "" if text.endswith("\n") else stream.readline(MAX_LINE)
        if len(rest) == MAX_LINE and not rest.endswith("\n"):
            number += text.count("\n")
            raise InputError(f"{label}:{number}: longer than {MAX_LINE} characters, the limit")
        text += rest
        if not text.endswith("\n"):
            text += "\n"
        yield number, text
        number += text.count("\n")


def _form_of(text: str) -> _Form | None:
    """The form of the first request, by its words; None without any request.

    A first line that fits no form gets the nearest one, whose check then says what is wrong.
    """
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if words:
            if words[0] in _KINDS:
                return _FORMS[3] if len(words) == 2 and "," in words[1] else _FORMS[2]
            return _FORMS[1] if len(words) == 2 and words[1] in _KINDS else _FORMS[0]
    return None


def _first_wrong(text: str, form: _Form, label: str, first_line: int) -> InputError:
    """The error for the first line of ``text`` that does not have the form."""
    for number, line in enumerate(text.split("\n")[:-1], first_line):
        if not form.line.fullmatch(f"{line}\n"):
            return InputError(f"{label}:{number}: {_complaint(line, form)}")
    raise AssertionError("all lines fit, but together they did not")


def _complaint(line: str, form: _Form) -> str:
    shown = repr(line.strip()[:60] + ("..." if len(line.strip()) > 60 else ""))
    words = line.partition("#")[0].split()
    if len(words) != len(form.fields):
        return f"found {shown}; {form.named} is expected, the form of the file's first request"
    for field, word in zip(form.fields, words, strict=True):
        if field == "kind":
            if word not in _KINDS:
                allowed = ", ".join(kind for kind in _KINDS if kind.isupper())
                return f"kind {word[:20]!r}{near_miss(word[:20], _KINDS)}; allowed: {allowed}"
        elif field == "vector":
            if not re.fullmatch(_FIELDS[field], word):
                return f"{word[:40]!r} is no address vector such as 0,0,2,3,100,31"
        elif word.startswith("-") and _NUMBER.fullmatch(word[1:]):
            return f"{field} {word[:40]} is negative"
        elif not _NUMBER.fullmatch(word) or (field == "cycle" and not word.isdecimal()):
            hint = "; hex starts with 0x" if re.fullmatch("[0-9a-fA-F]+", word) else ""
            return f"{field} {word[:40]!r} is no whole number{hint}"
        elif not re.fullmatch(_FIELDS[field], word):
            return f"{field} {word[:40]} does not fit 64 bits"
    return f"found {shown}; {form.named} is expected"
