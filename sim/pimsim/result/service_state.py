"""What an unfinished service goes on from, on disk: ``state.npz`` beside its result."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.reading import open_input
from pimsim.result.store import STATE_FILE
from pimsim.serving.service import Service
from pimsim.serving.state import ServiceState, restore
from pimsim.serving.step_log import StepLog

__all__ = ["go_on", "write_state"]

_CONTENT = "content"
_WALL = "wall_s"
_DAMAGED = (
    KeyError, ValueError, TypeError, IndexError, OSError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def write_state(state: ServiceState, content: str, wall_s: float, folder: Path) -> None:
    """Write it to a folder.

    Parameters
    ----------
    state
        Of a service between two moments.
    content
        Hash of all that the service depends on: it goes on where that is the same.
    wall_s
        Seconds that it took so far.
    folder
        That is there.
    """
    state.values |= {_CONTENT: content, _WALL: wall_s}
    np.savez_compressed(folder / STATE_FILE, **state.packed())  # type: ignore[arg-type]


def go_on(folder: Path, content: str, service: Service, log: StepLog) -> float:
    """Put what had happened into a service and a log that have just been made.

    Parameters
    ----------
    folder
        Of the service's result.
    content
        Hash of config, files, plugins and version.
    service
        That has just been made; written.
    log
        That has just been made; written.

    Returns
    -------
    float
        Seconds of the wall clock that it had taken.

    Raises
    ------
    InputError
        Where nothing is there to go on from, it is damaged, or of another service.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise InputError(
            f"--resume: {path} is not there: no service has stopped early there, or it has ended"
        )
    try:
        with open_input(path, "a service's state", None) as stream, np.load(stream) as packed:
            state = ServiceState.unpacked({name: packed[name] for name in packed.files})
        if state.values[_CONTENT] != content:
            raise InputError(
                f"--resume: {path} is of another config, other files, plugins or version of pimsim"
            )
        restore(state, service, log)
        wall_s: Any = state.values[_WALL]
        return float(wall_s)
    except _DAMAGED as error:
        raise InputError(f"--resume: {path} is damaged: {error}") from None
