"""Attention on PIM stacks or a host of requests of any lengths, beside prompts on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_system
from pimsim.engine.xpu_device import build_xpu_devices
from pimsim.engine.xpu_machine import XpuOutcome, run_xpu_devices
from pimsim.hardware.pim.operations import Attention, run_operation
from pimsim.mapping.kernels import kernels_of
from pimsim.workload.cards import load_card
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry

GPT = load_card("gpt3-7b")
HEADS = 32 // 8
"""Of a request on one of eight devices."""
SYSTEMS = ("dgx-attacc-bank", "dgx-a100a-cpu")


def outcome(name: str, *asked: tuple[int, int], card: str = "gpt3-7b") -> XpuOutcome:
    """A step with entries of (new tokens, context), of two blocks."""
    config = load_system(name, [] if name.endswith("cpu") else ["ffn_split=false"]).config
    entries = [
        StepEntry(Request(number, 0.0, 10**6, 10, 0), new, context, 1, 1)
        for number, (new, context) in enumerate(asked)
    ]
    return run_xpu_devices(
        build_xpu_devices(config, load_card(card), (Step(tuple(entries)),))
    )  # fmt: skip


def single(name: str, contexts: Sequence[int]) -> XpuOutcome:
    return outcome(name, *((1, context) for context in contexts))


def rows(found: XpuOutcome, name: str) -> list[tuple[str, int, int]]:
    """Unit, FLOPs and bytes of the rows of a name."""
    return [(o.unit, o.flops, o.bytes) for o in found.recorder.operators if o.name == name]


def test_the_fullest_stack_has_every_fifth_head_of_the_longest_first() -> None:
    contexts = range(20, 64, 2)  # more heads in a stack than it has channels
    found = single("dgx-attacc-bank", contexts)
    design = found.config.pim
    assert design is not None
    heads = [c for c in sorted(contexts, reverse=True) for _ in range(HEADS)][::5]
    assert (len(heads), heads[0], heads[-1]) == (18, 62, 20)
    alone = run_operation(design, Attention(1, 1, 128, tuple(heads), 2))
    assert found.parts_s["attention"] == pytest.approx(2 * alone.cycles * design.tCK * 1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_lengths_change_attention_alone_and_by_what_they_read(name: str) -> None:
    equal, other = single(name, [400] * 4), single(name, [100, 300, 500, 700])
    for part in ("gemm", "communication", "elementwise"):
        assert other.parts_s[part] == pytest.approx(equal.parts_s[part], rel=0.15)
    unit = equal.config.attention
    key_bytes = 2 * 128 * 2 * HEADS
    for found in (equal, other):
        assert rows(found, "attention") == [(unit, 2 * 1600 * HEADS * 256, 1600 * key_bytes)] * 2
    assert rows(other, "transfers")[0][2] == rows(equal, "transfers")[0][2]
    longest = single(name, [700] * 4)
    shortest = single(name, [100] * 4)
    spent = [x.parts_s["attention"] for x in (shortest, other, longest)]
    assert spent == sorted(spent) and spent[0] < spent[-1]


def test_a_host_reads_what_all_requests_have_together() -> None:
    equal, other = single("dgx-a100a-cpu", [400] * 2), single("dgx-a100a-cpu", [100, 700])
    assert other.parts_s["attention"] == pytest.approx(equal.parts_s["attention"], rel=1e-9)
    assert other.parts_s["softmax"] == pytest.approx(equal.parts_s["softmax"], rel=1e-9)


def test_energy_of_the_stacks_goes_by_the_keys_that_they_read() -> None:
    def pim_pj(*contexts: int) -> float:
        return single("dgx-attacc-bank", contexts).recorder.works[0].cost.energy_pj["pim"]

    mixed, equal = pim_pj(900, 100, 900, 100, 500), pim_pj(*[500] * 5)
    assert mixed == pytest.approx(equal, rel=0.05)


def test_contexts_and_prompts_share_what_the_block_has() -> None:
    asked = ((1, 300), (64, 200), (1, 90), (1, 300))
    found = outcome("dgx-attacc-bank", *asked)
    whole = found.device.whole
    block = whole.blocks[0]
    kernels = kernels_of(whole, block, fused_gate=True, cache_elsewhere=True)
    assert [(e.context, e.requests) for e in kernels.elsewhere] == [(300, 2), (90, 1)]
    softmax, value = block.operator("softmax"), block.operator("value")
    [prompt] = kernels.flash
    scores = sum(each.softmax.flops for each in kernels.elsewhere)
    assert scores + prompt.softmax_flops == softmax.flops
    assert scores * (690 + 64 * 136 + 64 * 65 // 2) == 690 * softmax.flops
    read = sum(each.kv_bytes for each in kernels.elsewhere) + prompt.kv_bytes
    assert read == block.operator("score").kv_read_bytes + value.kv_read_bytes
    assert sum(each.returned_bytes for each in kernels.elsewhere) == value.output_bytes * 3 // 67
    written = sum(each.kv_write_bytes for each in block.operators)
    assert kernels.kv_written_bytes == written * 64 // 67
    assert kernels.kv_cached_bytes == kernels.kv_written_bytes * 136 // 64


@pytest.mark.parametrize("name", SYSTEMS)
def test_prompts_in_a_mixed_step_are_the_gpus_and_their_keys_are_sent(name: str) -> None:
    found = outcome(name, (1, 300), (64, 200), (1, 90))
    unit = found.config.attention
    assert rows(found, "attention") == [(unit, 2 * 390 * HEADS * 256, 390 * 1024 * HEADS // 2)] * 2
    pairs = 64 * 136 + 64 * 65 // 2
    [prompt, _] = rows(found, "attention of prompts")
    assert prompt[:2] == ("xpu", 2 * pairs * HEADS * 256)
    # 64 new keys and values go there, 136 come back
    assert rows(found, "keys and values")[0] == ("link", 0, 200 * 2 * HEADS * 128 * 2)
    names = [o.name for o in found.recorder.operators]
    assert names.index("attention of prompts") < names.index("fc1")
    alone = single(name, [300, 90])
    assert rows(alone, "attention of prompts") == rows(alone, "keys and values") == []
    assert found.time_ps > alone.time_ps


def test_latents_are_read_by_the_gpu_alone() -> None:
    with pytest.raises(InputError, match=r"keeps latents \(MLA\)"):
        outcome("dgx-attacc-bank", (1, 300), (1, 90), card="deepseek-v3")
