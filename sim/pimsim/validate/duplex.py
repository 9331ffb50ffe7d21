"""Duplex's PIM designs against the figures that its paper states (``duplex.csv``).

Ours follow from the presets: banks that a command reads, tCCD, multipliers and their clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs.logic_die import column_bytes
from pimsim.validate.types import References, Row

__all__ = ["TABLE", "bandwidth_gbps", "peak", "rows"]

TABLE = "duplex.csv"
_FLOP_PER_MAC = 2


def _modules(design: PimDesignConfig) -> int:
    return design.organization.channels * design.organization.pseudo_channels


def bandwidth_gbps(design: PimDesignConfig) -> float:
    """GB/s into the GEMM modules: a bundle's columns every tCCD_L.

    Parameters
    ----------
    design
        Of bundles.
    """
    interval_ns = design.all_timings["tCCD_L"] * design.tCK / 1000
    return _modules(design) * column_bytes(design) / interval_ns


def peak(design: PimDesignConfig) -> dict[str, float]:
    """The figures by metric.

    Parameters
    ----------
    design
        Of bundles.
    """
    limits = design.capacities
    macs_per_ns = _modules(design) * limits["macs_per_pseudo_channel"] * 1000
    gflops = _FLOP_PER_MAC * macs_per_ns / limits["mac_clock_ps"]
    return {
        "bandwidth_gbps": bandwidth_gbps(design),
        "tflops": gflops / 1000,
        "op_per_byte": gflops / bandwidth_gbps(design),
    }


def rows(references: References) -> Iterator[Row]:
    """Group ``duplex.peak``.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.

    References
    ----------
    Duplex, MICRO 2024.
    """
    for line in references.table(TABLE):
        found = line.known("metric", peak(load_stream_pim(line["pim"]).config))
        yield Row("duplex.peak", line["pim"], line["metric"], float(line["reference"]), found)
