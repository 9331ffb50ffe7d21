"""What a path that somebody wrote means."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pimsim.config.errors import InputError

__all__ = ["Pathlike", "cache_folder", "given_path"]

Pathlike = str | os.PathLike[str]

_MAX_NAME = 255
"""Bytes of one part of a path, on all file systems in use."""
_MAX_PATH = 4095


def given_path(text: Pathlike) -> Path:
    """The path that somebody means, ``~`` and ``~user`` expanded.

    Parameters
    ----------
    text
        As it was given.

    Raises
    ------
    InputError
        For an unknown user and for what no file can be called: nothing, bytes that are no text, or
        names longer than a file system takes.
    """
    name = os.fspath(text)
    shown = repr(name if len(name) <= 60 else f"{name[:57]}...")
    if not name:
        raise InputError("a file or folder is expected, found an empty name")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name!a}: the name of a file must be UTF-8 text") from None
    if b"\0" in encoded:
        raise InputError(f"{shown}: no file's name has a zero byte")
    longest = max(map(len, encoded.split(b"/")))
    if longest > _MAX_NAME or len(encoded) > _MAX_PATH:
        raise InputError(
            f"{shown}: a name of {longest:,} bytes in a path of {len(encoded):,}; "
            f"allowed: {_MAX_NAME} in {_MAX_PATH:,}"
        )
    try:
        return Path(name).expanduser()
    except RuntimeError:
        user = name.partition("/")[0]
        raise InputError(f"{shown}: no user {user[1:]!r}") from None


def cache_folder() -> Path | None:
    """The user's folder for what pimsim can find out again; None where the user has no home."""
    places = {"win32": ("LOCALAPPDATA", "~/AppData/Local"), "darwin": ("", "~/Library/Caches")}
    variable, home = places.get(sys.platform, ("XDG_CACHE_HOME", "~/.cache"))
    folder = Path(os.environ.get(variable) or os.path.expanduser(home))
    # nothing belongs below the current folder
    return folder / "pimsim" if folder.is_absolute() else None
