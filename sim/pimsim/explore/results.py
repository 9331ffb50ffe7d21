"""Sweeps and their results from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pimsim.explore.sweep import load_table, run_sweep
from pimsim.result import store
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas

__all__ = ["load", "sweep"]

PathLike = str | os.PathLike[str]


def load(folder: PathLike) -> Result | pandas.DataFrame:
    """What ``pimsim run --out`` wrote as a ``Result``, or a sweep's store as a table with a row a
    point.

    Parameters
    ----------
    folder
        That ``--out`` named.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> import pimsim
    >>> kept = pimsim.run("dgx-h100", requests="equal:64+1", batch=1, layers=1, out="kept")
    >>> pimsim.load("kept").cycles == kept.cycles
    True
    """
    path = Path(folder)
    return load_table(path) if (path / "store.json").is_file() else store.load(path)


def sweep(
    path: PathLike, out: PathLike, *, workers: int | None = None, dask: str | None = None,
    replace: bool = False,
) -> pandas.DataFrame:  # fmt: skip
    """Simulate the sweep of a YAML file, and give its table.

    What the store knows is not simulated again. Workers run pimsim alone, not the script that calls
    this, which so needs no ``if __name__ == "__main__"``.

    Parameters
    ----------
    path
        Of the sweep's YAML.
    out
        Folder of the store; it is made where it is not there.
    workers
        Local processes; None: as many as there are cores.
    dask
        Address of a Dask scheduler, in place of local processes.
    replace
        Let the sweep take the place of another file's in ``out``.

    Returns
    -------
    pandas.DataFrame
        A row a point, in the sweep's order.

    Raises
    ------
    InputError
        For wrong input.

    Examples
    --------
    >>> import pimsim
    >>> from pathlib import Path
    >>> study = "base: dgx-h100\\ngrid: {workload.batch: [8, 16], workload.model: [gpt3-7b]}"
    >>> count = Path("study.yaml").write_text(study)
    >>> table = pimsim.sweep("study.yaml", "study", workers=1)
    >>> table["workload.batch"].tolist()
    [8, 16]
    """
    run_sweep(Path(path), Path(out), workers, dask, replace=replace)
    return load_table(Path(out))
