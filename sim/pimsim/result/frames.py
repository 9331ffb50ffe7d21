"""A run as columns: which tables there are, as pandas frames and as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError, near_miss
from pimsim.result.rows import OperatorResult, RequestResult, StageResult, StepResult
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas

__all__ = ["ROW_TABLES", "TABLES", "frame", "parquet"]

ROW_TABLES: Mapping[str, type] = {
    "steps": StepResult, "requests": RequestResult, "stages": StageResult,
    "operators": OperatorResult,
}  # fmt: skip
"""Fields of a result that are tables, and what a row of each is."""
TABLES = (*ROW_TABLES, "cycle_stack", "series")
_PLACE = ("device", "step", "first_step", "last_step", "part", "layer", "unit")
"""Where a row belongs: the first columns of a frame."""
_SHOWN = {"bytes": "size_bytes", "start_cycle": "start_cycles", "layer": "block"}
"""Columns that a frame calls otherwise than ``result.json``, by their unit or by the field's word
for it."""
_PANDAS = {"str": "object", "int": "int64", "float": "float64", "int | None": "Int64"}


def frame(result: Result, name: str) -> pandas.DataFrame:
    """A table as ``Result.table`` gives it.

    Parameters
    ----------
    result
        Of a run.
    name
        Of the table.

    Raises
    ------
    InputError
        For a name that is none.
    """
    import pandas

    if name not in TABLES:
        raise InputError(
            f"no table {name!r}{near_miss(name, TABLES)}; there are {', '.join(TABLES)}"
        )
    if name in ROW_TABLES:
        types = _types(name)
        placed = sorted(types, key=lambda key: _PLACE.index(key) if key in _PLACE else len(_PLACE))
        columns = _columns(result, name)
        found = pandas.DataFrame(
            {
                _SHOWN.get(key, key): pandas.Series(columns[key], dtype=_PANDAS[types[key]])
                for key in placed
            }
        )
    elif name == "series":
        found = pandas.DataFrame(_intervals(result))
    else:
        rows = [
            (unit, cause, cycles)
            for unit, stack in result.cycle_stack.items()
            for cause, cycles in stack.items()
        ]
        found = pandas.DataFrame(rows, columns=["unit", "cause", "cycles"])
    fast = result.fidelity.mode == "fast"
    return found.assign(fidelity=result.fidelity.words) if fast else found


def parquet(result: Result, name: str) -> Any:
    """A table of ``ROW_TABLES`` as a ``pyarrow.Table``, with the keys of ``result.json``.

    Parameters
    ----------
    result
        Of a run.
    name
        Of the table.
    """
    import pyarrow

    kinds = {
        "str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(),
        "int | None": pyarrow.int64(),
    }  # fmt: skip
    schema = pyarrow.schema([(key, kinds[kind]) for key, kind in _types(name).items()])
    return pyarrow.table(_columns(result, name), schema=schema)


def _types(name: str) -> dict[str, str]:
    """Columns of a table and what is in them, as it is written in the type of its rows."""
    return {each.name: str(each.type) for each in fields(ROW_TABLES[name])}


def _columns(result: Result, name: str) -> dict[str, list[Any]]:
    rows = getattr(result, name)
    return {key: [getattr(row, key) for row in rows] for key in _types(name)}


def _intervals(result: Result) -> dict[str, Sequence[float]]:
    """Columns of the table ``series``."""
    if result.series is None:
        return {}
    one = asdict(result.series)
    joules = one.pop("energy_j")
    starts = (0, *result.series.end_ps[:-1])
    columns = {"start_ps": starts, **one, **{f"{part}_j": j for part, j in joules.items()}}
    return {name: column for name, column in columns.items() if len(column) == len(starts)}
