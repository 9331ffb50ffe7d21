"""Files of SGLang's expert distribution recorder (``expert_distribution_recorder_*.pt``).

Read for this: ``python/sglang/srt/eplb/expert_distribution.py`` at 02295fe. In mode ``per_token`` a
file holds ``records``, one a forward pass and rank, with ``topk_ids_of_layer`` [blocks, tokens, 8]
(-1 beyond a model's choices, and in blocks without experts), ``input_ids``, ``positions``,
``extend_seq_lens`` of a prefill, and ``last_physical_to_logical_map`` [blocks, physical experts].
In mode ``stat`` it holds ``logical_count`` [passes, blocks, experts]: which token went where is
gone, so that tokens are dealt out anew with these counts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.draws import RandomStream
from pimsim.workload.routing.servers.recorded import Record
from pimsim.workload.routing.shape import MoeShape

__all__ = ["read_recorder"]

Ints = NDArray[np.int64]


def read_recorder(where: str, data: bytes, shape: MoeShape) -> tuple[list[Record], list[str]]:
    """The records of a file, and what is not known of them.

    Needs the extra ``torch``; nothing but tensors and plain values is unpickled.

    Parameters
    ----------
    where
        What messages call it.
    data
        Of the file.
    shape
        Of the model's experts, to deal counts out.

    Raises
    ------
    InputError
        For another file, or one without records.

    References
    ----------
    sgl-project/sglang 02295fe, python/sglang/srt/eplb/expert_distribution.py.
    """
    found = _load(where, data)
    if "records" in found:
        return _per_token(where, found), [
            "the recorder does not tell requests apart in decode: each of its tokens stands as a "
            "sequence of its own"
        ]
    if "logical_count" in found:
        return _of_counts(where, found["logical_count"], shape), [
            "only counts were recorded: experts have the tokens that they had, which token went "
            "to which is dealt out anew; ids and positions are not known",
        ]
    raise InputError(
        f"{where}: neither records (mode per_token) nor logical_count (mode stat) of SGLang's "
        "expert distribution recorder"
    )


def _load(where: str, data: bytes) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{where}: a file of PyTorch; to read it, pip install torch==2.13.0, then "
            "pip install 'pimsim[torch]'"
        ) from None
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for files that are cut off or hold code
        raise InputError(
            f"{where}: a damaged file of PyTorch, or one with more than tensors and plain values"
        ) from None
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: no dictionary, as SGLang's recorder writes")
    return found


def _per_token(where: str, found: Mapping[str, Any]) -> list[Record]:
    passes = found["records"]
    if not isinstance(passes, list) or not passes:
        raise InputError(f"{where}: records is empty; nothing ran between start and dump")
    table = found.get("last_physical_to_logical_map")
    logical = None if table is None else _whole(f"{where}: last_physical_to_logical_map", table)
    return [record for at, one in enumerate(passes) for record in _of_pass(where, at, one, logical)]


def _of_pass(where: str, at: int, one: Any, logical: Ints | None) -> Iterator[Record]:
    place = f"{where}: records[{at}]"
    if not isinstance(one, Mapping) or "topk_ids_of_layer" not in one:
        raise InputError(
            f"{place}: no topk_ids_of_layer; record with "
            "--expert-distribution-recorder-mode per_token"
        )
    chosen = _whole(f"{place}.topk_ids_of_layer", one["topk_ids_of_layer"])
    if chosen.ndim != 3:
        raise InputError(f"{place}.topk_ids_of_layer: {chosen.ndim} axes; 3 are expected")
    tokens = chosen.shape[1]
    ids = _row(f"{place}.input_ids", one.get("input_ids"), tokens)
    positions = _row(f"{place}.positions", one.get("positions"), tokens)
    for start, stop in _segments(f"{place}.extend_seq_lens", one.get("extend_seq_lens"), tokens):
        yield Record(
            place, chosen[:, start:stop].transpose(1, 0, 2),
            positions=None if positions is None else positions[start:stop],
            tokens=None if ids is None else ids[start:stop], physical=logical,
        )  # fmt: skip


def _segments(where: str, lengths: Any, tokens: int) -> list[tuple[int, int]]:
    """A prefill's requests follow each other; of a decode step each token is another's."""
    if lengths is None:
        return [(at, at + 1) for at in range(tokens)]
    sizes = _whole(where, lengths)
    if sizes.ndim != 1 or (sizes < 0).any() or int(sizes.sum()) != tokens:
        raise InputError(f"{where}: lengths add up to {int(sizes.sum())}, there are {tokens}")
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for end, size in zip(ends, sizes.tolist(), strict=True) if size]


def _row(where: str, value: Any, tokens: int) -> Ints | None:
    if value is None:
        return None
    found = _whole(where, value)
    if found.shape != (tokens,):
        raise InputError(f"{where}: {found.size} entries, there are {tokens} tokens")
    return found


def _whole(where: str, value: Any) -> Ints:
    """A tensor or a list of whole numbers."""
    try:
        found = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    except (ValueError, OverflowError):
        found = np.zeros(0, dtype=object)
    if found.dtype.kind not in "iu":
        raise InputError(f"{where}: whole numbers are expected")
    return found.astype(np.int64)


def _of_counts(where: str, counts: Any, shape: MoeShape) -> list[Record]:
    found = _whole(f"{where}: logical_count", counts)
    if found.ndim != 3 or found.shape[2] != shape.experts or (found < 0).any():
        raise InputError(
            f"{where}: logical_count of shape {found.shape}; passes, blocks and "
            f"{shape.experts} experts of model {shape.model} are expected"
        )
    if found.shape[1] == shape.layers:
        found = found[:, list(shape.moe_layers)]
    if found.shape[1] != len(shape.moe_layers):
        raise InputError(
            f"{where}: logical_count of {found.shape[1]} blocks; model {shape.model} has "
            f"{len(shape.moe_layers)} with experts"
        )
    records = []
    for at, one in enumerate(found):
        if one.any():
            place = f"{where}: logical_count[{at}]"
            records.append(Record(place, _dealt(place, one, shape.experts_per_token, at)))
    if not records:
        raise InputError(f"{where}: logical_count is 0 everywhere; nothing was recorded")
    return records


def _dealt(where: str, counts: Ints, choices: int, seed: int) -> Ints:
    """Tokens with ``choices`` different experts each that give these counts, block by block.

    Experts stand in a row, each as often as it was chosen, and token ``t`` takes the entries ``t``,
    ``t + tokens``, ...: as no expert has more entries than there are tokens, none gets it twice
    (McNaughton's wrap-around rule, Management Science 6, 1959). The tokens of each block are then
    shuffled, as blocks' counts say nothing of each other.
    """
    totals = counts.sum(axis=1)
    tokens, rest = divmod(int(totals[0]), choices)
    if rest or (totals != totals[0]).any() or int(counts.max()) > tokens:
        raise InputError(
            f"{where}: counts of blocks add up to {int(totals.min())} to {int(totals.max())}, and "
            f"an expert has up to {int(counts.max())}; they are no tokens of {choices} choices each"
        )
    blocks = []
    for block, each in enumerate(counts):
        row = np.repeat(np.arange(len(each)), each).reshape(choices, tokens).T
        blocks.append(row[RandomStream(seed, block).permutation(tokens)])
    return np.stack(blocks, axis=1)
