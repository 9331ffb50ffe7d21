"""Operands of published simulators; see ``pimsim.mapping.operands``."""
