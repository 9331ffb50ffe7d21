"""How full the rows of the KV cache are, for a reader."""

from __future__ import annotations

from pimsim.engine.device import Device
from pimsim.mapping.kv_cache import KEYS, VALUES
from pimsim.result.rows import KvCacheUse

__all__ = ["kv_cache_use"]


def kv_cache_use(device: Device) -> KvCacheUse | None:
    """Of the simulated blocks, with all tokens that the run ends with; None where it keeps none.

    Parameters
    ----------
    device
        Of the run's first step.
    """
    cache = device.mapper.addresses.cache
    whole = cache.use()
    if not whole.rows:
        return None
    in_rows = cache.unit == "row"
    return KvCacheUse(
        rows=whole.rows if in_rows else 0,
        keys_filled=cache.use(KEYS).share if in_rows else 1.0,
        values_filled=cache.use(VALUES).share if in_rows else 1.0,
        bursts=0 if in_rows else whole.rows,
        filled=whole.share,
    )
