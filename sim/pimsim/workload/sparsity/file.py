"""Sparsity traces: which features of each block's FFN are active for each token, in Parquet.

Columns ``layer``, ``index`` (the token's place), ``token`` (id, -1 unknown), ``mask`` (one bit a
feature, the first in the highest bit of the first byte). The metadata holds, under ``pimsim``, a
JSON object with format, version, model, layers, ffn, source and measured (threshold and ratio of
each layer, perplexities).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.files import write_whole
from pimsim.config.reading import parse_json
from pimsim.workload.parquet import integers, read_parquet

__all__ = ["FORMAT", "VERSION", "SparsityTrace", "read_sparsity", "write_sparsity"]

FORMAT = "pimsim-sparsity"
VERSION = 1
_COLUMNS = ("layer", "index", "token", "mask")


@dataclass(frozen=True)
class SparsityTrace:
    """Masks of a real run."""

    model: str
    source: str
    ffn: int
    """Features of a block's FFN."""
    token: NDArray[np.int64]
    """Ids, shape (tokens,)."""
    active: NDArray[np.bool_]
    """Shape (layers, tokens, ffn)."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """How the thresholds were found, and what they cost."""

    @property
    def layers(self) -> int:
        """Blocks."""
        return int(self.active.shape[0])

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Share of active features by layer."""
        found: NDArray[np.float64] = self.active.mean(axis=(1, 2))
        return found


def write_sparsity(trace: SparsityTrace, path: Path) -> None:
    """Write the trace; the same trace gives the same bytes.

    Parameters
    ----------
    trace
        That is written.
    path
        Of the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    layers, tokens, _ = trace.active.shape
    packed = np.packbits(trace.active, axis=2)
    meta = {
        "format": FORMAT, "version": VERSION, "model": trace.model, "layers": layers,
        "ffn": trace.ffn, "source": trace.source, "measured": dict(trace.measured),
    }  # fmt: skip
    width = packed.shape[2]
    table = pa.table(
        {
            "layer": np.repeat(np.arange(layers), tokens).astype(np.int16),
            "index": np.tile(np.arange(tokens), layers).astype(np.int32),
            "token": np.tile(trace.token, layers).astype(np.int32),
            "mask": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(width), layers * tokens, [None, pa.py_buffer(packed.tobytes())]
            ),
        }
    ).replace_schema_metadata({"pimsim": json.dumps(meta)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(path, sink.getvalue().to_pybytes())


def read_sparsity(path: Path) -> SparsityTrace:
    """Read and check a trace.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    InputError
        One line, for anything that is not right.
    """
    import pyarrow as pa

    table = read_parquet(path, _COLUMNS, "a sparsity trace, a Parquet file,")
    meta = _metadata(path, table.schema.metadata or {})
    layers, ffn = meta["layers"], meta["ffn"]
    width = -(-ffn // 8)
    masks = table.column("mask").combine_chunks()
    if not pa.types.is_fixed_size_binary(masks.type) or masks.type.byte_width != width:
        raise InputError(f"{path}: a mask of {ffn} features has {width} bytes, found {masks.type}")
    if masks.null_count:
        raise InputError(f"{path}: column 'mask' has {masks.null_count} rows without a mask")
    layer, index, token = (integers(path, table, name) for name in ("layer", "index", "token"))
    if not len(layer) or len(layer) % layers:
        raise InputError(f"{path}: {len(layer)} rows for {layers} layers")
    tokens = len(layer) // layers
    order = np.lexsort((index, layer))
    expected = np.repeat(np.arange(layers), tokens), np.tile(np.arange(tokens), layers)
    if (layer[order] != expected[0]).any() or (index[order] != expected[1]).any():
        raise InputError(f"{path}: each of {layers} layers must have the tokens 0 to {tokens - 1}")
    raw = np.frombuffer(masks.buffers()[1], dtype=np.uint8)[: len(layer) * width]
    bits = np.unpackbits(raw.reshape(-1, width)[order], axis=1)[:, :ffn]
    return SparsityTrace(
        str(meta["model"]), str(meta["source"]), ffn, token[order][:tokens],
        bits.astype(np.bool_).reshape(layers, tokens, ffn), meta.get("measured", {}),
    )  # fmt: skip


def _metadata(path: Path, found: dict[bytes, bytes]) -> dict[str, Any]:
    try:
        meta = parse_json(found[b"pimsim"], f"{path}: metadata 'pimsim'")
        if meta["format"] != FORMAT:
            raise KeyError
        version, layers, ffn = meta["version"], meta["layers"], meta["ffn"]
        str(meta["model"]), str(meta["source"])
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{path}: no sparsity trace (its metadata must say {FORMAT!r})") from None
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{path}: a sparsity trace of version {version}; this pimsim reads up to {VERSION}"
        )
    for name, size in (("layers", layers), ("ffn", ffn)):
        if not isinstance(size, int) or not 1 <= size <= 10_000_000:
            raise InputError(f"{path}: {name} is {size!r}; 1 to 10000000 are allowed")
    return dict(meta)
