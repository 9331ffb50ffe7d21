"""Vector work of published simulators; see ``pimsim.hardware.npu.vector_timing``."""
