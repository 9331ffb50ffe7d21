"""Topologies, one module each; see ``pimsim.hardware.fabric.topology``."""
