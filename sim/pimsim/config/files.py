"""The one writer of files: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pimsim.config.errors import InputError, reason
from pimsim.config.paths import Pathlike, given_path

__all__ = ["make_folder", "read_umask", "write_whole"]


def read_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def make_folder(path: Pathlike) -> Path:
    """A folder, with those above it, that may be there. Raises ``InputError``.

    Parameters
    ----------
    path
        Of the folder, ``~`` allowed.

    Returns
    -------
    Path
        With ``~`` expanded.

    Raises
    ------
    InputError
        Where it cannot be made, or is a file.
    """
    folder = given_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {reason(error)}") from error
    return folder


def write_whole(path: Pathlike, content: bytes) -> Path:
    """Write ``content`` to a temporary name beside ``path`` and rename it.

    A link stays one and a file keeps its mode; what is no file (a pipe, a terminal) cannot be
    replaced and is written to.

    Parameters
    ----------
    path
        Of the file, ``~`` allowed.
    content
        All of it.

    Returns
    -------
    Path
        The file, ``~`` expanded.

    Raises
    ------
    InputError
        Where it cannot be written: no such folder, no permission, no room.
    """
    target = given_path(path)
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
        else:
            _replace(target.resolve(), content)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {reason(error)}") from error
    return target


def _replace(final: Path, content: bytes) -> None:
    mode = final.stat().st_mode & 0o777 if final.exists() else 0o666 & ~read_umask()
    handle, name = tempfile.mkstemp(prefix=f".{final.name[:_SHOWN]}.", dir=final.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(name).chmod(mode)
        Path(name).replace(final)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


_SHOWN = 60
"""Letters of a file's name in its temporary one, which must not be longer than a name may be."""
