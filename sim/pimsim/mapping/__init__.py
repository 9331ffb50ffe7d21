"""Operators to tasks: offload, tiling, KV layout, channel balance."""
