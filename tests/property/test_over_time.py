"""Laws of everything that is shown over time, over all presets that the registry has.

``observe`` checks the laws with every result; here are the runs, and what they must not hide.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from math import fsum, inf
from pathlib import Path

import pytest

import pimsim.engine.machine
import pimsim.hardware.dram.system
from pimsim.config.loader import load_pim, load_preset
from pimsim.config.resources import preset_names
from pimsim.engine.work import WorkOverTime
from pimsim.hardware.dram.samples import make_samples
from pimsim.result.series import series_totals
from pimsim.simulate import observe, overrides_of, resolve

MEMORIES = preset_names("memory")
HARDWARE = preset_names("hardware")
DESIGNS = [name for name in preset_names("pim") if load_pim(name).config.controller is None]
CASES = [
    *((name, ()) for name in HARDWARE),
    *(("npu-only", (f"memory={name}",)) for name in MEMORIES),
    *(("neupims", (f"pim={name}",)) for name in DESIGNS),
    ("npu-only", ("energy=pj-per-bit",)), ("neupims", ("workload.outside=true",)),
    ("neupims", ("schedule.attention_placement=npu",)),
]  # fmt: skip


def holds(
    preset: str, overrides: tuple[str, ...], fidelity: str, card: Path, layers: int = 2
) -> int:
    """Intervals of a run, in none of which a unit is above its peak."""
    options = [*overrides_of(model=card, batch=8, layers=layers, fidelity=fidelity), *overrides]
    outcome, result = observe(resolve(preset, options))
    series, peaks = result.series, result.peaks
    assert series is not None
    assert {name: sum(getattr(series, name)) for name in series_totals(outcome)} == (
        series_totals(outcome)
    )
    # an interval's ends are known to a cycle
    cycle_s = float(max(outcome.clock.npu_ps, outcome.clock.memory_ps)) * 1e-12
    for amounts, times, peak in (
        (series.dram_bytes, 1, "dram_bytes_per_s"), (series.npu_macs, 2, "npu_flop_per_s"),
        (series.pim_macs, 2, "pim_flop_per_s"), (series.vector_lane_ops, 1, "vector_ops_per_s"),
    ):  # fmt: skip
        # units that never queue have no most
        most = peaks.get(peak, inf if peak == "vector_ops_per_s" else 0)
        for amount, length in zip(amounts, series.lengths_s, strict=True):
            assert amount * times <= most * (length + cycle_s) * (1 + 1e-9) + 2
    for part, joules in series.energy_j.items():
        assert fsum(joules) == pytest.approx(asdict(result.energy_j)[part], rel=1e-9)
    watts = [fsum(each) for each in zip(*map(series.rates, series.energy_j.values()), strict=True)]
    assert min(watts) >= result.static_w["total"] * (1 - 1e-9)
    mean = fsum(w * s for w, s in zip(watts, series.lengths_s, strict=True)) / result.time_s
    assert mean == pytest.approx(result.power_w["total"], rel=1e-9)
    assert min(map(sum, (series.dram_bytes, series.npu_macs, series.vector_lane_ops))) > 0
    return len(series.end_ps)


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize(("preset", "overrides"), CASES)
def test_no_interval_of_any_preset_is_above_a_peak(
    preset: str, overrides: tuple[str, ...], fidelity: str, tiny_card: Path
) -> None:
    # blocks one behind the other, but where a block takes 100 times as long as elsewhere
    layers = 1 if preset == "onnxim-transformer" else 2
    assert holds(preset, overrides, fidelity, tiny_card, layers) > 10


@pytest.mark.parametrize("interval", [16, 64, 256])
@pytest.mark.parametrize("preset", HARDWARE)
def test_nor_is_a_short_one(
    preset: str, interval: int, tiny_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a few bursts: those across an edge are many among them; and tables fill up."""
    monkeypatch.setattr(
        pimsim.hardware.dram.system, "make_samples", lambda: make_samples(interval)
    )  # fmt: skip
    monkeypatch.setattr(
        pimsim.engine.machine, "WorkOverTime", partial(WorkOverTime, interval=interval)
    )
    assert holds(preset, (), "command", tiny_card, layers=1) > 20


def test_a_small_model_on_a_wide_memory_keeps_its_parts(tiny_card: Path) -> None:
    """Two pseudo channels share a record: both buses count."""
    memory = load_preset("memory", "hbm3-6400").config
    assert memory.organization.pseudo_channels == 2
    assert holds("npu-only", ("memory=hbm3-6400",), "command", tiny_card) > 10


MIXED = (
    (321, 1, 189),
    (233, 3, 1),
    (718, 4, 1),
    (520, 1, 66),
    (720, 1, 1),
    (580, 3, 1),
    (482, 1, 109),
    (296, 6, 1),
    (581, 5, 1),
    (481, 1, 171),
    (506, 6, 1),
    (254, 2, 1),
)
"""Tokens of a prompt, of what was made, and of the step, by request."""


@pytest.mark.parametrize("frequency", ["1GHz", "1300MHz"])
def test_prompts_beside_tokens_want_the_same_vector_units(frequency: str, tmp_path: Path) -> None:
    """Softmax between products, tile by tile, waits for that behind PIM's results; spread evenly
    over its tiles it was at 127 % of the units."""
    lines = ["request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens"]
    lines += [f"{at},0,{prompt},9,{made},{new}" for at, (prompt, made, new) in enumerate(MIXED)]
    requests = tmp_path / "requests.csv"
    requests.write_text("\n".join(lines) + "\n")
    options = overrides_of(model="smollm2-135m", requests=requests, layers=1, fidelity="fast")
    options += ["schedule.sub_batches=false", "npu.vector.units=1", "parallel.tp=1"]
    _, result = observe(resolve("neupims", [*options, f"npu.frequency={frequency}"]))
    assert result.series is not None
    most = max(result.series.rates(result.series.vector_lane_ops))
    assert 0.95 < most / result.peaks["vector_ops_per_s"] <= 1 + 1e-3
