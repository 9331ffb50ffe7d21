"""What a stream scheduler must do, as formulas over timing names of a small design."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from tests.command_bench import bench_of_design
from tests.oracle.bare_memory import bare_memory

from pimsim.config.errors import InputError
from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.designs import design_names, mapping_of
from pimsim.hardware.pim.stream import StreamBuilder, StreamResult, run_stream
from pimsim.hardware.pim.stream_kernel import schedule
from pimsim.hardware.pim.stream_tables import make_channels, make_parameters

RCD, RAS, RP, CCD, RTP, FAW = 10, 25, 9, 3, 4, 50
RULES = [
    {"level": "bank", "first": ["ACT"], "then": ["RD"], "delay": "RCD"},
    {"level": "bank", "first": ["ACT"], "then": ["PRE"], "delay": "RAS"},
    {"level": "bank", "first": ["PRE"], "then": ["ACT"], "delay": "RP"},
    {"level": "bank", "first": ["RD"], "then": ["PRE"], "delay": "RTP"},
    {"level": "channel", "first": ["RD"], "then": ["RD"], "delay": "CCD"},
    {"level": "rank", "first": ["ACT"], "then": ["ACT"], "delay": "FAW", "window": 4},
]
ROW_COMMAND = {"bus": "column", "row": "open", "activate": "ACT", "precharge": "PRE"}


def design(**changes: Any) -> PimDesignConfig:
    """Two bank groups of four banks; ``changes`` of the controller, or whole sections."""
    controller = {"queue_depth": 64}
    sections: dict[str, Any] = {
        "name": "small",
        "source": "made up",
        "design": "aim",
        "dtype": "bf16",
        "element_bytes": 2,
        "operations": ["gemv"],
        "memory": bare_memory(
            {
                "channels": 4,
                "bank_groups": 2,
                "banks_per_group": 4,
                "rows": 16,
                "columns": 8,
                "column_bytes": 32,
            }
        ),
        "timings": {"RCD": RCD, "RAS": RAS, "RP": RP, "CCD": CCD, "RTP": RTP, "FAW": FAW},
        "commands": {
            "ACT": {"bus": "row", "effect": "open"},
            "PRE": {"bus": "row", "effect": "close"},
            "RD": {**ROW_COMMAND, "latency": "RCD + CCD"},
            "MOVE": {"bus": "column", "latency": "RCD"},
            "FENCE": {"bus": "none"},
        },
        "rules": RULES,
        "controller": controller,
        "capacities": {},
    }
    for key, value in changes.items():
        if key in sections:
            sections[key] = value
        else:
            controller[key] = value
    return PimDesignConfig.model_validate(sections)


def bank(number: int) -> tuple[int, int, int, int]:
    return (0, 0, number // 4, number % 4)


def issued(result: StreamResult, small: PimDesignConfig, channel: int = 0) -> list[tuple[int, str]]:
    names = list(small.all_commands)
    return [(int(line[0]), names[line[1]]) for line in result.log[channel]]


def test_the_controller_opens_and_closes_rows() -> None:
    small = design()
    builder = StreamBuilder(small, [1])
    builder.add("RD", row=1, count=2)
    builder.add("RD", row=2)
    result = run_stream(small, builder.build(), log=True)
    close = max(RAS, RCD + CCD + RTP)
    assert issued(result, small) == [
        (0, "ACT"),
        (RCD, "RD"),
        (RCD + CCD, "RD"),
        (close, "PRE"),
        (close + RP, "ACT"),
        (close + RP + RCD, "RD"),
    ]
    assert result.cycles == close + RP + RCD + (RCD + CCD)


def test_a_window_counts_commands_and_lanes_overlap_banks() -> None:
    small = design(instructions_per_cycle=0)
    builder = StreamBuilder(small, [1], lanes=5)
    for number in range(5):
        builder.add("RD", row=0, place=bank(number), lane=number)
    result = run_stream(small, builder.build(), log=True)
    acts = [cycle for cycle, name in issued(result, small) if name == "ACT"]
    assert acts == [0, 1, 2, 3, FAW]
    # and by hand
    bench = bench_of_design(small)
    assert [bench.issue("ACT", bank=number) for number in range(4)] == [0] * 4
    assert bench.earliest("ACT", 4) == FAW and bench.probe("MOVE", 0)


def test_one_lane_keeps_order_and_two_lanes_do_not_wait_for_each_other() -> None:
    small = design(instructions_per_cycle=0)
    for lanes, expected in ((1, ["ACT", "RD", "MOVE"]), (2, ["ACT", "MOVE", "RD"])):
        builder = StreamBuilder(small, [1], lanes=lanes)
        builder.add("RD", row=0)
        builder.add("MOVE", lane=lanes - 1)
        result = run_stream(small, builder.build(), log=True)
        assert [name for _, name in issued(result, small)] == expected


@pytest.mark.parametrize(
    ("wait", "moves_at"), [("none", 1), ("issued", RCD + 1), ("completed", 2 * RCD + CCD)]
)
def test_a_wait_holds_back_all_that_follows(wait: Any, moves_at: int) -> None:
    small = design(instructions_per_cycle=0)
    builder = StreamBuilder(small, [1], lanes=2)
    builder.add("RD", row=0)
    builder.add("MOVE", lane=1, wait=wait)
    builder.add("MOVE", lane=1)
    found = issued(run_stream(small, builder.build(), log=True), small)
    assert [cycle for cycle, name in found if name == "MOVE"] == [moves_at, moves_at + 1]


def test_row_lookahead_opens_rows_behind_a_wait() -> None:
    ends = {}
    for ahead in (False, True):
        small = design(instructions_per_cycle=0, row_lookahead=ahead, commands_per_cycle=2)
        builder = StreamBuilder(small, [1], lanes=2)
        builder.add("MOVE", count=RCD)
        builder.add("RD", row=3, lane=1, wait="issued")
        ends[ahead] = issued(run_stream(small, builder.build(), log=True), small)[-1]
    # the activate goes beside the first of the moves, or beside the last
    assert ends == {False: (2 * RCD - 1, "RD"), True: (RCD, "RD")}


def test_the_host_hands_out_one_instruction_a_cycle_and_waits_for_blocking_ones() -> None:
    small = design()
    builder = StreamBuilder(small, [1])
    builder.add("MOVE")
    builder.pause()
    builder.pause()
    builder.add("MOVE", blocking=True)
    builder.add("MOVE")
    found = issued(run_stream(small, builder.build(), log=True), small)
    # completed RCD after it was issued, seen a cycle later
    assert [cycle for cycle, _ in found] == [0, 3, 3 + RCD + 1]


def test_a_full_queue_of_one_channel_holds_up_the_host() -> None:
    small = design(queue_depth=1)
    builder = StreamBuilder(small, [1, 1])
    builder.add("RD", row=0, count=3, channels=[0])
    builder.add("MOVE", channels=[1])
    result = run_stream(small, builder.build(), log=True)
    reads = [cycle for cycle, name in issued(result, small) if name == "RD"]
    assert reads == [RCD, RCD + CCD, RCD + 2 * CCD]
    # the last read enters when the one before it has gone, the next instruction a cycle later
    assert issued(result, small, 1) == [(reads[1] + 2, "MOVE")]


def test_two_commands_go_in_a_cycle_where_row_and_column_pins_are_apart() -> None:
    for slots, expected in ((1, [0, 1]), (2, [0, 0])):
        small = design(instructions_per_cycle=0, commands_per_cycle=slots)
        builder = StreamBuilder(small, [1], lanes=2)
        builder.add("RD", row=0)
        builder.add("MOVE", lane=1)
        found = issued(run_stream(small, builder.build(), log=True), small)
        assert [cycle for cycle, _ in found][:2] == expected


def test_refresh_closes_rows_first_and_stops_everything_else() -> None:
    every, recovery = 40, 5
    refreshed = design().model_dump()
    refreshed["timings"] |= {"REFI": every, "RFC": recovery}
    wide = ["bank_group", "bank"]
    refreshed["commands"] |= {
        "PREA": {"bus": "row", "effect": "close", "broadcast": wide},
        "REF": {"bus": "row", "row": "closed", "precharge": "PREA", "broadcast": wide},
    }
    refreshed["rules"] += [
        {"level": "channel", "first": ["ACT"], "then": ["PREA"], "delay": "RAS"},
        {"level": "channel", "first": ["RD"], "then": ["PREA"], "delay": "RTP"},
        {"level": "channel", "first": ["PREA"], "then": ["REF"], "delay": "RP"},
        {"level": "channel", "first": ["REF"], "then": ["ACT"], "delay": "RFC"},
    ]
    refreshed["controller"]["refresh"] = {"command": "REF", "interval": "REFI"}
    small = PimDesignConfig.model_validate(refreshed)
    builder = StreamBuilder(small, [1])
    builder.add("RD", row=0, count=20)
    found = issued(run_stream(small, builder.build(), log=True), small)
    last = max(cycle for cycle, name in found if name == "RD" and cycle < every)
    close = max(every, last + RTP)
    at = [pair for pair in found if pair[1] not in ("RD",)]
    assert at[:4] == [
        (0, "ACT"),
        (close, "PREA"),
        (close + RP, "REF"),
        (close + RP + recovery, "ACT"),
    ]
    assert not [name for cycle, name in found if name == "RD" and close <= cycle < at[3][0] + RCD]


def test_refreshes_that_leave_no_time_are_an_error() -> None:
    with pytest.raises(InputError, match="refreshes that leave no time"):
        busy = load_stream_pim("aim-refresh", ["memory.timings.tREFI=211"]).config
        run_stream(busy, mapping_of(busy, "gemv")(busy, 16, 1024))


def test_equal_channels_are_counted_as_often_as_they_are_there() -> None:
    small = design()
    builder = StreamBuilder(small, [3, 1])
    builder.add("MOVE", channels=[0, 1])
    builder.add("MOVE", channels=[1])
    assert run_stream(small, builder.build()).commands == {"MOVE": 3 + 2}


def test_the_kernel_is_its_plain_python_run() -> None:
    aim = load_stream_pim("aim-refresh").config
    stream = mapping_of(aim, "gemv")(aim, 600, 1100, 3)
    compiled = run_stream(aim, stream)
    from pimsim.hardware.pim.stream import _by_channel

    parameters = make_parameters(aim, stream.lanes)
    entries, bounds = _by_channel(stream)
    channels = make_channels(parameters, bounds)
    log = np.zeros((len(bounds), 0, 7), dtype=np.int64)
    cycles = schedule.py_func(parameters, channels, entries, stream.blocking, log)
    assert cycles == compiled.cycles
    for channel, counts in zip(channels, compiled.channel_commands, strict=True):
        assert [int(channel.counts[list(aim.all_commands).index(name)]) for name in counts] == list(
            counts.values()
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"row": 16}, "no row 16"),
        ({"place": (0, 0, 2, 0)}, "no bank group 2"),
        ({"row": -1}, "needs a row and names none"),
        ({"lane": 1}, "no lane 1"),
        ({"channels": [1]}, "no channel 1"),
    ],
)
def test_a_stream_stays_within_the_memory(wrong: Mapping[str, Any], said: str) -> None:
    builder = StreamBuilder(design(), [1])
    builder.add("RD", **{"row": 0, **wrong})
    with pytest.raises(InputError, match=said):
        builder.build()


def test_more_channels_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="4 channels, not 5"):
        StreamBuilder(design(), [4, 1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rules": [{**RULES[0], "first": ["ATC"]}]}, "unknown command 'ATC'; did you mean 'ACT'"),
        ({"rules": [{**RULES[0], "delay": "RCD + tRAZ"}]}, "no timing 'tRAZ'"),
        ({"rules": [{**RULES[0], "delay": "RCD +"}]}, "is no delay"),
        ({"mode_switch": "TMOD"}, "controller.mode_switch: unknown command 'TMOD'"),
        ({"timings": {"RCD": -1}}, r"timings.RCD\n.*greater than or equal to 0"),
        ({"timings": {"RCD": 2**31}}, r"timings.RCD\n.*less than or equal to 2147483647"),
        ({"mode_switch": "RD"}, "controller.mode_switch: RD needs row 'any'"),
        ({"refresh": {"command": "RD", "interval": "RAS"}}, "RD needs row 'any' or 'closed'"),
        (
            {"rules": [{**RULES[0], "level": "bnak"}]},
            "level: unknown level 'bnak'; did you mean 'bank'",
        ),
    ],
)
def test_a_design_names_only_what_it_has(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        design(**change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activate": None}, "activate is missing"),
        ({"precharge": "ACT"}, "ACT needs effect 'close'"),
        ({"broadcast": ["bank"]}, "ACT does not reach all banks of RD"),
        ({"energy": "read"}, "no 'read' in energy_pj"),
    ],
)
def test_a_command_gets_its_row_opened_whole(change: dict[str, Any], said: str) -> None:
    commands = design().model_dump()["commands"]
    commands["RD"] |= change
    with pytest.raises(ValueError, match=said):
        design(commands=commands)


def test_what_records_have_no_room_for_is_refused() -> None:
    big = design().model_dump()
    big["memory"]["organization"] |= {"bank_groups": 64, "banks_per_group": 64}
    with pytest.raises(InputError, match="banks of a channel: found 4096"):
        make_parameters(PimDesignConfig.model_validate(big), 1)
    with pytest.raises(InputError, match="window: found 17"):
        make_parameters(design(rules=[*RULES, {**RULES[5], "window": 17}]), 1)
    with pytest.raises(InputError, match=r"commands\.RD\.latency: RCD - RCD is 0 cycles"):
        make_parameters(
            design(commands={**design().model_dump()["commands"],
                             "RD": {**ROW_COMMAND, "latency": "RCD - RCD"}}), 1
        )  # fmt: skip


def test_designs_are_found_and_what_they_lack_is_refused() -> None:
    aim = load_stream_pim("aim").config
    assert "aim" in design_names()
    with pytest.raises(InputError, match="aim has no 'gemm'; did you mean 'gemv'"):
        mapping_of(aim, "gemm")
    with pytest.raises(InputError, match="no design 'aimm'; did you mean 'aim'"):
        mapping_of(aim.model_copy(update={"design": "aimm"}), "gemv")
    with pytest.raises(InputError, match="lists the operation 'attention'"):
        mapping_of(aim.model_copy(update={"operations": ["attention"]}), "attention")


def test_what_a_design_module_needs_is_asked_for() -> None:
    aim = load_stream_pim("aim").config
    gemv = mapping_of(aim, "gemv")
    for key in ("global_buffer_bytes", "activation_tables"):
        without = {name: size for name, size in aim.capacities.items() if name != key}
        with pytest.raises(InputError, match=f"capacities.{key}: found nothing"):
            gemv(aim.model_copy(update={"capacities": without}), 16, 16)
    small = design(capacities=aim.capacities)
    with pytest.raises(InputError, match="small has no command MAC16, which design 'aim' uses"):
        gemv(small, 16, 16)
    with pytest.raises(InputError, match="small has no command WRGB, which design 'aim' uses"):
        StreamBuilder(small, [1]).add("WRGB")


def test_energy_counts_every_bank_that_a_command_reaches() -> None:
    aim = load_stream_pim("aim").config
    energy = stream_energy_pj(aim, {"ACT": 2, "ACT16": 3, "MAC16": 5, "TMOD": 7})
    assert energy == pytest.approx(
        {
            "activate": (2 + 16 * 3) * aim.energy_pj["activate"],
            "mac": 16 * 5 * aim.energy_pj["mac"],
        }
    )
