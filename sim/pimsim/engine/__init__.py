"""Simulation: devices, schedules, iterations."""
