"""Parquet files of others: read whole, with what is damaged or of another type said in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.reading import read_bytes

__all__ = ["MAX_BYTES", "integers", "read_parquet"]

MAX_BYTES = 2**30
"""Of a file, and of the columns that it unpacks to."""


def read_parquet(path: Path, columns: Sequence[str], what: str) -> Any:
    """The ``columns`` of a file as an Arrow table, which must have them all.

    Parameters
    ----------
    path
        Of the file.
    columns
        Names of those that are read.
    what
        Is expected, as in "a routing trace".

    Returns
    -------
    pyarrow.Table
        Of these columns.

    Raises
    ------
    InputError
        For what is no Parquet file, a damaged one, one that lacks a column or unpacks to more than
        ``MAX_BYTES``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_bytes(path, what, MAX_BYTES)
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise InputError(
                f"{path}: it has no column {missing[0]!r}; needed: {', '.join(columns)}"
            )
        groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        if unpacked > MAX_BYTES or file.metadata.num_rows > MAX_BYTES:
            raise InputError(
                f"{path}: {file.metadata.num_rows:,} rows of {unpacked:,} bytes; "
                f"{MAX_BYTES:,} are allowed"
            )
        table = file.read(columns=list(columns))
        # dictionaries and offsets are looked through: a damaged one would be read past its end
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{path}: no Parquet file, or a damaged one ({lines[0]})") from None
    return table


def integers(path: Path, table: Any, name: str) -> NDArray[np.int64]:
    """A column of whole numbers.

    Parameters
    ----------
    path
        Of the file, for messages.
    table
        ``pyarrow.Table``.
    name
        Of the column.

    Returns
    -------
    NDArray[np.int64]
        (rows,).

    Raises
    ------
    InputError
        For a column of anything else.
    """
    import pyarrow as pa

    column = table.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        found = f"{column.null_count} nulls" if column.null_count else str(column.type)
        raise InputError(f"{path}: column {name!r} must hold whole numbers, found {found[:60]}")
    found_values: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return found_values
