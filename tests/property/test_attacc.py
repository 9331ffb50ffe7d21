"""Laws of AttAcc's streams and of the scheduler that looks into its queue.

The kernel visits only cycles at which something can happen; the oracle visits all of them.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.command_stream import check_log
from oracle.command_window import simulate_window

from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs.attacc import attention, attention_commands, attention_cycles
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, run_stream

PLACEMENTS = ("attacc-bank", "attacc-bg", "attacc-buffer")
DESIGNS = {name: load_stream_pim(name).config for name in PLACEMENTS}
SENT = ("MACAB", "MACSB", "MACPB", "WRGB", "MVSB", "SFM", "BARRIER")


@st.composite
def designs(draw: st.DrawFn) -> PimDesignConfig:
    """A smaller AttAcc with other timings and another controller."""
    design = DESIGNS["attacc-bank"]
    small = {"pseudo_channels": 1, "bank_groups": 2, "banks_per_group": 2}
    timings = {key: draw(st.integers(0, 9)) for key in sorted(design.all_timings)}
    # refresh has to leave time for the longest command to come through
    timings |= {
        "tRFC": draw(st.integers(1, 20)),
        "CL": 1,
        "CWL": 1,
        "tREFI": draw(st.integers(120, 400)),
    }
    controller = design.controller.model_copy(
        update={
            "queue_depth": draw(st.integers(1, 40)),
            "commands_per_cycle": draw(st.integers(1, 2)),
            "row_lookahead": draw(st.booleans()),
            "hits_hold_moves": draw(st.booleans()),
            "refresh": draw(st.sampled_from([None, design.controller.refresh])),
        }
    )
    organization = design.organization.model_copy(update=small)
    memory = design.memory.model_copy(update={"organization": organization})
    return design.model_copy(
        update={"timings": timings, "controller": controller, "memory": memory}
    )


@st.composite
def streams(draw: st.DrawFn, design: PimDesignConfig) -> CommandStream:
    builder = StreamBuilder(design, [8, 8])
    kinds = draw(st.sets(st.sampled_from(SENT), min_size=2))
    for _ in range(draw(st.integers(0, 25))):
        builder.add(
            draw(st.sampled_from(sorted(kinds))),
            row=draw(st.integers(0, 2)),
            place=(0, draw(st.integers(0, 1)), draw(st.integers(0, 1)), draw(st.integers(0, 1))),
            count=draw(st.integers(1, 4)),
            channels=draw(st.sampled_from([[0], [0, 1]])),
            wait=draw(st.sampled_from(["none", "none", "none", "issued", "completed"])),
        )
    return builder.build()


@given(st.data())
@settings(max_examples=40)
def test_jumping_to_events_changes_no_cycle(data: st.DataObject) -> None:
    design = data.draw(designs())
    stream = data.draw(streams(design))
    result = run_stream(design, stream, log=True)
    cycles, logs = simulate_window(design, stream)
    names = list(design.all_commands)
    assert [[(int(line[0]), names[line[1]]) for line in log] for log in result.log] == logs
    assert result.cycles == cycles
    for log in result.log:
        assert check_log(design, log.tolist()) is None


heads = st.integers(1, 40)
head_dims = st.sampled_from([16, 64, 80, 100, 128, 160])
contexts = st.integers(1, 300)


@given(st.sampled_from(PLACEMENTS), heads, head_dims, contexts, st.sampled_from([1, 2, 4]))
@settings(max_examples=25)
def test_attention_is_legal_and_issues_its_commands(
    name: str, heads: int, head_dim: int, context: int, element_bytes: int
) -> None:
    design = DESIGNS[name].model_copy(update={"element_bytes": element_bytes})
    stream = attention(design, heads, heads, head_dim, context)
    result = run_stream(design, stream, log=True)
    assert sum(stream.copies) == min(heads, 16)
    for log in result.log[:2]:
        assert check_log(design, log[:800].tolist()) is None
    expected = {
        name: count
        for name, count in attention_commands(design, heads, head_dim, context).items()
        if count
    }
    assert {name: result.commands[name] for name in expected} == expected


@given(st.sampled_from(PLACEMENTS), heads, head_dims, contexts, st.integers(1, 64))
@settings(max_examples=25)
def test_attention_reads_k_and_v_and_takes_longer_when_it_is_larger(
    name: str, heads: int, head_dim: int, context: int, more: int
) -> None:
    design = DESIGNS[name]
    least = attention_cycles(design, heads, head_dim, context, 2)
    assert design.attention is not None and design.peak is not None
    macs = least.commands[design.attention.commands.mac] * design.peak_macs
    assert macs >= 2 * heads * head_dim * context
    # one MAC command after the other, of the channel with most heads
    turns, units = -(-heads // 16), design.peak_macs // 16
    columns = turns * 2 * -(-head_dim * context // (units * 16))
    assert least.cycles >= columns * design.all_timings[design.peak.interval]
    for sizes in ((heads + 16, head_dim, context), (heads, head_dim, context + 16 * more)):
        assert attention_cycles(design, *sizes, 2).cycles >= least.cycles
