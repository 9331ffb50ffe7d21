"""A result on disk: ``config.yaml``, ``result.json``, and its tables as Parquet, in one folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pimsim.config.errors import InputError, reason
from pimsim.config.files import read_umask
from pimsim.config.paths import given_path
from pimsim.config.reading import parse_json, read_text
from pimsim.result.frames import ROW_TABLES, parquet
from pimsim.result.types import Result

__all__ = [
    "CONFIG_FILE",
    "RESULT_FILE",
    "STATE_FILE",
    "TABLE_FILES",
    "check_writable",
    "load",
    "load_config_text",
    "save",
    "write_folder",
]

CONFIG_FILE = "config.yaml"
RESULT_FILE = "result.json"
TABLE_FILES = {name: f"{name}.parquet" for name in ROW_TABLES}
"""By table; columns are the keys of ``result.json``."""
_MAX_BYTES = 2**30
STATE_FILE = "state.npz"
"""What a service that has not ended goes on from."""
_FILES = {CONFIG_FILE, RESULT_FILE, STATE_FILE, *TABLE_FILES.values()}


def check_writable(out_dir: str | os.PathLike[str]) -> None:
    """Raise when ``save`` could not write to a folder, before a run spends its time.

    Parameters
    ----------
    out_dir
        The folder.

    Raises
    ------
    InputError
        Where it holds something else than a result, or cannot be made.
    """
    target = given_path(out_dir)
    _check_target(target)
    parent = target.resolve().parent
    while not parent.exists():
        parent = parent.parent
    try:
        # Trying is the only sure way: root may write where the file system does not let it.
        Path(tempfile.mkdtemp(prefix=".pimsim.", dir=parent)).rmdir()
    except OSError as error:
        raise InputError(
            f"--out {target}: {parent} is not a folder that can be written ({reason(error)})"
        ) from error


def save(result: Result, resolved_yaml: str, out_dir: str | os.PathLike[str]) -> None:
    """Write config, result and tables to ``out_dir``, see ``write_folder``.

    Parameters
    ----------
    result
        Of a run.
    resolved_yaml
        Its config, complete.
    out_dir
        The folder.
    """

    write_folder(
        out_dir, resolved_yaml, result.to_dict(), lambda folder: _write_tables(result, folder)
    )


def write_folder(
    out_dir: str | os.PathLike[str], resolved_yaml: str, figures: Mapping[str, Any],
    fill: Callable[[Path], None],
) -> None:  # fmt: skip
    """Write a result's files to a folder as a whole or not at all.

    Config and figures, and what ``fill`` writes, go to a new folder beside it, which is then
    renamed. A folder that is there is replaced when it is empty or holds a result and nothing else.

    Parameters
    ----------
    out_dir
        The folder.
    resolved_yaml
        The config, complete.
    figures
        Of the result, as JSON takes them.
    fill
        Writes further files into the folder that it is given.

    Raises
    ------
    InputError
        Where the folder holds something else, or the place cannot be written.
    """
    target = given_path(out_dir)
    _check_target(target)
    final = target.resolve()  # through a link to a folder: replace the folder, keep the link
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as error:
        raise InputError(f"--out {target}: cannot be written ({reason(error)})") from error
    try:
        (staging / CONFIG_FILE).write_text(resolved_yaml, encoding="utf-8")
        text = json.dumps(figures, indent=1, allow_nan=False)
        (staging / RESULT_FILE).write_text(text + "\n", encoding="utf-8")
        fill(staging)
        staging.chmod(0o777 & ~read_umask())
        _swap(staging, final)
    except OSError as error:
        raise InputError(f"--out {target}: cannot be written ({reason(error)})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load(out_dir: str | os.PathLike[str]) -> Result:
    """Read back what ``save`` wrote.

    Parameters
    ----------
    out_dir
        The folder.

    Raises
    ------
    InputError
        When it is not there or damaged.
    """
    path = given_path(out_dir) / RESULT_FILE
    data = parse_json(read_text(path, "a result's JSON", _MAX_BYTES), str(path))
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a result's JSON (found {type(data).__name__})")
    if "goodput" in data:
        raise InputError(f"{path}: the result of a service (pimsim serve); a run's is expected")
    try:
        return Result.from_dict(data)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def load_config_text(out_dir: str | os.PathLike[str]) -> str:
    """The resolved YAML that ``save`` wrote.

    Parameters
    ----------
    out_dir
        The folder.
    """
    path = given_path(out_dir) / CONFIG_FILE
    return read_text(path, "a run's config", _MAX_BYTES)


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"--out {target}: is a file, a folder is needed")
    if not target.is_dir():
        return
    try:
        found = {entry.name for entry in target.iterdir()}
    except OSError as error:
        raise InputError(f"--out {target}: cannot be read ({reason(error)})") from error
    foreign = sorted(found - _FILES)
    if foreign:
        raise InputError(
            f"--out {target}: holds {foreign[0]!r}, which is no result's; "
            "give a new or empty folder, or one of an earlier run"
        )


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        old = Path(aside) / "old"
        target.rename(old)
        try:
            staging.rename(target)
        except OSError:
            old.rename(target)
            raise


def _write_tables(result: Result, folder: Path) -> None:
    import pyarrow.parquet

    for name, file in TABLE_FILES.items():
        pyarrow.parquet.write_table(parquet(result, name), folder / file)
