"""Which reader a file is for, told by what it begins with, not by its name."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from pimsim.config.errors import InputError
from pimsim.config.reading import read_bytes
from pimsim.workload.routing.servers.arrays import read_npy, read_npz
from pimsim.workload.routing.servers.recorded import ImportedRouting, Record, assemble
from pimsim.workload.routing.servers.recorder import read_recorder
from pimsim.workload.routing.servers.responses import read_responses
from pimsim.workload.routing.shape import MoeShape

__all__ = ["import_routing"]

_NPY, _ZIP, _GZIP, _PARQUET = b"\x93NUMPY", b"PK\x03\x04", b"\x1f\x8b", b"PAR1"
_MOST_BYTES = 2**32


def import_routing(paths: Sequence[Path], shape: MoeShape) -> ImportedRouting:
    """The routing in one or more files of a server that ran the model of ``shape``.

    Parameters
    ----------
    paths
        Answers of vLLM or SGLang (JSON, an object or a line each, gzip or not), ``.npy`` or
        ``.npz`` of [tokens, blocks, choices], files of SGLang's recorder (one a rank).
    shape
        What every array is checked against.

    Returns
    -------
    ImportedRouting
        A trace whose sequences are the requests, in the order of files and places in them.

    Raises
    ------
    InputError
        One line with file and place: no such file, damaged, another model's.
    """
    records: list[Record] = []
    notes: list[str] = []
    for path in paths:
        found, said = _read(path, shape)
        records += found
        notes += said
    names = ", ".join(path.name for path in paths)
    return assemble(records, shape, f"a server's routing: {names}", notes)


def _read(path: Path, shape: MoeShape) -> tuple[list[Record], list[str]]:
    where, data = str(path), read_bytes(path, "what a server recorded", _MOST_BYTES)
    if data.startswith(_GZIP):
        data = _unzipped(where, data)
    if data.startswith(_NPY):
        return read_npy(where, data), []
    if data.startswith(_ZIP):
        if _is_torch(where, data):
            return read_recorder(where, data, shape)
        return read_npz(where, data), []
    if data.startswith(_PARQUET):
        raise InputError(f"{where}: a Parquet file; pimsim's own routing traces need no import")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: neither JSON, .npy, .npz nor a file of PyTorch (byte {error.start} is no "
            "text)"
        ) from None
    return read_responses(where, text), []


def _unzipped(where: str, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            found = stream.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{where}: damaged gzip data ({error})") from None
    if len(found) > _MOST_BYTES:
        raise InputError(f"{where}: more than {_MOST_BYTES} bytes when unpacked")
    return found


def _is_torch(where: str, data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{where}: a damaged archive ({error})") from None
