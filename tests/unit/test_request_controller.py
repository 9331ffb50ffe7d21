"""The request queue on a made-up memory: expected cycles are formulas over timing names."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.oracle.bare_memory import bare_memory

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, StreamResult, run_stream

T = {"tRCD": 7, "tRP": 5, "tRAS": 20, "tCCD": 3, "tRTP": 4, "CL": 6, "tREFI": 400, "tRFC": 50}
RULES = [
    ("bank", ["ACT", "ACT_AB"], ["RD", "RD_AB"], "tRCD"),
    ("bank", ["ACT", "ACT_AB"], ["PRE"], "tRAS"),
    ("bank", ["ACT", "ACT_AB"], ["ACT", "ACT_AB"], "tRAS + tRP"),
    ("bank", ["PRE"], ["ACT", "ACT_AB"], "tRP"),
    ("bank", ["RD", "RD_AB"], ["PRE"], "tRTP"),
    ("rank", ["RD"], ["RD"], "tCCD"),
    ("rank", ["REF"], ["ACT", "ACT_AB", "REF"], "tRFC"),
]


def design(**controller: Any) -> PimDesignConfig:
    return PimDesignConfig.model_validate(
        {
            "name": "made-up", "source": "none", "design": "hbm_pim",
            "dtype": "fp16", "element_bytes": 2, "operations": [],
            "memory": bare_memory(
                {"channels": 2, "ranks": 2, "bank_groups": 1, "banks_per_group": 4,
                 "rows": 64, "columns": 8, "column_bytes": 32}),
            "timings": T,
            "commands": {
                "ACT": {"bus": "row", "effect": "open", "mode": "bank"},
                "ACT_AB": {"bus": "row", "effect": "open", "mode": "all_bank"},
                "PRE": {"bus": "row", "effect": "close", "mode": "any"},
                "RD": {"bus": "column", "row": "open", "activate": "ACT", "precharge": "PRE",
                       "latency": "CL"},
                "RD_AB": {"bus": "column", "row": "open", "activate": "ACT_AB", "precharge": "PRE",
                          "latency": "CL"},
                "REF": {"bus": "row", "broadcast": ["bank_group", "bank"]},
            },
            "rules": [{"level": lv, "first": a, "then": b, "delay": d} for lv, a, b, d in RULES],
            "controller": {"order": "requests", "queue_depth": 8, **controller},
        }
    )  # fmt: skip


def reads(
    config: PimDesignConfig, *requests: tuple[int, int, bool], command: str = "RD", rank: int = 0
) -> CommandStream:
    """Reads of (bank, row), each a fence or not."""
    builder = StreamBuilder(config, [1])
    for bank, row, fence in requests:
        wait = "issued" if fence else "none"
        builder.add(command, row=row, place=(0, rank, 0, bank), wait=wait)
    return builder.build()


def log(config: PimDesignConfig, stream: CommandStream) -> list[tuple[int, str, int]]:
    """(cycle, command, bank) of all commands."""
    names = list(config.all_commands)
    lines = run_stream(config, stream, log=True).log[0]
    return [(int(line[0]), names[line[1]], int(line[5])) for line in lines]


def test_a_read_enters_opens_and_returns() -> None:
    config = design()
    result = run_stream(config, reads(config, (0, 1, False)))
    # handed over in cycle 0, seen in cycle 1
    assert result.cycles == 1 + T["tRCD"] + T["CL"]


def test_hits_behind_a_miss_go_first() -> None:
    config = design()
    found = log(config, reads(config, (0, 1, False), (0, 2, False), (0, 1, False)))
    assert [line[1:] for line in found[:3]] == [("ACT", 0), ("RD", 0), ("RD", 0)]
    assert found[2][0] - found[1][0] == T["tCCD"]
    close, reopen = found[3], found[4]
    assert close == (max(1 + T["tRAS"], found[2][0] + T["tRTP"]), "PRE", 0)
    assert reopen[0] == close[0] + T["tRP"]


def test_a_fence_keeps_hits_behind_it() -> None:
    config = design()
    found = log(config, reads(config, (0, 1, False), (0, 2, True), (0, 1, False)))
    assert [name for _, name, _ in found] == ["ACT", "RD", "PRE", "ACT", "RD", "PRE", "ACT", "RD"]


def test_a_fence_waits_for_those_before_it() -> None:
    config = design()
    found = log(config, reads(config, (0, 1, False), (1, 1, True), (2, 1, False)))
    acts = {bank: cycle for cycle, name, bank in found if name == "ACT"}
    read = {bank: cycle for cycle, name, bank in found if name == "RD"}
    # the fence's row is opened when all before it are gone, and the next one's while it waits
    assert acts[1] == read[0] + 1
    assert acts[2] == acts[1] + 1
    assert read[0] < read[1] < read[2]


def test_a_row_that_nobody_wants_is_closed() -> None:
    config = design()
    found = log(config, reads(config, (0, 1, False), *[(1, 3, False)] * 7))
    close = next(cycle for cycle, name, bank in found if (name, bank) == ("PRE", 0))
    assert close >= 1 + T["tRAS"]
    assert any(cycle > close for cycle, name, _ in found if name == "RD")


def test_the_queue_hands_over_one_request_a_cycle_while_it_has_room() -> None:
    narrow, wide = design(queue_depth=1), design(queue_depth=8)
    requests = [(bank, 1, False) for bank in range(4)]
    one = run_stream(narrow, reads(narrow, *requests)).cycles
    assert one == 4 * (1 + T["tRCD"]) + T["CL"]
    assert run_stream(wide, reads(wide, *requests)).cycles < one


REFRESH = {"command": "REF", "interval": "tREFI"}


def refresh_log(config: PimDesignConfig, count: int) -> list[tuple[int, int]]:
    builder = StreamBuilder(config, [1])
    builder.add("RD", row=1, count=count)
    names = list(config.all_commands)
    lines = run_stream(config, builder.build(), log=True).log[0]
    return [(int(line[0]), int(line[3])) for line in lines if names[line[1]] == "REF"]


def test_refreshes_come_all_at_once_or_staggered() -> None:
    at_once = refresh_log(design(refresh=REFRESH), 600)
    turns = len(at_once) // 2
    # each holds the reads back by less than a quarter of the interval
    assert 600 * T["tCCD"] // T["tREFI"] <= turns <= 1.25 * 600 * T["tCCD"] / T["tREFI"] + 1
    assert [rank for _, rank in at_once] == [0, 1] * turns
    # the second rank is idle: it follows in the next cycle
    assert all(b == a + 1 for (a, _), (b, _) in zip(at_once[::2], at_once[1::2], strict=True))
    staggered = refresh_log(design(refresh={**REFRESH, "staggered": True}), 600)
    assert [rank for _, rank in staggered[:4]] == [0, 1, 0, 1]
    # an idle rank is refreshed when it is due
    assert [cycle for cycle, rank in staggered if rank == 1] == [
        T["tREFI"] * turn for turn in range(1, len(staggered) // 2 + 1)
    ]


def test_a_stream_of_hits_puts_refreshes_off_up_to_the_limit() -> None:
    count = 1500
    for postponed in (0, 1, 2):
        config = design(refresh={**REFRESH, "staggered": True, "postponed": postponed})
        busy = [cycle for cycle, rank in refresh_log(config, count) if rank == 0]
        # a hit every tCCD keeps the bank from being closed until too many are owed
        assert (postponed + 0.5) * T["tREFI"] <= busy[0] <= (postponed + 1) * T["tREFI"]


def test_only_the_quirk_loses_refreshes() -> None:
    def refreshes(**refresh: Any) -> int:
        config = design(refresh={**REFRESH, "staggered": True, "postponed": 8, **refresh})
        return len(refresh_log(config, 3000))

    owed_at_most = 8 * 2
    due = 3000 * T["tCCD"] // (T["tREFI"] // 2)
    assert due - owed_at_most <= refreshes() <= due + 3
    assert refreshes(drops_late=True) < due / 2 + 2


MODE_ROWS = [
    {"to": "all_bank", "command": "ACT", "row": 60, "banks": [0, 2]},
    {"to": "bank", "command": "PRE", "row": 61, "banks": [0, 1]},
]


def test_rows_switch_the_mode_when_all_their_banks_had_it() -> None:
    config = design(mode_rows=MODE_ROWS)
    builder = StreamBuilder(config, [1])
    for bank in (0, 2):
        builder.add("RD", row=60, place=(0, 0, 0, bank), wait="issued")
    builder.add("RD_AB", row=5, wait="issued")
    found = log(config, builder.build())
    switched = [cycle for cycle, name, _ in found if name == "ACT"][1]
    assert next(cycle for cycle, name, _ in found if name == "ACT_AB") > switched


def test_a_command_of_a_mode_that_never_comes_is_an_error() -> None:
    config = design(mode_rows=MODE_ROWS)
    with pytest.raises(InputError, match="cannot go on"):
        run_stream(config, reads(config, (0, 1, False), command="RD_AB"))


def test_the_host_waits_for_all_channels_at_a_blocking_instruction() -> None:
    config = design()
    builder = StreamBuilder(config, [1, 1])
    builder.add("RD", row=1, count=50, channels=[0])
    builder.add("RD", row=1, channels=[1], blocking=True)
    builder.add("RD", row=2, channels=[1])
    result: StreamResult = run_stream(config, builder.build(), log=True)
    slow = 1 + T["tRCD"] + 49 * T["tCCD"] + T["CL"]
    assert int(result.log[1][-1][0]) > slow
    assert result.cycles == slow + 1 + T["tRCD"] + T["CL"]


def test_what_a_queue_of_requests_cannot_do_is_refused() -> None:
    config = design()
    builder = StreamBuilder(config, [1])
    builder.add("REF")
    with pytest.raises(InputError, match="REF is no access to an open row"):
        run_stream(config, builder.build())
    builder = StreamBuilder(config, [1])
    builder.add("RD", row=0, wait="completed")
    with pytest.raises(InputError, match="no waits for completion"):
        run_stream(config, builder.build())
    free = design()
    free = free.model_copy(
        update={
            "commands": {
                **free.all_commands,
                "PRE": free.all_commands["PRE"].model_copy(update={"bus": "none"}),
            }
        }
    )
    with pytest.raises(InputError, match=r"commands\.PRE\.bus: found 'none'"):
        run_stream(free, reads(free, (0, 1, False)))
    deep = design(queue_depth=4096)
    with pytest.raises(InputError, match="queue_depth: found 4096"):
        run_stream(deep, reads(deep, (0, 1, False)))


@pytest.mark.parametrize(
    ("controller", "message"),
    [
        ({"row_lookahead": True}, "row_lookahead cannot be set"),
        ({"commands_per_cycle": 2}, "commands_per_cycle cannot be set"),
        ({"order": "lanes", "mode_rows": MODE_ROWS}, "mode_rows cannot be set"),
        ({"mode_rows": [{**MODE_ROWS[0], "command": "ATC"}]}, "unknown command 'ATC'"),
        ({"mode_rows": [{**MODE_ROWS[0], "row": 64}]}, "there are 64 rows"),
        ({"mode_rows": [{**MODE_ROWS[0], "banks": [8]}]}, "no bank 8"),
        ({"mode_rows": [{**MODE_ROWS[0], "command": "RD"}]}, "RD is no row command"),
    ],
)
def test_settings_of_the_other_scheduler_and_wrong_mode_rows_are_refused(
    controller: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        design(**controller)


def test_a_request_that_waits_for_a_mode_for_ever_ends_the_run_though_refreshes_go_on() -> None:
    config = design(mode_rows=MODE_ROWS, refresh=REFRESH)
    with pytest.raises(InputError, match="cannot go on"):
        run_stream(config, reads(config, (0, 1, False), command="RD_AB"))


@pytest.mark.parametrize("start", range(0, 40))
def test_a_refresh_amid_a_mode_change_does_not_stop_it(start: int) -> None:
    """The row that changed the mode is closed by the refresh before its read, then reopened."""
    interval = {**T, "tREFI": 20 + start, "tRFC": 3}
    config = design(mode_rows=MODE_ROWS, refresh={**REFRESH, "postponed": 8})
    config = config.model_copy(update={"timings": interval})
    builder = StreamBuilder(config, [1])
    for bank in (0, 2):
        builder.add("RD", row=60, place=(0, 0, 0, bank), wait="issued" if bank else "none")
    builder.add("RD_AB", row=5, wait="issued")
    commands = run_stream(config, builder.build()).commands
    assert (commands["RD"], commands["RD_AB"]) == (2, 1)


def test_refreshes_that_leave_no_time_end_the_run() -> None:
    config = design(refresh=REFRESH)
    config = config.model_copy(update={"timings": {**T, "tREFI": 40, "tRFC": 50}})
    with pytest.raises(InputError, match="cannot go on"):
        run_stream(config, reads(config, *[(bank % 4, bank % 3, False) for bank in range(60)]))
