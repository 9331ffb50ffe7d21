"""What runs on GPUs account for: facts that laws hold them to, peaks, times and work by unit."""

from __future__ import annotations

from collections.abc import Iterator

from cases import values
from facts import facts

SMALL = ("workload.model=gpt3-7b", "workload.requests=equal:256+1", "workload.batch=4")


@values("results/gpu-accounts")
def _accounts() -> Iterator[str]:
    from pimsim.config.loader import load_system
    from pimsim.result.invariants import violations
    from pimsim.result.xpu_accounts import (
        unit_bytes,
        unit_macs,
        unit_ps,
        xpu_facts,
        xpu_peaks,
        xpu_sources,
    )
    from pimsim.simulate import observe_xpu

    for preset, more in (
        ("dgx-h100", ()), ("dgx-h100", ("workload.phase=prefill",)), ("dgx-a100", ("devices=1",)),
        ("dgx-attacc-bank", ()), ("dgx-attacc-bank-npc", ()), ("dgx-a100a-cpu", ()),
    ):  # fmt: skip
        resolved = load_system(preset, (*SMALL, *more))
        outcome, result = observe_xpu(resolved)
        known = xpu_facts(outcome, result)
        yield f"=== {preset} {more}: laws broken {list(violations(result, known))}"
        yield from facts(known, "facts")
        yield from facts(xpu_peaks(outcome), "peaks")
        yield from facts(xpu_sources(resolved.config), "sources")
        for name, found in (
            ("ps", unit_ps(outcome)), ("macs", unit_macs(outcome)), ("bytes", unit_bytes(outcome)),
        ):  # fmt: skip
            yield f"{name} {sorted(found.items())}"
