"""The memory at ``fast`` fidelity: rates that the command engine shows, not its commands."""

from __future__ import annotations

from pimsim.hardware.dram.fast.calibration import calibrate, calibration_file, probe_of
from pimsim.hardware.dram.fast.describe import describe
from pimsim.hardware.dram.fast.phased import PhasedMemory
from pimsim.hardware.dram.fast.phases import MemoryPhase
from pimsim.hardware.dram.fast.pieces import SAMPLED_CHANNELS
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.system import FastMemorySystem, unfit

__all__ = [
    "SAMPLED_CHANNELS", "FastMemorySystem", "MemoryPhase", "PhasedMemory", "Probe", "calibrate",
    "calibration_file", "describe", "probe_of", "unfit",
]  # fmt: skip
