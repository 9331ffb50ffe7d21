"""Attention alone on the NPU: counts by hand, bounds, and how it is dealt to cores and arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pimsim.config.loader import load_run
from pimsim.config.resources import preset_names
from pimsim.engine.memory import MemoryPort
from pimsim.engine.npu_attention import NpuAttentionResult, run_npu_attention
from pimsim.engine.npu_side import NpuSide
from pimsim.mapping.flash_attention import TiledAttention
from pimsim.mapping.gemm import tile_product
from pimsim.mapping.npu_attention import npu_softmax
from pimsim.mapping.tasks import NpuTask
from pimsim.simulate import overrides_of, resolve, simulate
from pimsim.workload.operators import Operator, OperatorKind


def attend(
    hardware: str, heads: int, dim: int, contexts: list[int], new: int, *overrides: str,
    kv_heads: int | None = None, window: int | None = None,
) -> NpuAttentionResult:  # fmt: skip
    config = load_run(hardware, list(overrides)).config
    return run_npu_attention(config, heads, kv_heads or heads, dim, contexts, new, window)


@pytest.mark.parametrize("hardware", preset_names("hardware"))
@pytest.mark.parametrize("new", [7, 300])
def test_every_npu_attends_no_faster_than_its_parts(hardware: str, new: int) -> None:
    found = attend(hardware, 4, 64, [300], new)
    assert found.flops == 2 * 2 * 64 * 4 * (new * (2 * 300 - new + 1) // 2)
    assert found.executed_flops >= found.flops
    assert found.cycles >= max(found.array_cycles, found.vector_cycles, found.memory_cycles)
    assert sum(found.causes.values()) == pytest.approx(found.cycles, rel=0.01)


def test_causal_attention_of_a_prompt_is_half_of_all_pairs() -> None:
    found = attend("npu-only", 2, 128, [1024], 1024)
    assert found.flops == 2 * 2 * 128 * 2 * 1024 * 1025 // 2
    # eight tiles of 128 keys, the one on the diagonal in full: 36 of 64
    assert found.executed_flops == 2 * 2 * 128 * 2 * 36 * 128 * 128


def test_a_prompt_comes_near_the_busier_side() -> None:
    found = attend("npu-only", 32, 128, [2048, 2048], 2048)
    busier = max(found.array_cycles, found.vector_cycles, found.memory_cycles)
    assert busier <= found.cycles <= 1.05 * busier


def test_a_window_bounds_what_is_seen() -> None:
    found = attend("npu-only", 4, 64, [300], 300, window=50)
    assert found.flops == 2 * 2 * 64 * 4 * (50 * 51 // 2 + 250 * 50)


def test_a_group_of_heads_shares_its_keys() -> None:
    """The same arithmetic, a quarter of the keys and values from memory."""
    alone, shared = (attend("npu-only", 16, 128, [4096], 64, kv_heads=kv) for kv in (16, 4))
    assert alone.flops == shared.flops
    queries = 16 * 128 * 64 * 2
    stays_on_chip = 0  # queries and results
    cached = 4032 * 2 * 128 * 2
    assert alone.read_bytes - stays_on_chip >= 16 * cached
    assert shared.read_bytes - stays_on_chip < 4 * cached + queries + 64 * 2 * 128 * 2 * 4


@pytest.mark.parametrize("cores", [2, 4, 8])
def test_work_is_dealt_to_all_cores(cores: int) -> None:
    """The same arrays, vector units and scratchpad, parted."""
    one = attend("npu-only", 32, 128, [2048], 2048)
    parted = attend(
        "npu-only", 32, 128, [2048], 2048, f"npu.cores={cores}",
        f"npu.systolic.arrays={8 // cores}", f"npu.scratchpad.capacity={32 // cores}MiB",
    )  # fmt: skip
    assert parted.cycles == pytest.approx(one.cycles, rel=0.05)


@pytest.mark.parametrize("cores", [2, 4, 8])
def test_single_tokens_are_dealt_to_all_cores(cores: int) -> None:
    """N34: as many arrays in cores of their own take as long as in one."""
    contexts = [900 + 10 * at for at in range(16)]
    slow = attend("npu-only", 32, 128, contexts, 1, "npu.systolic.arrays=1")
    parted = attend("npu-only", 32, 128, contexts, 1, f"npu.cores={cores}", "npu.systolic.arrays=1")
    together = attend("npu-only", 32, 128, contexts, 1, f"npu.systolic.arrays={cores}")
    assert parted.cycles == pytest.approx(together.cycles, rel=0.02)
    assert parted.array_cycles == together.array_cycles
    assert parted.read_bytes == together.read_bytes
    busier = max(slow.array_cycles / cores, together.memory_cycles)
    assert parted.cycles <= 1.2 * busier


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_a_product_that_arrays_hold_back_has_tiles_for_all_cores(cores: int) -> None:
    """N35: with the default tiling."""
    config = load_run("npu-only", [f"npu.cores={cores}", "npu.systolic.arrays=1"]).config
    cut = tile_product(256, 4096, 4096, 2, config.npu, config.memory, activations_move=False)
    folds = [sum(-(-tile.n // 128) * -(-tile.k // 128) for tile in own) for own in cut.cores]
    assert max(folds) == min(folds)
    assert cut.cut.compute_cycles == 32 * 32 // cores * 256


def test_one_head_is_dealt_to_all_arrays() -> None:
    found = attend("npu-only", 1, 128, [4096], 4096)
    busier = max(found.array_cycles, found.vector_cycles, found.memory_cycles)
    assert found.cycles <= 1.1 * busier


def test_queries_that_do_not_fit_take_several_passes() -> None:
    """Keys are read again for each."""
    roomy = attend("npu-only", 8, 128, [4096], 4096)
    tight = attend("npu-only", 8, 128, [4096], 4096, "npu.scratchpad.capacity=4MiB")
    assert tight.flops == roomy.flops
    queries, keys = 8 * 4096 * 128 * 2, 2 * 8 * 4096 * 128 * 2
    assert roomy.read_bytes == queries + keys
    # of four passes each sees a quarter of the keys more than the one before
    assert tight.read_bytes == queries + keys * (1 + 2 + 3 + 4) // 4


def test_softmax_of_all_heads_over_all_scores() -> None:
    """Three heads; 100 and 7 scores: an exponential, a difference and so on for each of them."""
    npu = load_run("npu-only", []).config.npu
    contexts = (100, 7)
    scores = Operator("softmax", OperatorKind.SOFTMAX, rows=3 * 2, flops=99)
    task = npu_softmax(scores, 0, contexts, npu, 2)
    rows = {c: npu_softmax(replace(scores, rows=1), 0, (c,), npu, 2) for c in contexts}
    for size in ("vector_unit_cycles", "vector_lane_ops", "sram_bytes"):
        each = [getattr(rows[c], size) for c in contexts]
        assert min(each) > 0
        assert getattr(task, size) == 3 * sum(each), size
    assert rows[100].vector_lane_ops * 7 == rows[7].vector_lane_ops * 100
    assert task.compute_cycles == -(-task.vector_unit_cycles // npu.vector.units)


@pytest.mark.parametrize(
    ("cores", "together", "share"), [(1, 1, 1), (1, 4, 4), (2, 1, 1), (2, 4, 4), (4, 2, 1)]
)
def test_vector_units_are_shared_by_all_arrays_of_all_cores(
    cores: int, together: int, share: int
) -> None:
    """Of four arrays in each core; as many vector units as arrays, half of them on four cores."""
    units = min(4 * cores, 8)
    settings = [f"npu.cores={cores}", "npu.systolic.arrays=4", f"npu.vector.units={units}"]
    npu = load_run("npu-only", settings).config.npu
    attention = TiledAttention(None, None, 0, npu, None, 2, None)  # type: ignore[arg-type]
    assert attention.units(together).vector_units == share


def test_a_pass_that_just_fits_reads_its_keys_once() -> None:
    """One array; a token more takes a second pass, which reads all that it sees once more."""
    config = load_run("npu-only", ["npu.systolic.arrays=1", "npu.scratchpad.capacity=1MiB"]).config
    scores, values = (
        Operator(name, OperatorKind.ATTENTION_SCORE, heads=8, kv_heads=8, head_dim=128)
        for name in ("score", "value")
    )
    memory = config.memory
    most = TiledAttention(scores, values, 0, config.npu, memory, 2, None).most_tokens(1)
    assert 100 < most < 2000
    found = [
        attend("npu-only", 8, 128, [8 * most], new, "npu.systolic.arrays=1",
               "npu.scratchpad.capacity=1MiB").read_bytes
        for new in (most - 1, most, most + 1)
    ]  # fmt: skip
    assert found[1] == pytest.approx(found[0], rel=0.01)
    assert found[2] > 1.8 * found[1]


def test_a_core_asks_for_its_own_keys(
    tiny_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a short window leaves others without any."""
    asked: list[tuple[int, ...]] = []
    planned: list[tuple[int, ...]] = []
    transfer, moved = MemoryPort.transfer, NpuSide._moved

    def noted(port: MemoryPort, *streams: Any, source: int = 0) -> Any:
        asked.append((source,))
        return transfer(port, *streams, source=source)

    def watched(side: NpuSide, task: NpuTask) -> Any:
        if not task.stream_cores:
            return moved(side, task)
        asked.clear()
        monkeypatch.setattr(MemoryPort, "transfer", noted)
        event = moved(side, task)
        monkeypatch.setattr(MemoryPort, "transfer", transfer)
        planned.append(task.stream_cores)
        assert asked == [(core,) for core in task.stream_cores]
        return event

    monkeypatch.setattr(NpuSide, "_moved", watched)
    values = yaml.safe_load(tiny_card.read_text())
    card, requests = tmp_path / "windowed.yaml", tmp_path / "requests.csv"
    card.write_text(yaml.safe_dump({**values, "window": {"size": 4}}))
    requests.write_text(
        "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens\n0,0,20,9,2\n"
    )
    options = overrides_of(model=card, requests=requests, layers=1)
    simulate(resolve("npu-only", [*options, f"npu.cores={2 * values['kv_heads']}"]))
    # a head's 16 places are two cores', of which the first has all four tokens
    assert planned == 2 * [tuple(range(0, 2 * values["kv_heads"], 2))]
