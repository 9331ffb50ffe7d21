"""What published simulators of servers count otherwise; see ``pimsim.engine.xpu_rules``."""
