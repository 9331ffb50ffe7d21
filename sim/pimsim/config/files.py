"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["read_umask", "write_whole"]


def read_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path`` and rename it.

    A link stays one and a file keeps its mode; what is no file (a pipe, a terminal) cannot be
    replaced and is written to. Raises ``OSError``.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    final = path.resolve()
    mode = final.stat().st_mode & 0o777 if final.exists() else 0o666 & ~read_umask()
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(name).chmod(mode)
        Path(name).replace(final)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
