"""Writes of published simulators; see ``pimsim.mapping.result_writes``."""
