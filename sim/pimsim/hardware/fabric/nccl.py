"""NCCL's collectives in a ring inside one node: three protocols, and NCCL's own choice of one.

Which protocol runs is what NCCL's model of itself thinks to be the fastest, not what is: constants
of ``src/graph/tuning.cc`` (NVIDIA/nccl v2.27.3 and v2.29.2, which agree here). What it then takes
is a base, a latency for each step of the ring, and the bytes that a device's kernel works off,
piece by piece: the kernels (``src/device/all_reduce.h``, ``all_gather.h``, ``reduce_scatter.h``)
do one primitive of 1/N of the payload a step, and one more that receives only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from pimsim.config.errors import InputError
from pimsim.config.nccl import NcclConfig
from pimsim.hardware.fabric.schedule import Operation

__all__ = [
    "LL128_OF_LL", "NcclTime", "Protocol", "nccl_time", "protocol_chosen", "ring_steps",
    "worked_bytes",
]  # fmt: skip


class Protocol(StrEnum):
    """How data and what says that it is there cross a link."""

    LL = "ll"
    LL128 = "ll128"
    SIMPLE = "simple"


_TUNER_US = {Protocol.LL: (6.6, 0.6), Protocol.LL128: (14.0, 1.9), Protocol.SIMPLE: (8.4, 3.4)}
"""NCCL's model of a ring over NVLink: microseconds at once and a step (``baseLatencies``,
``hwLatencies``)."""
LL128_OF_LL = (
    _TUNER_US[Protocol.LL128][0] / _TUNER_US[Protocol.LL][0],
    _TUNER_US[Protocol.LL128][1] / _TUNER_US[Protocol.LL][1],
)
"""Its base and its hop of LL128, in those of LL."""
_LL_SHARE = 0.5
_LL128_SHARE = 0.92
"""Of the ring's bandwidth in that model: LL sends as many flags as data, LL128 120 bytes in 128."""
_OPERATIONS = (Operation.ALL_REDUCE, Operation.ALL_GATHER, Operation.REDUCE_SCATTER)


@dataclass(frozen=True)
class NcclTime:
    """What a collective takes."""

    protocol: Protocol
    time_ps: int
    link_bytes: int
    """Payload that leaves one device."""


def ring_steps(operation: Operation, devices: int) -> int:
    """Steps of the ring.

    Parameters
    ----------
    operation
        All-reduce, all-gather or reduce-scatter.
    devices
        In the ring.
    """
    return (2 if operation is Operation.ALL_REDUCE else 1) * (devices - 1)


def worked_bytes(operation: Operation, payload_bytes: int, devices: int) -> Fraction:
    """Bytes that a device's kernel works off: a piece a step, and one more.

    Parameters
    ----------
    operation
        All-reduce, all-gather or reduce-scatter.
    payload_bytes
        Of the whole.
    devices
        In the ring.
    """
    return Fraction((ring_steps(operation, devices) + 1) * payload_bytes, devices)


def protocol_chosen(
    operation: Operation, payload_bytes: int, devices: int, config: NcclConfig
) -> Protocol:
    """The protocol that NCCL's own model expects to be the fastest; of equals the first.

    Parameters
    ----------
    operation
        All-reduce, all-gather or reduce-scatter.
    payload_bytes
        Of the whole.
    devices
        In the ring.
    config
        Its ``tuner``: rates in GB/s.

    References
    ----------
    NVIDIA/nccl v2.27.3, src/graph/tuning.cc.
    """
    tuner = config.tuner
    most = {
        Protocol.LL: min(tuner.ll_gb_per_s, _LL_SHARE * tuner.ring_gb_per_s),
        Protocol.LL128: min(tuner.ll128_gb_per_s, _LL128_SHARE * tuner.ring_gb_per_s),
        Protocol.SIMPLE: tuner.ring_gb_per_s,
    }
    steps = ring_steps(operation, devices)

    def expected_us(protocol: Protocol) -> float:
        base, hop = _TUNER_US[protocol]
        return base + steps * hop + payload_bytes * steps / devices / (1e3 * most[protocol])

    return min(Protocol, key=expected_us)


def nccl_time(
    operation: Operation, payload_bytes: int, devices: int, config: NcclConfig
) -> NcclTime:
    """What an operation takes on ``devices`` of one node.

    Parameters
    ----------
    operation
        An all-reduce, all-gather or reduce-scatter.
    payload_bytes
        Of an all-reduce and a reduce-scatter what each device starts with, of an all-gather what
        each has in the end, as NCCL counts them.
    devices
        Of one node; 1 takes no time.
    config
        The device's constants.

    Raises
    ------
    InputError
        For another operation, and for no devices or bytes.
    """
    if operation not in _OPERATIONS:
        raise InputError(
            f"NCCL's rings do {', '.join(_OPERATIONS)}; {operation} is a set of transfers there"
        )
    if devices < 1 or payload_bytes < 0:
        raise InputError(f"{operation} of {payload_bytes} bytes over {devices} devices")
    protocol = protocol_chosen(operation, payload_bytes, devices, config)
    if devices == 1 or payload_bytes == 0:
        return NcclTime(protocol, 0, 0)
    own, steps = getattr(config, protocol), ring_steps(operation, devices)
    work_us = worked_bytes(operation, payload_bytes, devices) / Fraction(own.gb_per_s) / 1000
    time_us = Fraction(own.base_us) + steps * Fraction(own.hop_us) + work_us
    moved = Fraction(steps * payload_bytes, devices)
    return NcclTime(protocol, -(-time_us * 10**6 // 1), -(-moved // 1))
