"""Timing models of the hardware's parts."""
