"""Collectives of published simulators; see ``pimsim.hardware.fabric.collectives``."""
