"""Routing traces: which experts each token of a real run went to, in Parquet.

Columns ``sequence``, ``position``, ``token`` (id, -1 unknown), ``layer``, ``experts`` (a list of
experts_per_token), and optionally ``weights``; the file's metadata holds, under ``pimsim``, a JSON
object with format, version, model, layers, experts, experts_per_token and source. ``layer`` counts
the model's blocks from 0; blocks without experts have no rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.files import write_whole
from pimsim.config.reading import parse_json
from pimsim.workload.parquet import integers, read_parquet

__all__ = [
    "FORMAT", "VERSION", "RoutingTrace", "is_routing_file", "read_routing", "write_routing",
]  # fmt: skip

FORMAT = "pimsim-routing"
VERSION = 1
Ints = NDArray[np.int64]
_COLUMNS = ("sequence", "position", "token", "layer", "experts")
_MOST_EXPERTS = 65_536


@dataclass(frozen=True)
class RoutingTrace:
    """A real run's routing. Tokens are in order of sequence and position."""

    model: str
    source: str
    layers: int
    """Blocks of the model, those without experts included."""
    experts: int
    experts_per_token: int
    sequence: Ints
    """Shape (tokens,)."""
    position: Ints
    token: Ints
    """Ids, -1 where they are not known."""
    moe_layers: tuple[int, ...]
    """Blocks with experts."""
    chosen: Ints
    """Shape (moe layers, tokens, experts_per_token)."""

    @property
    def tokens(self) -> int:
        """Tokens of the run."""
        return len(self.token)

    def of_layer(self, layer: int) -> Ints:
        """Experts of each token in a block, shape (tokens, experts_per_token)."""
        found: Ints = self.chosen[self.moe_layers.index(layer)]
        return found


def write_routing(trace: RoutingTrace, path: Path) -> None:
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

    layers, tokens, width = trace.chosen.shape
    meta = {
        "format": FORMAT, "version": VERSION, "model": trace.model, "layers": trace.layers,
        "experts": trace.experts, "experts_per_token": trace.experts_per_token,
        "source": trace.source,
    }  # fmt: skip
    flat = pa.array(trace.chosen.reshape(-1).astype(np.int32), pa.int32())
    table = pa.table(
        {
            "sequence": np.tile(trace.sequence, layers).astype(np.int32),
            "position": np.tile(trace.position, layers).astype(np.int32),
            "token": np.tile(trace.token, layers).astype(np.int32),
            "layer": np.repeat(np.array(trace.moe_layers), tokens).astype(np.int16),
            "experts": pa.FixedSizeListArray.from_arrays(flat, width),
        }
    ).replace_schema_metadata({"pimsim": json.dumps(meta)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(path, sink.getvalue().to_pybytes())


def is_routing_file(path: Path) -> bool:
    """Whether ``read_routing`` is the one to read (or to refuse) the file: it is Parquet, or is
    called so, or cannot be opened.

    Parameters
    ----------
    path
        Of the file.
    """
    if path.suffix == ".parquet" or not path.is_file():
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PAR1"
    except OSError:
        return True


def read_routing(path: Path) -> RoutingTrace:
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
    table = read_parquet(path, _COLUMNS, "a routing trace, a Parquet file,")
    meta = _metadata(path, table.schema.metadata or {})
    columns = {name: integers(path, table, name) for name in _COLUMNS[:-1]}
    experts = _experts(path, table, meta)
    return _arranged(path, meta, columns, experts)


def _metadata(path: Path, found: dict[bytes, bytes]) -> dict[str, Any]:
    try:
        meta = parse_json(found[b"pimsim"], f"{path}: metadata 'pimsim'")
        if meta["format"] != FORMAT:
            raise KeyError
        version = meta["version"]
        if isinstance(version, int) and version > VERSION:
            raise InputError(
                f"{path}: a routing trace of version {version}; this pimsim reads up to {VERSION}"
            )
        sizes = [meta[name] for name in ("layers", "experts", "experts_per_token")]
        if not all(isinstance(size, int) and 1 <= size <= _MOST_EXPERTS for size in sizes):
            raise InputError(f"{path}: layers, experts and experts_per_token must be 1 to 65536")
        str(meta["model"]), str(meta["source"])
    except InputError:
        raise
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{path}: no routing trace (its metadata must say {FORMAT!r})") from None
    return dict(meta)


def _experts(path: Path, table: Any, meta: dict[str, Any]) -> Ints:
    import pyarrow as pa

    width = meta["experts_per_token"]
    column = table.column("experts").combine_chunks()
    lists = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
    if not lists or not pa.types.is_integer(column.type.value_type) or column.null_count:
        raise InputError(f"{path}: column 'experts' must hold lists of whole numbers")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    if len(flat) != len(column) * width:
        raise InputError(f"{path}: lists of 'experts' must have {width} entries each")
    if flat.size and not -1 <= int(flat.min()) <= int(flat.max()) < meta["experts"]:
        wrong = int(flat.max()) if int(flat.max()) >= meta["experts"] else int(flat.min())
        row = int(np.flatnonzero(flat == wrong)[0]) // width
        raise InputError(
            f"{path}: row {row}: expert {wrong}; the model has 0 to {meta['experts'] - 1}"
        )
    lists_of: Ints = flat.reshape(-1, width)
    return lists_of


def _arranged(
    path: Path, meta: dict[str, Any], columns: dict[str, Ints], experts: Ints
) -> RoutingTrace:
    layer = columns["layer"]
    if not len(layer):
        raise InputError(f"{path}: it has no rows")
    if not 0 <= int(layer.min()) <= int(layer.max()) < meta["layers"]:
        raise InputError(
            f"{path}: layer {int(layer.max())}; the model has 0 to {meta['layers'] - 1}"
        )
    order = np.lexsort((columns["position"], columns["sequence"], layer))
    found, counts = np.unique(layer, return_counts=True)
    if len(set(counts.tolist())) != 1:
        short = int(found[int(np.argmin(counts))])
        raise InputError(f"{path}: layer {short} has fewer rows than another")
    tokens = int(counts[0])
    places = {
        name: columns[name][order].reshape(len(found), tokens)
        for name in ("sequence", "position", "token")
    }
    for name, values in places.items():
        if (values != values[0]).any():
            raise InputError(f"{path}: layers do not have the same tokens ({name} differs)")
    pairs = places["sequence"][0] * (2**32) + places["position"][0]
    if len(np.unique(pairs)) != tokens:
        raise InputError(f"{path}: a position of a sequence is there twice in one layer")
    return RoutingTrace(
        model=str(meta["model"]), source=str(meta["source"]), layers=meta["layers"],
        experts=meta["experts"], experts_per_token=meta["experts_per_token"],
        sequence=places["sequence"][0], position=places["position"][0], token=places["token"][0],
        moe_layers=tuple(found.tolist()),
        chosen=experts[order].reshape(len(found), tokens, meta["experts_per_token"]),
    )  # fmt: skip
