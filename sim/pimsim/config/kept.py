"""Files of what pimsim found out and can find out again, each with a sum of what it holds.

They lie in ``$PIMSIM_CACHE_DIR``, else ``pimsim`` in the user's cache folder.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pimsim.config.errors import InputError
from pimsim.config.files import make_folder, write_whole
from pimsim.config.paths import cache_folder

__all__ = ["keep", "kept_file", "read_kept"]

NONE = "none"
"""Value of ``PIMSIM_CACHE_DIR`` that keeps nothing."""


def kept_file(name: str) -> Path | None:
    """Where a file of this name is kept; None: nowhere.

    Parameters
    ----------
    name
        In the user's cache folder.
    """
    given = os.environ.get("PIMSIM_CACHE_DIR")
    if given == NONE:
        return None
    folder = Path(given) if given else cache_folder()
    return None if folder is None else folder / name


def keep(path: Path | None, content: str) -> None:
    """Write ``content``. A folder that cannot be written is none.

    Parameters
    ----------
    path
        Of ``kept_file``.
    content
        All of it.
    """
    if path is None:
        return
    with suppress(InputError):
        make_folder(path.parent)
        outer = {"sha256": _sum(content), "content": content}
        write_whole(path, json.dumps(outer).encode())


def read_kept(path: Path | None) -> str | None:
    """What was written; None where there is no file, or not the one that was written.

    Parameters
    ----------
    path
        Of ``kept_file``.
    """
    if path is None:
        return None
    try:
        outer = json.loads(path.read_bytes())
        content = outer["content"]
        whole = isinstance(content, str) and _sum(content) == outer["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if whole else None


def _sum(content: str) -> str:
    return sha256(content.encode()).hexdigest()
