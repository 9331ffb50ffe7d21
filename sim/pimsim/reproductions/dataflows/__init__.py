"""Arrays of published simulators; see ``pimsim.hardware.npu.dataflows``."""
