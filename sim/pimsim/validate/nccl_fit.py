"""NCCL's protocols on a device from measured rows of two GPUs: the constants of ``configs/nccl``.

Which rows a protocol has is not fitted: NCCL's own choice says it. Then base, hop and bandwidth are
what makes the sum of the squares of relative errors the least, none of them below 0. Two GPUs are
never given LL128, whose base and hop are LL's by the ratio that NCCL's own model has, and whose
bandwidth is that of Simple by the share of data in it, 120 bytes of 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.nccl import NcclConfig, ProtocolConfig
from pimsim.hardware.fabric.nccl import (
    LL128_OF_LL,
    Protocol,
    protocol_chosen,
    ring_steps,
    worked_bytes,
)
from pimsim.hardware.fabric.schedule import Operation

__all__ = ["CALIBRATED_ON", "Measured", "fit_protocols"]

CALIBRATED_ON = 2
"""GPUs of the rows that constants are from."""
_DATA_OF_LL128 = 120 / 128
_DIGITS = 4
"""That constants have in a YAML."""


@dataclass(frozen=True)
class Measured:
    """One measured collective."""

    operation: Operation
    payload_bytes: int
    devices: int
    time_us: float


def fit_protocols(rows: Sequence[Measured], config: NcclConfig) -> dict[Protocol, ProtocolConfig]:
    """Constants of each protocol from the rows of two GPUs; others are left out.

    Parameters
    ----------
    rows
        Measured; those of other numbers of GPUs are left out.
    config
        Whose tuner says which protocol a row has.

    Returns
    -------
    dict
        By protocol: microseconds and GB/s.

    Raises
    ------
    InputError
        Where a protocol has fewer rows than constants.
    """
    fitted: dict[Protocol, ProtocolConfig] = {}
    for protocol in (Protocol.LL, Protocol.SIMPLE):
        own = [
            row for row in rows
            if row.devices == CALIBRATED_ON and _chosen(row, config) is protocol
        ]  # fmt: skip
        if len(own) < 3:
            raise InputError(
                f"{config.name}: {len(own)} rows of {CALIBRATED_ON} GPUs under {protocol}; its "
                "three constants need as many"
            )
        fitted[protocol] = _fit(own)
    ll, simple = fitted[Protocol.LL], fitted[Protocol.SIMPLE]
    base, hop = LL128_OF_LL
    fitted[Protocol.LL128] = _constants(
        base * ll.base_us, hop * ll.hop_us, _DATA_OF_LL128 * simple.gb_per_s
    )
    return fitted


def _chosen(row: Measured, config: NcclConfig) -> Protocol:
    return protocol_chosen(row.operation, row.payload_bytes, row.devices, config)


def _fit(rows: Sequence[Measured]) -> ProtocolConfig:
    """Least squares of relative errors, by which of the three are above 0."""
    features = np.array(
        [
            (
                1.0, ring_steps(row.operation, row.devices),
                float(worked_bytes(row.operation, row.payload_bytes, row.devices)) / 1000,
            )
            for row in rows
        ]
    ) / np.array([[row.time_us] for row in rows])  # fmt: skip
    best, least = np.zeros(3), float("inf")
    for count in (1, 2, 3):
        for kept in combinations(range(3), count):
            if 2 not in kept:  # bytes always take time
                continue
            found = np.linalg.lstsq(features[:, kept], np.ones(len(rows)), rcond=None)[0]
            error = float(((features[:, kept] @ found - 1) ** 2).sum())
            if found.min() >= 0 and found[-1] > 0 and error < least:
                best, least = np.zeros(3), error
                best[list(kept)] = found
    return _constants(float(best[0]), float(best[1]), 1 / float(best[2]))


def _constants(base_us: float, hop_us: float, gb_per_s: float) -> ProtocolConfig:
    base_us, hop_us, gb_per_s = (
        float(f"{value:.{_DIGITS}g}") for value in (base_us, hop_us, gb_per_s)
    )
    return ProtocolConfig(base_us=base_us, hop_us=hop_us, gb_per_s=gb_per_s)
