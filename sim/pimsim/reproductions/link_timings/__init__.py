"""Time on links in published simulators; see ``pimsim.hardware.fabric.links``."""
