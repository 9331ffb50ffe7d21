"""Attention on the arrays of published simulators; see ``pimsim.mapping.npu_attention``."""
