"""Fast fidelity: a PIM operation is known by what it does, not by the object that asks for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pimsim.hardware.dram.fast import FastMemorySystem, PhasedMemory
from pimsim.hardware.dram.fast.known import KnownOperations
from pimsim.hardware.dram.fast.operations import Operation
from pimsim.hardware.dram.fast.phases import MemoryPhase, Submission
from pimsim.hardware.dram.transfers import ResultWork, Stream
from pimsim.simulate import observe, resolve

SMALL = [
    "workload.model=smollm2-135m", "parallel.tp=1", "workload.layers=3", "workload.batch=6",
    "memory.organization.channels=2", "fidelity=fast",
]  # fmt: skip


def operation(*programs: np.ndarray) -> Operation:
    empty = Operation.__new__(Operation)
    object.__setattr__(empty, "programs", programs)
    return empty


def output(**changed: object) -> ResultWork:
    nothing = np.zeros(2, np.int64)
    return replace(ResultWork(nothing, nothing + 3, nothing, 0, False), **changed)  # type: ignore[arg-type]


PROGRAMS = (np.arange(20).reshape(2, 10), np.arange(10, 40).reshape(3, 10))


def test_equal_programs_and_outputs_are_one_operation() -> None:
    known, first = KnownOperations(), operation(*PROGRAMS)
    assert known.get(PROGRAMS, 2, output(), lambda: first) is first
    again = tuple(program.copy() for program in PROGRAMS)
    assert known.get(again, 2, output(), pytest.fail) is first
    # for how long the vector units work is no part of it
    longer = output(duration=np.array([5, 7]), units=3, overlap=False)
    assert known.get(again, 2, longer, pytest.fail) is first
    assert list(known) == [first]


@pytest.mark.parametrize("channel", [0, 1])
def test_programs_that_differ_anywhere_are_others(channel: int) -> None:
    known, first = KnownOperations(), operation(*PROGRAMS)
    known.add(first, 2, output())
    changed = [program.copy() for program in PROGRAMS]
    changed[channel][-1, -1] += 1
    other = operation(*changed)
    assert known.get(changed, 2, output(), lambda: other) is other
    assert list(known) == [first, other]


@pytest.mark.parametrize(
    ("marks", "after"),
    [
        (1, output()), (2, None), (2, output(spread=True)),
        (2, output(bursts=np.array([3, 4]))), (2, output(channel=np.array([0, 1]))),
    ],
)  # fmt: skip
def test_other_results_are_other_operations(marks: int, after: ResultWork | None) -> None:
    known, first, other = KnownOperations(), operation(*PROGRAMS), operation(*PROGRAMS)
    known.add(first, 2, output())
    assert known.get(PROGRAMS, marks, after, lambda: other) is other


def test_no_result_depends_on_which_objects_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, one = observe(resolve("npu-pim", SMALL))
    asked = FastMemorySystem.submit_pim

    def copied(system, start, programs, marks, after=None):  # type: ignore[no-untyped-def]
        return asked(system, start, [program.copy() for program in programs], marks, after)

    monkeypatch.setattr(FastMemorySystem, "submit_pim", copied)
    apart, other = observe(resolve("npu-pim", SMALL))
    assert isinstance(shared.system, PhasedMemory) and isinstance(apart.system, PhasedMemory)
    # scores and values of three blocks, each block's as the first one's
    assert len(shared.system.fast.known_operations) == 2
    assert len(apart.system.fast.known_operations) == 2
    assert (other.cycles, other.fidelity) == (one.cycles, one.fidelity)


def test_a_phase_has_as_many_bursts_as_its_transfers_have_on_average() -> None:
    """Seven, and five; an operation that moves nothing is no transfer."""
    asked = [
        Submission(streams=(Stream(0, 3), Stream(9, 4))), Submission(marks=1),
        Submission(streams=(Stream(0, 5),)),
    ]  # fmt: skip
    assert MemoryPhase(0, 100, asked, 150).bursts == 6
    assert MemoryPhase(0, 100, [Submission(marks=1)], 150).bursts == 0
    assert MemoryPhase(0, 100, asked, 150).cycles == 50
