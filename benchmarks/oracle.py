"""The compiled kernel against the same code run by the plain interpreter."""

from __future__ import annotations

import json

from benchmarks.measurement import Measurement, run_process

__all__ = ["measure"]

COMPILED_REQUESTS, PLAIN_REQUESTS = 500_000, 1_000
SCRIPT = """
import json, sys, time
import numpy as np
from pimsim.config.loader import load_memory
from pimsim.hardware import compiled
if {plain}:
    compiled.njit = lambda **options: lambda function: function
from pimsim.hardware.dram import replay as module
if {plain}:
    # records of plain structured arrays have no attributes
    for name in ("make_channels", "make_parameters", "make_board"):
        make = getattr(module, name)
        setattr(module, name, lambda *a, make=make, **k: make(*a, **k).view(np.recarray))
memory = load_memory("hbm2", ["organization.channels=1"]).config
bursts = np.random.default_rng(1).integers(0, 2**24, {count})
addresses = bursts * memory.organization.burst_bytes
module.replay(memory, addresses[:10], addresses[:10] * 0)
start = time.process_time()
result = module.replay(memory, addresses, addresses * 0)
cpu_s = time.process_time() - start
print(json.dumps({{"rate": sum(result.commands.values()) / cpu_s}}))
"""


def _rate(plain: bool, count: int) -> float:
    script = SCRIPT.format(plain=plain, count=count)
    rate: float = json.loads(run_process(["-c", script]).stdout)["rate"]
    return rate


def measure() -> list[Measurement]:
    """DRAM commands a CPU second, random reads on one channel."""
    compiled, plain = _rate(False, COMPILED_REQUESTS), _rate(True, PLAIN_REQUESTS)
    return [
        Measurement("kernel, compiled", compiled / 1e6, "M commands/s"),
        Measurement("kernel, plain Python", plain / 1e6, "M commands/s"),
        Measurement("compiled over plain", compiled / plain, "times"),
    ]
