"""One GPT3-7B block at batch 256, command by command, against the NeuPIMs artifact."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.measurement import Measurement, best_cpu_s

__all__ = ["ARTIFACT_CPU_S", "measure"]

ARTIFACT_CPU_S = 34.0
"""CPU seconds that the artifact's branch main takes for the same block (issue 2)."""
LEAST_RATIO = 100.0
TIMES = 5


def _reference_requests() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "reference"
    folder = Path(os.environ.get("PIMSIM_REFERENCE", default))
    return folder / "neupims" / "requests" / "sg-clb-256.csv"


def measure() -> list[Measurement]:
    """From reading the requests to the end of the simulation; no compilation."""
    from pimsim.config.loader import load_run
    from pimsim.engine.device_building import build_device
    from pimsim.engine.iteration import run_iteration
    from pimsim.hardware.dram.layout import C_COMMANDS
    from pimsim.hardware.dram.rules import COMMANDS
    from pimsim.workload.cards import load_card
    from pimsim.workload.requests import load_requests
    from pimsim.workload.step import Step

    cases = [("neupims", ["schedule.sub_batches=false", "workload.layers=1"], "sharegpt-256")]
    reference = _reference_requests()
    if reference.exists():
        cases.insert(0, ("neupims-artifact-main", [], str(reference)))
    found = []
    for preset, overrides, requests in cases:
        config = load_run(preset, [*overrides, f"workload.requests={requests}"]).config
        card = load_card(config.workload.model)
        issued = 0

        def block(config=config, card=card) -> None:  # type: ignore[no-untyped-def]
            nonlocal issued
            trace = load_requests(config.workload.requests, config.workload.batch)
            outcome = run_iteration(build_device(config, card, Step.decode(trace.requests)))
            counter = outcome.system.channels["counter"]
            issued = int(counter[:, C_COMMANDS : C_COMMANDS + len(COMMANDS)].sum())

        cpu_s = best_cpu_s(block, TIMES)
        found.append(
            Measurement(
                f"block, {preset}, {Path(requests).stem}",
                ARTIFACT_CPU_S / cpu_s,
                "times less CPU than the artifact",
                LEAST_RATIO,
                note=f"{cpu_s:.3f} s, {issued / cpu_s / 1e6:.1f} M commands/s",
            )
        )
    return found
