"""YAML to validated, frozen models: presets, overrides, units."""
