"""Schedules and policies of the engine."""
