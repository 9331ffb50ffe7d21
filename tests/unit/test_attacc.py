"""AttAcc's mapping: what a head becomes, who shares what, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tests.command_bench import bench_of_design

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.attacc_plan import Part, Plan, shape_of
from pimsim.hardware.pim.designs.attacc import attention, attention_commands, attention_cycles

KNOBS_OFF = ("attention.stage_rules=[]",)


def design(name: str, *overrides: str) -> PimDesignConfig:
    return load_stream_pim(name, overrides).config


@pytest.mark.parametrize(
    ("name", "token_units", "dim_units", "query", "score_moves", "value_moves", "probability"),
    [
        # 2 pseudo channels x 2 ranks x 4 bank groups hold tokens, 4 banks parts of the dimension
        ("attacc-bank", 16, 4, 4, 8, 8, 8),
        ("attacc-bg", 16, 1, 1, 8, 2, 8),
        ("attacc-buffer", 2, 1, 1, 1, 1, 1),
    ],
)
@pytest.mark.parametrize("element_bytes", [1, 2])
def test_a_head_becomes_the_commands_that_its_sizes_say(
    name: str,
    token_units: int,
    dim_units: int,
    query: int,
    score_moves: int,
    value_moves: int,
    probability: int,
    element_bytes: int,
) -> None:
    head_dim, context = 128, 2049
    pim = design(name, *KNOBS_OFF).model_copy(update={"element_bytes": element_bytes})
    assert pim.attention is not None
    column = 32 // element_bytes
    tokens, groups = -(-context // token_units), -(-head_dim // (dim_units * column))
    names = pim.attention.commands
    for heads, ahead in ((16, 0), (20, 16), (32, 16)):
        # a pair of turns issues one MAC ahead in each channel, to open its row
        assert attention_commands(pim, heads, head_dim, context) == {
            names.mac: 2 * heads * tokens * groups + ahead,
            names.write_query: heads * query * groups,
            names.move_score: heads * (-(-tokens // 16) * score_moves + groups * value_moves),
            names.move_probability: heads * probability * -(-context // (token_units * column)),
            names.softmax: heads,
        }


def test_the_published_generator_forgets_what_a_rounded_share_leaves() -> None:
    # 20 heads over 2,049 tokens: 4 channels' 32 query writes over 9 steps of 32 // 9 = 3
    assert attention_commands(design("attacc-bank"), 20, 128, 2049)["WRGB"] == 128 + 27
    kept = attention_commands(design("attacc-bank", *KNOBS_OFF), 20, 128, 2049)
    assert kept["WRGB"] == 128 + 32


def test_the_published_generator_issues_the_first_heads_values_twice() -> None:
    tokens = -(-2049 // 16)
    ours, theirs = (
        attention_commands(design("attacc-bank", *more), 20, 128, 2049)["MACAB"]
        for more in (KNOBS_OFF, ())
    )
    # in all 16 channels of the first head instead of the 4 of the second
    assert theirs - ours == (16 - 4) * 2 * tokens


def test_before_its_fix_the_generator_repeated_an_unpaired_softmax() -> None:
    pim = design(
        "attacc-bank",
        "attention.stage_rules=[attacc_drops_remainder, attacc_replays_first_head, "
        "attacc_repeats_softmax]",
    )
    tokens = -(-2049 // 16)
    steps = -(-tokens // 16)
    assert attention_commands(pim, 3, 128, 2049)["SFM"] == 3 * (steps + 1)
    assert attention_commands(pim, 32, 128, 2049)["SFM"] == 32


@pytest.mark.parametrize("name", ["attacc-bank", "attacc-bg", "attacc-buffer"])
def test_every_column_of_k_and_v_is_read_once(name: str) -> None:
    pim = design(name, *KNOBS_OFF, "attention.reserved_element_bytes=2")
    assert pim.attention is not None
    org = pim.organization
    # one channel has two heads, whose sizes fill whole rows of every bank
    stream = attention(pim, 17, 17, 128, 1024)
    channel = stream.copies.index(1)
    mac = list(pim.all_commands).index(pim.attention.commands.mac)
    mine = (stream.entries[:, 0] == mac) & (stream.entries[:, 1] == channel)
    rows, reads = np.unique(stream.entries[mine][1:, 2:7], axis=0, return_counts=True)
    assert set(reads) == {org.columns}
    in_v = rows[:, 4] >= org.rows // 2
    assert np.array_equal(rows[in_v][:, 4] - org.rows // 2, rows[~in_v][:, 4])


def test_channels_with_the_same_work_are_simulated_once() -> None:
    pim = design("attacc-bank")
    assert pim.attention is not None
    shape = shape_of(pim.attention, pim.organization, 128, 2048, 2)
    plan = Plan(pim.attention, shape, 48, 16)
    assert list(plan.by_channel().values()) == [16]
    [stages] = plan.by_channel()
    assert [stage.turn for stage in stages] == [0, 2]
    assert plan.commands(stages[1])[Part.SOFTMAX] == 1


def test_the_power_cap_slows_banks_but_not_the_buffer_die() -> None:
    for name, binds in (("attacc-bank", True), ("attacc-bg", True), ("attacc-buffer", False)):
        capped, free = design(name), design(f"{name}-npc")
        cycles = [attention_cycles(pim, 16, 128, 512, 2).cycles for pim in (capped, free)]
        assert (cycles[0] > cycles[1]) == binds
        # steady state: one MAC command every nCCDAB
        if name == "attacc-bank":
            for pim in (capped, free):
                bench = bench_of_design(pim)
                bench.issue("MACAB", 0)
                assert bench.earliest("MACAB") == pim.timings["nCCDAB"]
            macs = 2 * 2 * 512 // 16
            assert cycles[0] - cycles[1] == pytest.approx(
                macs * (capped.timings["nCCDAB"] - free.timings["nCCDAB"]), rel=0.05
            )


@pytest.mark.parametrize("name", ["attacc-bank", "attacc-bg", "attacc-buffer"])
def test_the_repaired_design_does_what_attention_needs(name: str) -> None:
    repaired = design(f"{name}-repaired")
    published, ours = (attention_cycles(pim, 32, 128, 2049, 2) for pim in (design(name), repaired))
    assert ours.commands["WRGB"] >= published.commands["WRGB"]
    assert ours.commands["MVGB"] > published.commands["MVGB"]
    # the pipeline hides moves, so all of that is worth little
    assert ours.cycles == pytest.approx(published.cycles, rel=0.03)


def test_refresh_holds_a_channel_back_for_its_time() -> None:
    with_refresh = attention_cycles(design("attacc-bank"), 16, 128, 3000, 2)
    without = attention_cycles(
        design("attacc-bank", "memory.timings.tREFI=1000000"), 16, 128, 3000, 2
    )
    assert with_refresh.commands["REFab"] == 16 * 2 and "REFab" not in without.commands
    trfc = design("attacc-bank").memory.timings["tRFC"]
    assert with_refresh.cycles - without.cycles == pytest.approx(trfc, rel=0.1)


@pytest.mark.parametrize(
    ("overrides", "sizes", "said"),
    [
        ((), (0, 128, 512), "heads is 0"),
        ((), (16 * 1025, 128, 512), "rows of each bank"),
        ((), (1, 2**16, 2**20), "rows of each bank"),
        (("attention.dim_levels=[]",), (1, 128, 512), "reaches all of"),
        (("element_bytes=3",), (1, 128, 512), "do not fill a column"),
        (("attention.commands.mac=MACXB",), (1, 128, 512), "unknown command 'MACXB'"),
        (("attention.column_order=[bank,column,row]",), (1, 128, 512), "bank is in column_order"),
        (("attention.column_order=[column]",), (1, 128, 512), "end with row"),
        (
            ("controller.order=lanes",),
            (1, 128, 512),
            "hits_hold_moves cannot be set with the order",
        ),
        (
            ("controller.order=lanes", "controller.hits_hold_moves=false"),
            (1, 128, 512),
            "other_place needs controller.order window",
        ),
        (("controller.instructions_per_cycle=1",), (1, 128, 512), "instructions_per_cycle 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    overrides: tuple[str, ...], sizes: tuple[int, int, int], said: str
) -> None:
    heads, head_dim, context = sizes
    with pytest.raises(InputError, match=said):
        pim = design("attacc-bank", *overrides)
        attention(pim, heads, heads, head_dim, context)


def test_heads_that_cannot_share_k_and_v_are_refused() -> None:
    with pytest.raises(InputError, match="cannot share 3 KV heads"):
        attention(design("attacc-bank"), 16, 3, 128, 512)
