"""Arrays that people keep of what a server returned: ``.npy`` and ``.npz``.

One array is one request, [tokens, blocks, choices], or several, with an axis before these. In an
archive each array is a request; ``prompt_routed_experts`` and ``routed_experts`` of one are one
request, and ``token_ids`` are its ids.
"""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.routing.servers.recorded import Record

__all__ = ["read_npy", "read_npz"]

_MOST_BYTES = 2**32
_IDS = ("token_ids", "input_ids")


def read_npy(where: str, data: bytes) -> list[Record]:
    """The records of a ``.npy`` file.

    Parameters
    ----------
    where
        What messages call it.
    data
        Of the file.

    Raises
    ------
    InputError
        For a damaged one, or objects.
    """
    return _requests(where, _array(where, data))


def read_npz(where: str, data: bytes) -> list[Record]:
    """The records of a ``.npz`` archive, in its order.

    Parameters
    ----------
    where
        What messages call it.
    data
        Of the file.

    Raises
    ------
    InputError
        For a damaged one, objects, or an archive without arrays or with too large ones.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            size = sum(archive.getinfo(name).file_size for name in names)
            if size > _MOST_BYTES:
                raise InputError(f"{where}: {size} bytes of arrays; at most {_MOST_BYTES} are read")
            arrays = {
                name.removesuffix(".npy"): _array(f"{where}: {name}", archive.read(name))
                for name in names
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise InputError(f"{where}: a damaged .npz archive ({error})") from None
    if not arrays:
        raise InputError(f"{where}: an archive without arrays")
    ids = next((arrays.pop(name) for name in _IDS if name in arrays), None)
    tokens = None if ids is None or ids.ndim != 1 else ids.astype(np.int64)
    prompt, rest = arrays.get("prompt_routed_experts"), arrays.get("routed_experts")
    if prompt is not None and rest is not None and len(arrays) == 2:
        if prompt.ndim != 3 or rest.ndim != 3 or prompt.shape[1:] != rest.shape[1:]:
            raise InputError(
                f"{where}: routed_experts of shape {rest.shape} do not follow "
                f"prompt_routed_experts of shape {prompt.shape}"
            )
        return [Record(where, np.concatenate([prompt, rest]), tokens=tokens)]
    if len(arrays) == 1:
        ((name, only),) = arrays.items()
        if only.ndim <= 3:
            return [Record(f"{where}: {name}", only, axes_known=False, tokens=tokens)]
    return [
        record for name, array in arrays.items() for record in _requests(f"{where}: {name}", array)
    ]


def _requests(where: str, array: NDArray[np.integer]) -> list[Record]:
    if array.ndim == 4:
        return [
            Record(f"{where}[{number}]", each, axes_known=False)
            for number, each in enumerate(array)
        ]
    return [Record(where, array, axes_known=False)]


def _array(where: str, data: bytes) -> NDArray[np.integer]:
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError):
        raise InputError(
            f"{where}: a damaged .npy array, or one of Python objects, which is not read"
        ) from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        raise InputError(f"{where}: experts are {found.dtype}, whole numbers are expected")
    return found
