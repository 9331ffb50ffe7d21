"""Files of one JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import parse_json
from pimsim.config.resources import display_path

__all__ = ["JsonLines"]

_MOST = 10**15


class JsonLines:
    """The objects of a file; what a key holds is checked where it is asked for."""

    def __init__(self, path: Path, text: str) -> None:
        self.shown = display_path(path)
        self.objects: list[dict[str, Any]] = []
        self._lines: list[int] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            found = parse_json(line, self.shown, number)
            if not isinstance(found, dict):
                raise InputError(f"{self.shown}:{number}: a JSON object is expected")
            self.objects.append(found)
            self._lines.append(number)

    def __len__(self) -> int:
        return len(self.objects)

    def where(self, row: int) -> str:
        """File and line of an object."""
        return f"{self.shown}:{self._lines[row]}"

    def get(self, row: int, key: str) -> Any:
        """What an object has by a key. Raises ``InputError`` where it has none."""
        one = self.objects[row]
        if key not in one:
            raise InputError(
                f"{self.where(row)}: key {key!r} is missing{near_miss(key, one)}; found "
                f"{', '.join(one) or 'none'}"
            )
        return one[key]

    def whole(self, key: str) -> NDArray[np.int64]:
        """Whole numbers of at least 0, of all objects."""
        return np.array(
            [self.as_whole(row, key, self.get(row, key)) for row in range(len(self))],
            dtype=np.int64,
        )  # fmt: skip

    def numbers(self, key: str) -> NDArray[np.float64]:
        """Numbers of at least 0, of all objects."""
        return np.array(
            [self.as_number(row, key, self.get(row, key)) for row in range(len(self))],
            dtype=np.float64,
        )  # fmt: skip

    def wholes(self, row: int, key: str) -> Sequence[int]:
        """A list of whole numbers of at least 0."""
        return [self.as_whole(row, key, each) for each in self._list(row, key)]

    def objects_of(self, row: int, key: str) -> Sequence[dict[str, Any]]:
        """A list of objects."""
        found = self._list(row, key)
        if not all(isinstance(each, dict) for each in found):
            raise InputError(f"{self.where(row)}: {key}: a list of objects is expected")
        return found

    def list_of_numbers(self, row: int, key: str) -> Sequence[float]:
        """A list of numbers of at least 0."""
        return [self.as_number(row, key, each) for each in self._list(row, key)]

    def _list(self, row: int, key: str) -> list[Any]:
        found = self.get(row, key)
        if not isinstance(found, list):
            raise InputError(f"{self.where(row)}: {key}: a list is expected")
        return found

    def as_whole(self, row: int, key: str, value: Any) -> int:
        """``value``, if it is a whole number of at least 0."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            raise InputError(
                f"{self.where(row)}: {key} is {str(value)[:40]!r}; a whole number is expected"
            )
        return value

    def as_number(self, row: int, key: str, value: Any) -> float:
        """``value``, if it is a number of at least 0."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= _MOST:
            raise InputError(
                f"{self.where(row)}: {key} is {str(value)[:40]!r}; a number of at least 0 is "
                "expected"
            )
        return float(value)
