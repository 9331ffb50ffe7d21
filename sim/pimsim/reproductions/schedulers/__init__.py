"""Schedulers of published simulators; see ``pimsim.serving.schedulers``."""
