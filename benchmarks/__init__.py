"""Speed and memory against the limits that the project sets itself: ``python -m benchmarks``."""
