"""What a run at ``fast`` fidelity went by, in words and numbers for people."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.calibration import calibration_file
from pimsim.hardware.dram.fast.flow import ONE, TICKS
from pimsim.hardware.dram.fast.operations import Operation
from pimsim.hardware.dram.fast.phased import PhasedMemory
from pimsim.hardware.dram.fast.pieces import MOST_ROUNDS
from pimsim.hardware.dram.fast.probe import STREAM_BURSTS, Probe, StreamRate
from pimsim.hardware.dram.layout import P_COMPS, P_OP
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command

__all__ = ["describe"]

MOST_KINDS = 12
"""Of pieces that are shown for an operation: those that take most of its time."""


def describe(memory: PhasedMemory) -> dict[str, Any]:
    """Rates of streams, refresh, and of each PIM operation that was run; times in cycles of the
    memory's clock.

    Parameters
    ----------
    memory
        After the run.

    Returns
    -------
    dict of str to Any
        ``reads``, ``writes``, ``refresh_stall_cycles``, ``chains``, ``pim`` and ``file``, None
        where the calibration is in none.
    """
    probe = memory.probe
    path = calibration_file(probe)
    return {
        "reads": _stream(probe, probe.reads),
        "writes": _stream(probe, probe.writes),
        "refresh_stall_cycles": probe.clock.stall / TICKS,
        "chains": [
            {"bursts": bursts, "cycles_per_burst": ticks / TICKS, "lag_cycles": lag / TICKS}
            for bursts, ticks, lag in zip(STREAM_BURSTS, probe.chains, probe.lags, strict=True)
        ],
        "pim": [
            _operation(f"{at + 1}", each)
            for at, each in enumerate(memory.fast.known_operations)
            if each.rates is not None
        ],
        "file": str(path) if path is not None and path.exists() else None,
    }


def _stream(probe: Probe, rate: StreamRate) -> dict[str, float]:
    org = probe.memory.organization
    cycles = rate.ticks / TICKS
    return {
        "cycles_per_burst": cycles,
        "gb_per_s": org.burst_bytes / (cycles * probe.cycle_ps) * 1000,
        "bus_share": int(probe.parameters[0]["tccd_s"]) / cycles / max(org.pseudo_channels, 1),
        "latency_cycles": rate.latency / TICKS,
    }


def _operation(name: str, operation: Operation) -> dict[str, Any]:
    rates, pieces = operation.rates, operation.pieces
    assert rates is not None and pieces is not None
    times = np.bincount(pieces.kind, pieces.rounds, minlength=len(pieces.example))
    whole = np.concatenate(
        [written_out(program, MOST_ROUNDS) for program in operation.programs if len(program)]
    )
    slowed = rates.ticks * ONE / operation.beside.pim_share
    # pieces that differ in what follows them alone are one to the reader
    same: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(4))
    for kind, example in enumerate(pieces.example.tolist()):
        first, size = int(pieces.first[example]), int(pieces.size[example])
        count = times[kind]
        share = operation.beside.stream_share[kind] / ONE
        same[_words(whole[first : first + size])] += count * np.array(
            [1, rates.ticks[kind] / TICKS, slowed[kind] / TICKS, share]
        )
    kinds = [
        {
            "piece": words, "times": int(count), "cycles": cycles / count,
            "cycles_beside": beside / count, "stream_share": share / count,
        }
        for words, (count, cycles, beside, share) in sorted(
            same.items(), key=lambda item: (-item[1][1], item[0])
        )[:MOST_KINDS]
    ]  # fmt: skip
    return {
        "name": name, "kinds": kinds, "refresh_stall_cycles": rates.stall.ticks / TICKS,
        "stall_share": operation.beside.stall_share / ONE,
    }  # fmt: skip


def _words(piece: Any) -> str:
    """``"tile of 4 x 32 dot products"``."""
    op = piece[:, P_OP]
    if op[0] == int(Command.GWRITE):
        return "GWRITE"
    steps = piece[(op == int(Command.COMP)) | (op == int(Command.GEMV)), P_COMPS].tolist()
    if len(set(steps)) == 1:
        return f"tile of {len(steps)} x {steps[0]} dot products"
    return f"tile of {len(steps)} runs, {sum(steps)} dot products"
