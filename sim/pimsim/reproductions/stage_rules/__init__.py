"""Pipelines of heads of published simulators; see ``pimsim.hardware.pim.attacc_plan``."""
