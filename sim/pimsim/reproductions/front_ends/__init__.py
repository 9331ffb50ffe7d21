"""Front ends of published simulators; see ``pimsim.mapping.front_end``."""
