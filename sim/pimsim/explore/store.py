"""Results by what was simulated: written once, read by anybody, never locked.

``results/KEY.json`` holds the figures of one simulation; KEY is a hash of all that they depend on
(``keys``). ``points/ID.json`` says which result a point of a sweep had when it was last swept, or
why it has none. Each file carries a checksum of its content, and is written to a temporary name and
renamed: two processes may write at once, a kill leaves no half, and what was altered is noticed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pimsim.config.errors import InputError, reason
from pimsim.config.files import make_folder, write_whole
from pimsim.config.reading import read_bytes

__all__ = ["FORMAT", "Store"]

FORMAT = "pimsim-store"
VERSION = 4
_FOLDERS = ("results", "points")


class Store:
    """A folder of results. Raises ``InputError`` where the folder holds something else, a store of
    another version, or cannot be written."""

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder = folder
        marker = folder / "store.json"
        if marker.is_file():
            self._check(marker)
            return
        if not create:
            raise InputError(f"{folder}: no store of a sweep (it has no store.json)")
        if folder.exists() and (not folder.is_dir() or _holds_anything(folder)):
            raise InputError(f"--out {folder}: give a new or empty folder, or a sweep's own")
        for name in _FOLDERS:
            make_folder(folder / name)
        write_whole(marker, json.dumps({"format": FORMAT, "version": VERSION}).encode())

    def _check(self, marker: Path) -> None:
        try:
            data = json.loads(marker.read_text(encoding="utf-8"))
            found = data["format"], data["version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{marker}: no store of a sweep, or a damaged one") from None
        if found != (FORMAT, VERSION):
            raise InputError(
                f"{marker}: a store of {found[0]!r}, version {found[1]}; this pimsim reads "
                f"{FORMAT!r}, version {VERSION}"
            )

    def point(self, identity: str) -> dict[str, Any] | None:
        """What is known of a point: ``{"result": KEY}`` or ``{"error": TEXT}``."""
        return self._read(self.folder / "points" / f"{identity}.json")

    def result(self, key: str) -> dict[str, Any] | None:
        """A result's figures; None where there is none, or where its file is damaged."""
        return self._read(self.folder / "results" / f"{key}.json")

    def drop_damaged(self) -> list[Path]:
        """Remove what is no file, or one whose content is not what was written; which they were.
        Raises ``InputError`` where one cannot be removed."""
        found = []
        for name in _FOLDERS:
            for path in sorted((self.folder / name).glob("*.json")):
                if self._read(path) is None:
                    found.append(path)
                    _remove(path)
        return found

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        if not path.is_file():  # a pipe would keep us waiting
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                return None
            content = data.get("content")
            if not isinstance(content, dict) or data.get("sha256") != _checksum(content):
                return None
        except (OSError, ValueError, RecursionError):  # the last: nested without end
            return None
        return content

    def write_source(self, sweep: Path, source: Mapping[str, str]) -> None:
        """Keep the sweep's YAML, and where it came from."""
        write_whole(self.folder / "sweep.yaml", read_bytes(sweep))
        write_whole(self.folder / "source.json", json.dumps(source).encode())

    def write_result(self, key: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures of a simulation."""
        self._write(self.folder / "results" / f"{key}.json", figures)

    def write_point(self, identity: str, what: Mapping[str, Any]) -> None:
        """Keep what became of a point."""
        self._write(self.folder / "points" / f"{identity}.json", what)

    @staticmethod
    def _write(path: Path, data: Mapping[str, Any]) -> None:
        whole = {"content": data, "sha256": _checksum(data)}
        text = json.dumps(whole, sort_keys=True, allow_nan=False)
        write_whole(path, text.encode())


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: damaged, and cannot be removed ({reason(error)})") from error


def _holds_anything(folder: Path) -> bool:
    """Whether there is more than what a store has that was killed before its marker was written."""
    return any(
        not each.name.startswith(".store.json.")
        if each.name not in _FOLDERS or not each.is_dir()
        else any(each.iterdir())
        for each in folder.iterdir()
    )


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
