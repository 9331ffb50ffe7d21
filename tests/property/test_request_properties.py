"""Random requests on a request queue: all are served, in legal order, between their fences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import request_queue
from oracle.stream_rules import broken_rules

from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs.hbm_pim import elementwise, gemv
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, run_stream

DESIGN = load_stream_pim("hbm-pim").config

REQUESTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 15), st.integers(0, 2), st.integers(0, 9)),
    min_size=1,
    max_size=150,
)


def without_refresh(design: PimDesignConfig) -> PimDesignConfig:
    controller = design.controller.model_copy(update={"refresh": None})
    return design.model_copy(update={"controller": controller})


@settings(max_examples=30)
@given(REQUESTS)
def test_all_requests_are_served_legally_between_their_fences(
    requests: list[tuple[bool, int, int, int]],
) -> None:
    builder = StreamBuilder(DESIGN, [1])
    groups: list[list[tuple[str, int, int]]] = [[]]
    for write, bank, row, fence in requests:
        command = "WR" if write else "RD"
        builder.add(
            command, row=row, place=(0, 0, bank // 4, bank % 4),
            wait="issued" if fence == 0 else "none",
        )  # fmt: skip
        groups[-1].append((command, bank, row))
        if fence == 0:
            groups.append([])
    result = run_stream(DESIGN, builder.build(), log=True)
    assert list(broken_rules(DESIGN, result.log[0])) == []
    names = list(DESIGN.all_commands)
    served = [
        (names[line[1]], int(line[4] * 4 + line[5]), int(line[6]))
        for line in result.log[0]
        if names[line[1]] in ("RD", "WR")
    ]
    at = 0
    for group in groups:
        mine = served[at : at + len(group)]
        assert sorted(mine) == sorted(group)
        at += len(group)
    assert at == len(served)


@pytest.mark.parametrize("kernel", ["gemv", "add", "relu"])
def test_kernels_are_legal(kernel: str) -> None:
    stream = gemv(DESIGN, 4096, 384, 2) if kernel == "gemv" else elementwise(DESIGN, kernel, 400000)
    result = run_stream(DESIGN, stream, log=True)
    assert list(broken_rules(DESIGN, result.log[0])) == []


def test_refresh_only_adds_cycles() -> None:
    stream = gemv(DESIGN, 8192, 2048)
    free = without_refresh(DESIGN)
    assert run_stream(free, stream).cycles < run_stream(DESIGN, stream).cycles


def against_oracle(design: PimDesignConfig, stream: CommandStream) -> None:
    """The kernel's commands are those of the oracle, to the cycle."""
    names = list(design.all_commands)
    requests = [
        (names[row[0]], (row[2], row[3], row[4], row[5]), row[6], row[8] != 0)
        for row in stream.entries.tolist()
    ]
    expected = request_queue.run(design, requests)
    found = [
        (line[0], names[line[1]], tuple(line[2:6]), line[6])
        for line in run_stream(design, stream, log=True).log[0].tolist()
    ]
    # the oracle stops with the last request, the kernel with its completion
    assert found[: len(expected)] == expected


@settings(max_examples=25)
@given(
    REQUESTS,
    st.sampled_from([1, 3, 16, 64]),
    st.integers(60, 400),
    st.integers(0, 2),
    st.booleans(),
)
def test_every_command_goes_when_the_oracle_says(
    requests: list[tuple[bool, int, int, int]],
    queue_depth: int,
    refresh_interval: int,
    postponed: int,
    drops: bool,
) -> None:
    refresh = {"postponed": postponed, "drops_late": drops}
    controller = DESIGN.controller.model_copy(
        update={
            "queue_depth": queue_depth,
            "refresh": DESIGN.controller.refresh.model_copy(update=refresh),
        }
    )
    timings = {**DESIGN.timings, "tREFI": 2 * refresh_interval, "tRFC": 20}
    design = DESIGN.model_copy(update={"controller": controller, "timings": timings})
    builder = StreamBuilder(design, [1])
    for write, bank, row, fence in requests:
        builder.add(
            "WR" if write else "RD", row=row, place=(0, 0, bank // 4, bank % 4),
            wait="issued" if fence == 0 else "none",
        )  # fmt: skip
    against_oracle(design, builder.build())


def test_a_kernel_goes_as_the_oracle_says() -> None:
    against_oracle(DESIGN, elementwise(DESIGN, "add", 131072))
