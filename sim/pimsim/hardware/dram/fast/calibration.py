"""What a memory's commands have shown of its streams, kept by the content of its config.

Files are JSON in ``$PIMSIM_CACHE_DIR``, else ``pimsim`` in the user's cache folder. A file that is
not what was written is measured anew; where none can be written, every process measures.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from threading import Lock

import numpy as np

from pimsim.config.content import HARDWARE, digest, sources_sha256
from pimsim.config.kept import keep, kept_file, read_kept
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.fast.clock import RefreshClock
from pimsim.hardware.dram.fast.probe import STREAM_BURSTS, Probe, StreamRate
from pimsim.hardware.dram.fast.rank_stops import RankStops

__all__ = ["calibrate", "calibration_file", "probe_of"]

MOST_BYTES = 16 << 20
"""Of all probes of a process."""


def calibration_file(probe: Probe) -> Path | None:
    """Where the calibration of these configs is kept; None: nowhere.

    Parameters
    ----------
    probe
        Its memory, its PIM design and the sources of ``hardware`` make the name.

    Returns
    -------
    Path or None
        Whether it exists or not.
    """
    content = digest(sources_sha256(HARDWARE), *_configs(probe.memory, probe.pim))
    return kept_file(f"calibration-{content[:24]}.json")


def _configs(memory: MemoryConfig, pim: PimConfig | None) -> tuple[str, str]:
    """All that a probe depends on, but for sources."""
    return memory.model_dump_json(), "" if pim is None else pim.model_dump_json()


def calibrate(probe: Probe) -> bool:
    """Have streams, refresh and lags of ``probe`` measured, or read what was.

    Parameters
    ----------
    probe
        Changed: it knows them then.

    Returns
    -------
    bool
        Whether a file had them.
    """
    path = calibration_file(probe)
    if _read(probe, path):
        return True
    content = json.dumps({
        "reads": _plain(probe.reads), "writes": _plain(probe.writes), "lags": probe.lags,
        "chains": probe.chains, "clock": asdict(probe.clock),
        "rank_stops": asdict(probe.rank_stops),
    })  # fmt: skip
    keep(path, content)  # where it cannot be written, all is known in this process
    return False


def _plain(rate: StreamRate) -> dict[str, object]:
    return {**asdict(rate), "counts": rate.counts.tolist()}


def _read(probe: Probe, path: Path | None) -> bool:
    """Take over what a file says; False where it is not one that was written."""
    content = read_kept(path)
    if content is None:
        return False
    try:
        found = json.loads(content)
        rates = [
            StreamRate(**{**found[name], "counts": np.array(found[name]["counts"], np.int64)})
            for name in ("reads", "writes")
        ]
        clock = RefreshClock(**found["clock"])
        rank_stops = RankStops(**found["rank_stops"])
        lags, chains = (tuple(map(int, found[name])) for name in ("lags", "chains"))
        if not len(lags) == len(chains) == len(STREAM_BURSTS):
            return False
    except (ValueError, KeyError, TypeError):
        return False
    probe.recall(rates[0], rates[1], clock, lags, chains, rank_stops)
    return True


_probes: OrderedDict[tuple[str, str], Probe] = OrderedDict()
"""The latest, as many as stay below ``MOST_BYTES``: what one keeps grows with use."""
_lock = Lock()


def probe_of(memory: MemoryConfig, pim: PimConfig | None) -> Probe:
    """The calibrated probe of these configs; runs of one process share what it found out.

    Parameters
    ----------
    memory, pim
        The configs; None: no PIM design. Equal contents have one probe.

    Returns
    -------
    Probe
        Of ``MOST_BYTES`` at most with all others that are kept.
    """
    key = _configs(memory, pim)
    with _lock:
        if key in _probes:
            _probes.move_to_end(key)
            return _probes[key]
    probe = Probe(memory, pim)
    calibrate(probe)
    with _lock:
        _probes[key] = probe
        while len(_probes) > 1 and sum(one.nbytes for one in _probes.values()) > MOST_BYTES:
            _probes.popitem(last=False)
    return probe
