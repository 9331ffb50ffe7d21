"""Replay of every standard, and tables against a hand-written kernel.

The hand-written kernel is for one standard only (HBM2 in pseudo channel mode, one rank, no
refresh): its delays are constants in the code, where ours reads tables. It takes the same trace to
the same cycle, or the comparison says nothing.
"""

from __future__ import annotations

from benchmarks.dram import RANDOM_PER_S, SEQUENTIAL_PER_S
from benchmarks.hand_written import replay_hbm2
from benchmarks.measurement import Measurement, best_cpu_s

__all__ = ["measure"]

REQUESTS = 200_000
STANDARDS = (
    "ddr4-3200", "ddr5-4800", "gddr6", "hbm2", "hbm2-2000", "hbm2e-3600", "hbm3-6400",
    "hbm3e-9600", "lpddr4-2400", "lpddr5-6400",
)  # fmt: skip
"""Held to the limits; the other presets are variants, and what other tools configure."""
TIMES = 3
SLOWER_AT_MOST = 3.0


def measure() -> list[Measurement]:
    """Requests a CPU second of each preset, and how many times slower tables are."""
    import numpy as np

    from pimsim.config.loader import load_memory
    from pimsim.config.resources import preset_names
    from pimsim.hardware.dram.address import AddressMap
    from pimsim.hardware.dram.replay import replay

    found = []
    reads = np.zeros(REQUESTS, dtype=np.int64)
    for name in preset_names("memory"):
        memory = load_memory(name, ["organization.channels=1"]).config
        burst = memory.organization.burst_bytes
        bursts = memory.organization.capacity_bytes // burst
        drawn = np.random.default_rng(1).integers(0, bursts, REQUESTS) * burst
        for kind, addresses in (("sequential", np.arange(REQUESTS) * burst), ("random", drawn)):

            def run(memory=memory, addresses=addresses) -> None:  # type: ignore[no-untyped-def]
                replay(memory, addresses, reads)

            rate = REQUESTS / best_cpu_s(run, TIMES)
            label = f"{name} ({memory.controller.model}), {kind}"
            limit = (SEQUENTIAL_PER_S if kind == "sequential" else RANDOM_PER_S) / 1e6
            held = name in STANDARDS
            found.append(
                Measurement(label, rate / 1e6, "M requests/s", limit if held else None)
            )  # fmt: skip
    memory = load_memory(
        "hbm2-2000", ["organization.channels=1", "controller.refresh=none"]
    ).config  # fmt: skip
    burst = memory.organization.burst_bytes
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    bursts = memory.organization.capacity_bytes // burst
    for kind, numbers in (
        ("sequential", np.arange(REQUESTS)),
        ("random", np.random.default_rng(1).integers(0, bursts, REQUESTS)),
    ):
        cycles = [0, 0]

        def ours(numbers=numbers, cycles=cycles) -> None:  # type: ignore[no-untyped-def]
            cycles[0] = replay(memory, numbers * burst, reads).cycles

        def by_hand(numbers=numbers, cycles=cycles) -> None:  # type: ignore[no-untyped-def]
            where = mapping.decode(numbers)
            cycles[1] = int(replay_hbm2(where.bank, where.row, reads))

        factor = best_cpu_s(ours, TIMES) / best_cpu_s(by_hand, TIMES)
        note = f"{cycles[0]} cycles, {cycles[1]} by hand"
        if cycles[0] != cycles[1]:
            raise RuntimeError(f"{kind}: the kernels differ: {note}")
        found.append(
            Measurement(
                f"tables against hand-written HBM2, {kind}", factor, "times the CPU time",
                SLOWER_AT_MOST, at_least=False, note=note,
            )
        )  # fmt: skip
    return found
