"""Systems of GPUs: what a step is made of, and what each option does to it."""

from __future__ import annotations

from time import perf_counter

import pytest
from tests.gpu_blocks import block_kernels, decode_step

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim, load_system
from pimsim.config.system import SystemConfig
from pimsim.engine.contexts import sampled
from pimsim.engine.xpu_device import capacity_bytes
from pimsim.engine.xpu_rules import cost_rules
from pimsim.hardware.pim.bandwidth import unit_bandwidth
from pimsim.validate.gpu_steps import decoding
from pimsim.workload.cards import load_card

GPT = load_card("gpt3-7b")
LLAMA = load_card("llama-3-8b")


def test_kernels_of_a_block_come_from_the_cards_operators() -> None:
    [block] = block_kernels(decode_step(GPT, batch=3, context=100, devices=4), fused_gate=True)
    products = {name: (work.m, work.n, work.k) for name, work in (*block.projections, *block.ffn)}
    assert products == {
        "qkv": (3, 3 * 4096 // 4, 4096),
        "proj": (3, 4096, 4096 // 4),
        "fc1": (3, 4 * 4096 // 4, 4096),
        "fc2": (3, 4096, 4 * 4096 // 4),
    }
    attention = block.attention
    assert (attention.heads, attention.context) == (3 * 32 // 4, 100)
    assert attention.kv_bytes == 2 * 3 * 100 * 4096 // 4 * 2
    assert attention.sent_bytes == 3 * attention.returned_bytes == 3 * 3 * 4096 // 4 * 2
    assert [each.name for each in block.add_norms] == ["res1+ln2", "res2+ln1"]
    assert [each.moved_bytes for each in block.add_norms] == [3 * 3 * 4096 * 2] * 2
    assert block.reduced_bytes == (3 * 4096 * 2,) * 2


def test_gate_and_up_are_one_product_or_two() -> None:
    step = decode_step(LLAMA, batch=1, context=10, devices=8)
    one = dict(block_kernels(step, fused_gate=True)[0].ffn)
    two = dict(block_kernels(step, fused_gate=False)[0].ffn)
    assert list(one) == ["fc1", "fc2"]
    assert list(two) == ["gate", "up", "fc2"]
    assert one["fc1"].n == two["gate"].n + two["up"].n == 2 * 14336 // 8


def test_queries_of_a_group_are_rows_that_share_a_head_of_keys() -> None:
    [block] = block_kernels(decode_step(LLAMA, 5, 70, 4), fused_gate=True)
    attention = block.attention
    score, value = attention.score, attention.value
    assert (score.m, score.n, score.k, score.count) == (4, 70, 128, 5 * 8 // 4)
    assert (value.m, value.n, value.k, value.count) == (4, 128, 70, 5 * 8 // 4)


def test_one_device_reduces_nothing() -> None:
    result = decoding(load_system("dgx-a100a", ["devices=1"]).config, GPT, 1, 100, 3)
    assert result.parts_s["communication"] == 0
    assert result.energy_j.link == 0


def test_the_mean_is_over_the_steps_after_the_first_token() -> None:
    config = load_system("dgx-a100a").config
    steps = [decoding(config, GPT, 4, context, 2).step_s for context in (100, 101, 102)]
    whole = decoding(config, GPT, 4, 100, 4)
    assert whole.steps == 3
    assert whole.step_s == pytest.approx(sum(steps) / 3)


@pytest.mark.parametrize(("name", "banks"), [("bank", 64), ("bg", 16)])
def test_units_read_a_column_of_each_bank_for_every_mac(name: str, banks: int) -> None:
    design = load_stream_pim(f"attacc-{name}").config
    assert design.attention is not None
    found = unit_bandwidth(design, design.attention.commands.mac)
    assert found == pytest.approx(16 * banks * 32 / (6 * 769e-12))


def test_the_buffer_die_reads_at_the_pins_rate() -> None:
    """670.4 GB/s with 5.2375 Gb/s; tCK of 769 ps is 5.2 Gb/s."""
    found = unit_bandwidth(load_stream_pim("attacc-buffer").config, "MACPB")
    assert found == pytest.approx(670.4e9, rel=0.01)


def shares(config: SystemConfig) -> float:
    return cost_rules(config).host_shares(config)


def test_two_sockets_serve_eight_devices_unless_each_has_its_own() -> None:
    assert shares(load_system("dgx-a100a-cpu").config) == 4
    assert shares(load_system("dgx-a100a-cpu", ["devices=1"]).config) == 1
    quirk = load_system("dgx-a100a-cpu", ["cost_rules=[attacc_host_per_device]"]).config
    assert shares(quirk) == 1
    apart = decoding(quirk, GPT, 8, 256, 4)
    shared = decoding(load_system("dgx-a100a-cpu").config, GPT, 8, 256, 4)
    assert shared.parts_s["attention"] == pytest.approx(4 * apart.parts_s["attention"])


def test_attention_on_pim_is_the_fullest_stacks_program() -> None:
    """8 requests of 4 heads a device over 5 stacks: 7 heads in the fullest."""
    from pimsim.hardware.pim.designs.attacc import attention_cycles

    config = load_system("dgx-attacc-bank").config
    assert config.pim is not None
    program = attention_cycles(config.pim, 7, 128, 257, 2)
    result = decoding(config, GPT, 8, 256, 2)
    assert result.parts_s["attention"] == pytest.approx(32 * program.time_ps * 1e-12)


def test_the_ffn_on_pim_costs_its_reads_for_every_request() -> None:
    split = decoding(load_system("dgx-attacc-bank").config, GPT, 8, 256, 3)
    alone = decoding(load_system("dgx-attacc-bank", ["ffn_split=false"]).config, GPT, 8, 256, 3)
    quirk = decoding(
        load_system("dgx-attacc-bank", ["cost_rules=[attacc_ffn_energy]"]).config, GPT, 8, 256, 3
    )
    assert split.gemm_s["fc1"] < alone.gemm_s["fc1"]
    assert split.energy_j.dram < alone.energy_j.dram
    assert split.energy_j.pim > alone.energy_j.pim
    for part in ("dram", "pim", "npu", "link", "host"):
        assert getattr(quirk.energy_j, part) == pytest.approx(getattr(alone.energy_j, part))


def test_capacity_is_that_of_all_memories() -> None:
    gib = 2**30
    capacities = {
        "dgx-a100a": 8 * 80,
        "dgx-a100a-cpu": 8 * 80 + 2 * 1024,
        "dgx-attacc-buffer": 8 * 80 + 8 * 5 * 16,
    }
    for name, expected in capacities.items():
        assert capacity_bytes(load_system(name).config) == expected * gib


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_sampled_contexts_give_the_mean_of_what_grows_linearly(limit: int) -> None:
    contexts = range(2049, 2176)
    weights = sampled(contexts, limit)
    assert len(weights) == limit
    assert sum(weights.values()) == pytest.approx(1)
    mean = sum(context * weight for context, weight in weights.items())
    assert mean == pytest.approx(sum(contexts) / len(contexts))


def test_the_weight_of_a_sampled_context_by_hand() -> None:
    """Steps 0 to 5 of which 0, 2 and 5 are simulated: 1 is half of 0 and half of 2; 3 is two thirds
    of 2, 4 is one. The steps between are never walked: ten million answer at once."""
    assert sampled(range(6), 3) == {0: 1.5 / 6, 2: 2.5 / 6, 5: 2 / 6}
    begun = perf_counter()
    assert sampled(range(10**9), 2) == {0: 0.5, 10**9 - 1: 0.5}
    assert perf_counter() - begun < 5


def test_few_contexts_are_all_simulated() -> None:
    assert sampled(range(5, 8), 3) == {5: 1 / 3, 6: 1 / 3, 7: 1 / 3}


def test_more_contexts_change_the_step_little() -> None:
    config = load_system("dgx-attacc-bank").config
    few, all_of_them = (decoding(config, GPT, 40, 500, 50, limit) for limit in (3, 49))
    assert (few.steps, all_of_them.steps) == (3, 49)
    assert few.parts_s["attention"] == pytest.approx(all_of_them.parts_s["attention"], rel=0.02)


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(0, 5), (5, 1), (5, 0)])
def test_no_step_is_refused(input_tokens: int, output_tokens: int) -> None:
    with pytest.raises(InputError, match="at least"):
        decoding(load_system("dgx-a100a").config, GPT, 1, input_tokens, output_tokens)
