"""Tilings of published simulators; see ``pimsim.mapping.product_tiles``."""
