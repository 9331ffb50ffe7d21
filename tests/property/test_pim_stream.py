"""Laws of the command stream scheduler, on random streams of random designs.

The kernel visits only cycles at which something can happen; the oracle visits all of them. They
have to agree on every command's cycle.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.bare_memory import bare_memory
from oracle.command_stream import check_log, simulate

from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, run_stream

LEVELS = ("channel", "pseudo_channel", "rank", "bank_group", "bank")
COMMANDS: dict[str, dict[str, Any]] = {
    "ACT": {"bus": "row", "effect": "open"},
    "PRE": {"bus": "row", "effect": "close"},
    "ACTG": {"bus": "row", "effect": "open", "broadcast": ["bank_group"]},
    "PREA": {
        "bus": "row",
        "effect": "close",
        "broadcast": ["pseudo_channel", "rank", "bank_group", "bank"],
    },
    "RD": {
        "bus": "column",
        "queue": "plain",
        "row": "open",
        "activate": "ACT",
        "precharge": "PRE",
        "latency": "tB",
    },
    "MACG": {
        "bus": "column",
        "row": "open",
        "activate": "ACTG",
        "precharge": "PREA",
        "broadcast": ["bank_group"],
    },
    "REF": {
        "bus": "row",
        "row": "closed",
        "precharge": "PREA",
        "broadcast": ["bank_group", "bank"],
        "latency": "tC",
    },
    "WRB": {"bus": "column", "mode": "register", "latency": "tA"},
    "SWITCH": {"bus": "column", "mode": "any"},
    "FENCE": {"bus": "none", "mode": "any"},
}
TIES = [
    ("ACT", "RD"), ("ACT", "PRE"), ("PRE", "ACT"), ("RD", "PRE"), ("REF", "ACT"),
    ("ACTG", "MACG"), ("ACTG", "PREA"), ("PREA", "ACTG"), ("MACG", "PREA"), ("REF", "ACTG"),
    ("PREA", "REF"), ("ACT", "PREA"), ("RD", "PREA"),
]  # fmt: skip
"""Pairs that a design must bind; rules that are drawn may bind them again."""
UNIT_COMMANDS = {
    name: {**COMMANDS[name], "broadcast": ["bank_group", "unit"]} for name in ("ACTG", "MACG")
}
"""The same in one bank of each unit instead of one of each bank group."""
ISSUED = ("RD", "MACG", "WRB", "FENCE")


@st.composite
def designs(draw: st.DrawFn) -> PimDesignConfig:
    small = st.integers(1, 2)
    per_group = draw(st.sampled_from([1, 2, 4]))
    names = st.lists(st.sampled_from(sorted(COMMANDS)), min_size=1, max_size=3, unique=True)
    delay = st.sampled_from(["tA", "tB", "tC", "tA + tB", "max(tA, tC) - 1"])
    rules = [
        {
            "level": draw(st.sampled_from(LEVELS)),
            "first": draw(names),
            "then": draw(names),
            "delay": draw(delay),
            "window": draw(st.sampled_from([1, 1, 1, 2, 4])),
        }
        for _ in range(draw(st.integers(0, 6)))
    ]
    rules += [
        {"level": "other_ranks", "first": draw(names), "then": draw(names), "delay": draw(delay)}
        for _ in range(draw(st.integers(0, 2)))
    ]
    refresh = draw(st.sampled_from([None, {"command": "REF", "interval": "tREFI"}]))
    rules += [
        {
            "level": draw(st.sampled_from(LEVELS)),
            "first": [one],
            "then": [two],
            "delay": draw(delay),
        }
        for one, two in TIES
    ]
    return PimDesignConfig.model_validate(
        {
            "name": "random",
            "source": "made up",
            "design": "aim",
            "dtype": "bf16",
            "element_bytes": 2,
            "banks_per_unit": draw(st.sampled_from([1, per_group])),
            "operations": [],
            "memory": bare_memory(
                {
                    "channels": 4,
                    "pseudo_channels": draw(small),
                    "ranks": draw(small),
                    "bank_groups": draw(small),
                    "banks_per_group": per_group,
                    "rows": 8,
                    "columns": 4,
                    "column_bytes": 32,
                },
                500,
            ),
            "timings": {
                "tA": draw(st.integers(1, 5)),
                "tB": draw(st.integers(1, 9)),
                "tC": draw(st.integers(1, 30)),
                "tREFI": draw(st.integers(60, 200)),
            },
            "commands": {**COMMANDS, **(UNIT_COMMANDS if draw(st.booleans()) else {})},
            "rules": rules,
            "controller": {
                "queue_depth": draw(st.integers(1, 6)),
                "commands_per_cycle": draw(st.integers(1, 2)),
                "instructions_per_cycle": draw(st.integers(0, 2)),
                "row_lookahead": draw(st.booleans()),
                "mode_switch": draw(st.sampled_from([None, "SWITCH"])),
                "refresh": refresh,
            },
        }
    )


@st.composite
def streams(draw: st.DrawFn, design: PimDesignConfig) -> CommandStream:
    copies = draw(st.sampled_from([[4], [1, 3]]))
    lanes = draw(st.integers(1, 3))
    counts = design.organization.counts
    builder = StreamBuilder(design, copies, lanes)
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()) and draw(st.booleans()):
            builder.pause()
        builder.add(
            draw(st.sampled_from(ISSUED)),
            row=draw(st.integers(0, 2)),
            place=tuple(draw(st.integers(0, count - 1)) for count in counts),  # type: ignore[arg-type]
            count=draw(st.integers(1, 4)),
            channels=draw(st.sampled_from([[0], list(range(len(copies)))])),
            lane=draw(st.integers(0, lanes - 1)),
            wait=draw(st.sampled_from(["none", "none", "issued", "completed"])),
            blocking=draw(st.sampled_from([False, False, False, True])),
        )
    return builder.build()


@given(st.data())
@settings(max_examples=100)
def test_jumping_to_events_changes_no_cycle(data: st.DataObject) -> None:
    design = data.draw(designs())
    stream = data.draw(streams(design))
    result = run_stream(design, stream, log=True)
    cycles, counts, logs = simulate(design, stream)
    names = list(design.all_commands)
    ours = [[(int(line[0]), names[line[1]]) for line in log] for log in result.log]
    assert ours == logs
    assert result.cycles == cycles
    for found, expected in zip(result.channel_commands, counts, strict=True):
        expected.pop("FENCE", None)
        assert Counter({name: n for name, n in found.items() if n}) == expected


@given(st.data())
@settings(max_examples=40)
def test_every_command_is_legal_and_comes_once_and_lanes_keep_order(data: st.DataObject) -> None:
    design = data.draw(designs())
    stream = data.draw(streams(design))
    result = run_stream(design, stream, log=True)
    names = list(design.all_commands)
    for channel, log in enumerate(result.log):
        assert check_log(design, log.tolist()) is None
        own = [line for line in stream.entries if line[1] == channel]
        issued = [tuple(line[1:]) for line in log.tolist() if names[line[1]] in ISSUED]
        sent = [(line[0], *line[2:7]) for line in own]
        assert Counter(issued) == Counter(sent)
        if stream.lanes == 1:
            assert issued == sent


@pytest.mark.parametrize("name", ["aim", "aim-refresh"])
@given(
    outputs=st.integers(1, 1500),
    inputs=st.integers(1, 2200),
    batch=st.integers(1, 2),
    activation=st.sampled_from([None, "af0"]),
)
@settings(max_examples=6)
def test_gemv_is_legal(
    name: str, outputs: int, inputs: int, batch: int, activation: str | None
) -> None:
    design = load_stream_pim(name).config
    stream = mapping_of(design, "gemv")(design, outputs, inputs, batch, activation)
    result = run_stream(design, stream, log=True)
    for log in result.log:
        assert check_log(design, log[:1500].tolist()) is None
    # every weight is multiplied once for each vector: 16 banks of 16, padded to whole columns
    units, columns = -(-outputs // 16), -(-inputs // 16)
    assert result.commands["MAC16"] == units * columns * batch
    assert result.commands["WRMAC16"] == units * -(-inputs // 1024) * batch


@given(
    outputs=st.integers(1, 1200),
    inputs=st.integers(1, 2200),
    more=st.integers(1, 600),
)
@settings(max_examples=8)
def test_gemv_takes_longer_when_it_is_larger(outputs: int, inputs: int, more: int) -> None:
    design = load_stream_pim("aim").config
    gemv = mapping_of(design, "gemv")

    def cycles(*sizes: int) -> int:
        return run_stream(design, gemv(design, *sizes)).cycles

    least = cycles(outputs, inputs)
    assert cycles(outputs + more, inputs) >= least
    assert cycles(outputs, inputs + more) >= least
    assert cycles(outputs, inputs, 2) > least
