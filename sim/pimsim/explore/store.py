"""Results by what was simulated: written once, read by anybody, never locked.

``results/KEY.json`` holds the figures of one simulation; KEY is a hash of the resolved config, of
the traces that it reads, and of pimsim's version. ``points/ID.json`` says which result a point of a
sweep has, or why it has none; ID is a hash of the base and the point's values. Files are written to
a temporary name and renamed, so that two processes may write at once and a kill leaves no half.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pimsim.config.errors import InputError
from pimsim.config.files import write_whole

__all__ = ["FORMAT", "Store"]

FORMAT = "pimsim-store"
VERSION = 1


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
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"--out {folder}: give a new or empty folder, or a sweep's own")
        try:
            for name in ("results", "points"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            write_whole(marker, json.dumps({"format": FORMAT, "version": VERSION}).encode())
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be written ({error.strerror})") from error

    def _check(self, marker: Path) -> None:
        try:
            data = json.loads(marker.read_text(encoding="utf-8"))
            found = data["format"], data["version"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{marker}: no store of a sweep, or a damaged one") from None
        if found != (FORMAT, VERSION):
            raise InputError(
                f"{marker}: a store of {found[0]!r}, version {found[1]}; this pimsim reads "
                f"{FORMAT!r}, version {VERSION}"
            )

    @staticmethod
    def point_id(base_sha256: str, overrides: Sequence[str], version: str) -> str:
        """Of a point: its base and its values."""
        text = json.dumps([base_sha256, sorted(overrides), version])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @staticmethod
    def result_key(config_sha256: str, inputs_sha256: str, version: str) -> str:
        """Of a result: all that it depends on."""
        text = json.dumps([config_sha256, inputs_sha256, version])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def point(self, identity: str) -> dict[str, Any] | None:
        """What is known of a point: ``{"result": KEY}`` or ``{"error": TEXT}``."""
        return self._read(self.folder / "points" / f"{identity}.json")

    def result(self, key: str) -> dict[str, Any] | None:
        """A result's figures; None where there is none, or where its file is damaged."""
        return self._read(self.folder / "results" / f"{key}.json")

    def damaged(self) -> list[Path]:
        """Result and point files that cannot be read."""
        found = []
        for name in ("results", "points"):
            for path in sorted((self.folder / name).glob("*.json")):
                if self._read(path) is None:
                    found.append(path)
        return found

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def write_result(self, key: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures of a simulation."""
        self._write(self.folder / "results" / f"{key}.json", figures)

    def write_point(self, identity: str, what: Mapping[str, Any]) -> None:
        """Keep what became of a point."""
        self._write(self.folder / "points" / f"{identity}.json", what)

    @staticmethod
    def _write(path: Path, data: Mapping[str, Any]) -> None:
        text = json.dumps(data, sort_keys=True, allow_nan=False)
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
