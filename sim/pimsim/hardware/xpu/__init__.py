"""Throughput processors (GPUs) by their roofline: tiles, waves of blocks, caches, energy."""
