"""What a service of simulated machines takes in energy, idle time included."""

from __future__ import annotations

import numpy as np

from pimsim.result.service import interval_ends
from pimsim.result.service_types import ServiceEnergy
from pimsim.serving.service import Service
from pimsim.serving.step_log import StepLog
from pimsim.serving.step_times.simulated import Simulated

__all__ = ["service_energy"]

_PS_PER_S = 10**12


def service_energy(service: Service, log: StepLog, steps: Simulated) -> ServiceEnergy:
    """Energy and power by part, of all replicas.

    Static power, standby and refresh count from time 0 to now, whether anybody works or not; each
    step brings what its own work takes beyond them.

    Parameters
    ----------
    service
        As far as it has come.
    log
        Its energy is read by interval.
    steps
        Its step times, with what they took.

    Returns
    -------
    ServiceEnergy
        Each of its figures.
    """
    log.flush()
    seconds, machine = service.now_ps / _PS_PER_S, steps.machine
    replicas = len(service.replicas)  # of both pools
    idle_s = max(replicas * seconds - steps.worked_ps / _PS_PER_S, 0.0)
    joule = steps.joule + machine.idle_w * idle_s
    energy = dict(zip(machine.parts, joule.tolist(), strict=True))
    energy["total"] = float(joule.sum())
    asked = service.requests
    made = int((asked["length"] - asked["prompt"])[asked["first_token_ps"] >= 0].sum())
    idle_w = replicas * float(machine.idle_w.sum())
    ends = interval_ends(service, log)
    lengths_s = np.diff(ends, prepend=0) / _PS_PER_S
    dynamic = log.columns["dynamic_j"][: len(ends)] / np.maximum(lengths_s, 1e-12)
    return {
        "energy_j": energy,
        "power_w": {key: value / seconds if seconds else 0.0 for key, value in energy.items()},
        "idle_w": idle_w,
        "token_j": energy["total"] / made if made else None,
        "power_over_time_w": (idle_w + dynamic).tolist(),
    }
