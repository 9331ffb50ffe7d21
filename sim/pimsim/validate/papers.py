"""What papers state of their designs (``papers.csv``), from our presets and simulations.

Peaks follow from presets alone; speed-ups, utilisation and power are simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from pimsim.config.delay import evaluate_delay
from pimsim.config.loader import load_run, load_stream_pim, load_system
from pimsim.hardware.dram.peak import peak_bytes_per_s
from pimsim.hardware.pim.stream import peak_interval_cycles
from pimsim.result.types import Result
from pimsim.validate import attacc_system
from pimsim.validate.types import References, Row

__all__ = ["TABLE", "rows"]

TABLE = "papers.csv"
_FLOP_PER_MAC = 2
_CHANNELS_PER_AIM_CHIP = 2
_READS = {"aim": ("tCCD_S", 1), "hbm-pim": ("tCCD_S", 1)}
"""How often a design's host reads a column of a channel, and how many at once."""
_ATTACC_READS = ("tCCD_S", 2)
"""A column of each of two pseudo channels."""


def rows(references: References) -> Iterator[Row]:
    """Groups ``papers.peak``, ``papers.attacc``, ``papers.duplex`` and ``papers.reported``.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for line in references.table(TABLE):
        ours = _figure(line["case"], line["metric"])
        yield Row(line["group"], line["case"], line["metric"], float(line["reference"]), ours)


def _figure(case: str, metric: str) -> float:
    for start, figure in _SIMULATED.items():
        if case.startswith(start):
            return figure(case, metric)
    return _neupims_peak(metric) if case == "neupims" else _design_peak(case, metric)


def _neupims_peak(metric: str) -> float:
    config = load_run("neupims").config
    assert config.pim is not None
    systolic, org, pim = config.npu.systolic, config.memory.organization, config.pim
    comp = next(rule for rule in pim.rules if rule.first == ["COMP"] and "COMP" in rule.then)
    comp_ns = evaluate_delay(comp.delay, config.memory.timings, "COMP") * config.memory.tCK / 1000
    banks = org.channels * org.ranks * org.banks
    external = peak_bytes_per_s(config.memory) / 1e9
    macs_per_ns = banks * pim.elements_per_comp / comp_ns
    element_bytes = 2  # FP16, NeuPIMs section 8.1
    figures = {
        "npu_tflops": _FLOP_PER_MAC * systolic.arrays * systolic.rows * systolic.cols
        * config.npu.frequency / 1e12,
        "external_gbps": external,
        "pim_tflops": _FLOP_PER_MAC * macs_per_ns / 1000,
        "internal_over_external": macs_per_ns * element_bytes / external,
    }  # fmt: skip
    return figures[metric]


def _design_peak(name: str, metric: str) -> float:
    """Of a stream design, from how often its ``peak`` command goes and what that multiplies."""
    design = load_stream_pim(name).config
    assert design.peak is not None
    macs_per_cycle = design.peak_macs / peak_interval_cycles(design)
    if metric == "tflops_per_chip":
        cycles_per_ns = 1000 / design.tCK
        return _CHANNELS_PER_AIM_CHIP * _FLOP_PER_MAC * macs_per_cycle * cycles_per_ns / 1000
    timing, columns = _READS.get(name, _ATTACC_READS)
    external = columns * design.organization.burst_bytes / design.all_timings[timing]
    return macs_per_cycle * design.element_bytes / external


@cache
def _system(placement: str, batch: int) -> tuple[float, float]:
    """Tokens/s of GPT-175B with 2048 + 128 tokens, and seconds of attention in a step.

    ``placement``: of AttAcc's PIM; empty for GPUs alone. As its model with all options.
    """
    from pimsim.validate.gpu_steps import decoding
    from pimsim.workload.cards import load_card

    record = {
        "system": "dgx-attacc" if placement else "dgx",
        "pim": placement,
        "gpu": "A100a",
        "ngpu": "8",
        "opts": "--powerlimit --ffopt --pipeopt" if placement else "",
    }
    config = load_system(attacc_system.preset_of(record), attacc_system.overrides_of(record)).config
    result = decoding(config, load_card("gpt3-175b"), batch, 2048, 128)
    return result.tokens_per_s, result.parts_s["attention"]


def _attacc(case: str, metric: str) -> float:
    batch = int(case.split()[-1])
    if case.startswith("speed-up"):
        return _system("bank", batch)[0] / _system("", batch)[0]
    return _system(metric.removesuffix("_over_bank"), batch)[1] / _system("bank", batch)[1]


@cache
def _run(preset: str, model: str) -> Result:
    from pimsim.simulate import resolve, simulate

    # The paper's machine holds one batch, whatever the pipeline; no figure of it here is a rate.
    given = [
        f"workload.model=gpt3-{model}", "workload.requests=sharegpt-256", "parallel.batches=1",
    ]  # fmt: skip
    return simulate(resolve(preset, given))


def _utilisation(case: str, metric: str) -> float:
    machine, model, *_ = case.split()
    used = _run({"NeuPIMs": "neupims", "NPU+PIM": "npu-pim"}[machine], model).utilisation
    return used.npu if metric == "npu_utilisation" else used.pim or 0.0


def _memory_energy(case: str, metric: str) -> float:
    """Of DRAM and PIM: NeuPIMs over NPU-only, for the same tokens or a second."""
    model = case.split()[3]
    ours, base = _run("neupims", model), _run("npu-only", model)
    energy = [(r.energy_j.dram + r.energy_j.pim) / r.layers_simulated for r in (ours, base)]
    if metric == "memory_energy":
        return energy[0] / energy[1]
    powers = [(r.energy_j.dram + r.energy_j.pim) / r.time_s for r in (ours, base)]
    return powers[0] / powers[1]


@cache
def _duplex_rate(override: str) -> float:
    """Tokens/s of Mixtral, 64 requests in the middle of 256 + 256 tokens; one of its equal
    blocks."""
    from pimsim.simulate import resolve, simulate

    given = ["workload.requests=equal:384+1", "workload.batch=64", "workload.layers=1", override]
    return simulate(resolve("npu-duplex", given)).tokens_per_s


def _duplex(case: str, metric: str) -> float:
    """``metric``: a PIM design over the same xPU alone."""
    del case
    return _duplex_rate(f"pim={metric}") / _duplex_rate("schedule.policy=serial")


_SIMULATED: dict[str, Callable[[str, str], float]] = {
    "attention": _attacc,
    "speed-up": _attacc,
    "NeuPIMs over": _memory_energy,
    "NeuPIMs 30b": _utilisation,
    "NPU+PIM": _utilisation,
    "Duplex": _duplex,
}
"""By the beginning of the case."""
