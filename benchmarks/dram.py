"""Replay of DRAM traces: one HBM2 channel, a million reads."""

from __future__ import annotations

from benchmarks.measurement import Measurement, best_cpu_s

__all__ = ["measure"]

REQUESTS = 1_000_000
SEQUENTIAL_PER_S, RANDOM_PER_S = 5e6, 2e6
TIMES = 3


def measure() -> list[Measurement]:
    """Requests a CPU second, sequential and uniformly random over the channel."""
    import numpy as np

    from pimsim.config.loader import load_memory
    from pimsim.hardware.dram.replay import replay

    memory = load_memory("hbm2", ["organization.channels=1"]).config
    burst = memory.organization.burst_bytes
    bursts = memory.organization.capacity_bytes // burst
    reads = np.zeros(REQUESTS, dtype=np.int64)
    found = []
    for name, addresses, limit in (
        ("sequential", np.arange(REQUESTS) * burst, SEQUENTIAL_PER_S),
        ("random", np.random.default_rng(1).integers(0, bursts, REQUESTS) * burst, RANDOM_PER_S),
    ):
        cycles = 0

        def run(addresses=addresses) -> None:  # type: ignore[no-untyped-def]
            nonlocal cycles
            cycles = replay(memory, addresses, reads).cycles

        rate = REQUESTS / best_cpu_s(run, TIMES)
        found.append(
            Measurement(
                f"dram replay, {name}",
                rate / 1e6,
                "M requests/s",
                limit / 1e6,
                note=f"{cycles} cycles",
            )
        )
    return found
