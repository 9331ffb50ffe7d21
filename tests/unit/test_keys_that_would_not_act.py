"""A key that nothing would read beside the others is refused, and says what it needs."""

from __future__ import annotations

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_energy, load_memory, load_run, load_system
from pimsim.config.resources import preset_names
from pimsim.hardware.energy.static import dram_peak_w, refresh_w


@pytest.mark.parametrize(
    ("preset", "key", "value", "needs"),
    [
        ("neupims-artifact-main", "npu.operand_layout", "onnxim_short_runs", "is not for tiling"),
        ("onnxim-tpuv4", "npu.tiling", "neupims_partial_stores", "cores is not for"),
        ("neupims", "npu.attention", "neupims_head_by_head", "policy 'serial'"),
        ("neupims", "pim.pipeline_fill", "tCCD_S", "row_buffers 2"),
        ("npu-pim", "pim.timed_comps", "false", "composite_gemv"),
        ("neupims-artifact-main", "npu.systolic.fetch_cycles", "5", "allowed: 0"),
        ("neupims", "schedule.sub_batches", "3", "takes at most 2, greedy, rotating so many"),
        ("npu-pim", "schedule.sub_batches", "true", "asks for 2 sub-batches"),
        ("neupims", "schedule.sub_batches", "1", "found 1; allowed: true (two halves), false, or"),
        ("neupims", "schedule.sub_batches", "65", "2 to 64 parts"),
    ],
)
def test_of_a_run(preset: str, key: str, value: str, needs: str) -> None:
    with pytest.raises(InputError, match=key.rpartition(".")[2]) as refusal:
        load_run(preset, [f"{key}={value}"])
    assert needs in str(refusal.value)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("onnxim-tpuv4", ["npu.operand_layout=row-major"]),
        ("neupims-artifact-main", ["npu.tiling=neupims_blocks"]),
        ("npu-only", ["npu.attention=neupims_head_by_head"]),
        ("neupims", ["npu.attention=neupims_head_by_head", "schedule.attention_placement=npu"]),
        ("npu-pim", ["pim.pipeline_fill=tCCD_S"]),
    ],
)
def test_where_it_acts_it_is_taken(preset: str, changes: list[str]) -> None:
    load_run(preset, changes)


def test_of_a_system() -> None:
    with pytest.raises(InputError, match="attacc_ffn_energy is of an FFN on PIM"):
        load_system("dgx-a100a", ["cost_rules=[attacc_ffn_energy]"])
    with pytest.raises(InputError, match="attacc_host_per_device is of attention on the host"):
        load_system("dgx-attacc-bank", ["cost_rules=[attacc_host_per_device]"])
    load_system("dgx-a100a-cpu", ["cost_rules=[attacc_host_per_device]"])
    load_system("dgx-attacc-bank", ["ffn_split=true", "cost_rules=[attacc_ffn_energy]"])


@pytest.mark.parametrize("energy", preset_names("energy"))
def test_timings_of_nothing_are_taken_where_nothing_needs_them(energy: str) -> None:
    """A memory that is not refreshed may say that a refresh takes no time."""
    memory = load_memory("hbm2-onnxim", ["timings.tRFC=0"]).config
    constants = load_energy(energy).config
    assert 0 < dram_peak_w(memory, constants) < float("inf")
    assert refresh_w(memory, constants) == 0
