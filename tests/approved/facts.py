"""Any value of pimsim as lines of text, one fact a line, so that a diff says what moved.

A list of records is a table: a line with its columns, a line a row. Floats have 12 significant
digits. What differs from run to run (times, memory, hashes, folders) has a word in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from pimsim import __version__

__all__ = ["compared", "facts", "normalised", "number_text"]

WIDTH = 100
"""Characters of a line of a list of numbers."""
MOST_ROWS = 400
"""Of a table; of a longer one every n-th row and the sums of its columns."""
UNSTEADY = {"wall_s", "peak_rss_mb", "simulated_s", "left_s"}
"""Keys whose values differ from run to run."""
_HASH = re.compile(r"\b[0-9a-f]{64}\b|(?<=calibration-)[0-9a-f]{24}(?=\.json)")
_TOOK = re.compile(r"(simulated in\s+)[\d.,]+ s(, [\d.,]+ MB)?")
_VERSION = re.compile(rf"(\bpimsim (?:= )?|\bversion = |^){re.escape(__version__)}\b", re.MULTILINE)
_MANY_NAMES = re.compile(r"((?:known|allowed): )(?:[\w.+-]+, ){6,}[\w.+-]+")
"""Lists of a registry, which grow with every preset and metric; commands that list them do."""
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
REL = 1e-9
"""Two floats that are as close are the same, as libraries and processors round differently."""


def number_text(value: float) -> str:
    """12 significant digits; never that of an integer, so that a type that changes is seen."""
    text = format(value, ".12g")
    return text if any(each in text for each in ".einf") else text + ".0"


def facts(value: Any, at: str = "") -> Iterator[str]:
    """Lines of a value. ``at``: where it stands, as ``steps[0].cycles``."""
    value = _plain(value)
    if isinstance(value, dict):
        if not value:
            yield f"{at} = {{}}"
        for key, item in value.items():
            where = f"{at}.{key}" if at else str(key)
            yield from [f"{where} = <unsteady>"] if key in UNSTEADY else facts(item, where)
    elif isinstance(value, list):
        yield from _listed(value, at)
    else:
        yield f"{at} = {_scalar(value)}" if at else _scalar(value)


def normalised(text: str, folder: Path | None = None) -> str:
    """Without hashes, times, long lists of names, folders of this machine and pimsim's version."""
    root = Path(__file__).resolve().parents[2]
    if folder is not None:
        text = text.replace(str(folder), "<folder>")
    text = text.replace(str(root), "<checkout>")
    text = _TOOK.sub(r"\1<time>", text)
    text = _HASH.sub("<sha256>", text)
    text = _MANY_NAMES.sub(r"\1<names>", text)
    text = _VERSION.sub(r"\1<version>", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def compared(expected: str, found: str) -> tuple[list[str], list[str]]:
    """Both as lines, those of ``found`` that say the same but for the last digits of floats as
    ``expected`` has them."""
    first, second = expected.splitlines(), found.splitlines()
    if len(first) == len(second):
        pairs = zip(first, second, strict=True)
        second = [one if _same(one, two) else two for one, two in pairs]
    return first, second


def _same(one: str, two: str) -> bool:
    if one == two:
        return True
    if _NUMBER.split(one) != _NUMBER.split(two):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(two), strict=True)
    return all(_close(left, right) for left, right in pairs)


def _close(one: str, two: str) -> bool:
    if one == two:
        return True
    if not any(mark in one + two for mark in ".e"):
        return False
    left, right = float(one.replace(",", "")), float(two.replace(",", ""))
    return isclose(left, right, rel_tol=REL, abs_tol=1e-21)


def _plain(value: Any) -> Any:
    """A dict, a list or a scalar."""
    if isinstance(value, (dict, str, bool, int, float)) or value is None:
        return value
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, np.ndarray):
        if value.dtype.names:
            return [dict(zip(value.dtype.names, row, strict=True)) for row in value.tolist()]
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return sorted(value, key=str)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    return value


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return quoted if not value or quoted[1:-1] != value or " " in value else value
    if isinstance(value, (bool, int, Fraction, Path)) or value is None:
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return f"<{type(value).__name__}>"


def _listed(items: list[Any], at: str) -> Iterator[str]:
    plain = [_plain(item) for item in items]
    if plain and all(isinstance(item, dict) and item for item in plain):
        columns = list(plain[0])
        flat = all(
            list(item) == columns and all(_is_cell(cell) for cell in item.values())
            for item in plain
        )
        if flat:
            yield from _table(columns, plain, at)
            return
    if all(not isinstance(item, (dict, list)) for item in plain):
        yield from _wrapped(at, [_scalar(item) for item in plain])
        return
    if all(isinstance(item, list) for item in plain) and all(
        not isinstance(_plain(cell), (dict, list)) for item in plain for cell in item
    ):
        every, _ = _chosen(plain)
        for number, item in every:
            yield from _wrapped(f"{at}[{number}]", [_scalar(_plain(cell)) for cell in item])
        return
    for number, item in enumerate(plain):
        yield from facts(item, f"{at}[{number}]")


def _is_cell(value: Any) -> bool:
    value = _plain(value)
    if isinstance(value, list):
        return len(value) <= 8 and all(not isinstance(_plain(x), (dict, list)) for x in value)
    return not isinstance(value, dict)


def _cell(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, list):
        return "[" + ",".join(_scalar(_plain(each)) for each in value) + "]"
    return _scalar(value)


def _table(columns: list[str], rows: list[dict[str, Any]], at: str) -> Iterator[str]:
    columns = [each for each in columns if each not in UNSTEADY]
    yield f"{at}[{len(rows)}] | " + " | ".join(columns)
    shown, rest = _chosen(rows)
    for number, row in shown:
        yield f"{number} | " + " | ".join(_cell(row[each]) for each in columns)
    if rest:
        for each in columns:
            numbers = [row[each] for row in rows if isinstance(row[each], (int, float))]
            if numbers:
                yield f"sum of {each} = {_scalar(sum(numbers))}"


def _chosen(rows: list[Any]) -> tuple[list[tuple[int, Any]], bool]:
    """All rows with their numbers, or of many every n-th; and whether some are left out."""
    step = -(-len(rows) // MOST_ROWS)
    return [
        (number, row) for number, row in enumerate(rows) if number % max(step, 1) == 0
    ], step > 1


def _wrapped(at: str, words: list[str]) -> Iterator[str]:
    if len(words) > 4 * MOST_ROWS:
        numbers = [float(word) for word in words if _NUMBER.fullmatch(word)]
        words = [
            *words[: 2 * MOST_ROWS],
            f"... {len(words)} in all, sum {number_text(sum(numbers))}",
        ]
    line = f"{at} = ["
    first = True
    for word in words:
        if len(line) + len(word) > WIDTH and not line.endswith("= [") and line != "  ":
            yield line.rstrip()
            line, first = "  ", True
        line += ("" if first else " ") + word
        first = False
    yield line + "]"
