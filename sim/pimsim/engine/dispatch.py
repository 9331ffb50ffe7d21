"""Which task a unit takes next, what it waits for, and when a stage is over."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import simpy

from pimsim.config.errors import InputError
from pimsim.engine.schedules import Schedule
from pimsim.mapping.barrier import Barrier
from pimsim.mapping.program import AnyTask, Program
from pimsim.mapping.tasks import TaskId

__all__ = ["LINK", "NPU", "PIM", "PIM_LINK", "UNITS", "Dispatch", "Process"]

NPU, PIM, LINK, PIM_LINK = UNITS = ("npu", "pim", "link", "pim_link")
"""Units that take tasks: the arrays with the vector units and the DMA engines, the banks, links
between devices, the link to PIM's own memory."""
Process = Generator[simpy.Event, Any, Any]
_BLOCKS_AHEAD = 1
"""Of one sub-batch tasks are asked for so many blocks beyond the first that is not done."""
FIRST_STAGE = "step"
"""What the stage is called that a step begins with no barrier."""
_NAMED = 4
"""Tasks at most that a message names."""


class Dispatch:
    """The tasks of one step between a schedule, which orders them, and units, which do them."""

    def __init__(
        self, env: simpy.Environment, program: Program, schedule: Schedule,
        is_held: Callable[[AnyTask], bool],
    ) -> None:  # fmt: skip
        """``is_held``: whether the NPU cannot take a task yet, were it ready otherwise."""
        self._env = env
        self._program = program
        self._schedule = schedule
        self._is_held = is_held
        self.following: Dispatch | None = None
        """The step after this one, where that is known."""
        self._order = self._checked(schedule, program)
        self._begun = False
        self._head = next(self._order, None)
        self._waiting: dict[str, list[AnyTask]] = {unit: [] for unit in UNITS}
        self._open: dict[int, Counter[int]] = defaultdict(Counter)
        self._given: set[TaskId] = set()
        self._done: set[TaskId] = set()
        self._running = 0
        self._changed = env.event()
        self.blocks_begun = 0
        """Blocks that a task so far was of."""
        self.last_unit = NPU
        """The unit whose task was done last."""
        self.ended: list[tuple[int, str]] = []
        """When tasks of other units than the NPU's were done since the NPU last began to wait, ps,
        and which unit did each."""
        self.idle_ps: dict[str, int] = {}
        """Since when each unit had nothing to do, ps."""

    def _checked(self, schedule: Schedule, program: Program) -> Iterator[Barrier | AnyTask]:
        """The schedule's order, then what lies outside the blocks."""
        yield from schedule.order(program)
        missing = program.missing(self._given)
        if missing:
            raise self._wrong(f"forgets {_listed(missing)}")
        yield from program.outside()

    def _wrong(self, text: str) -> InputError:
        name = type(self._schedule).__module__.rpartition(".")[2]
        return InputError(f"schedule.policy {name!r} {text}")

    # the order ----------------------------------------------------------------------------------
    def begin(self) -> str | None:
        """Go to the next stage: what it is called, None where there is none."""
        first, self._begun = not self._begun, True
        if first and (self._given or not isinstance(self._head, Barrier | None)):
            self._ask()
            return FIRST_STAGE
        if self._head is None:
            return None
        assert isinstance(self._head, Barrier)
        label = self._head.label
        self._head = next(self._order, None)
        self._ask()
        return label

    def coming(self) -> list[AnyTask]:
        """What the NPU would do first of a step that is to come, up to its first product; nothing
        where the step begins with a barrier."""
        if isinstance(self._head, Barrier) and not self._given:
            return []
        self._ask()
        return list(self._waiting[NPU]) if self._schedule.in_order else self._foreseen(())

    def wait_from(self, time_ps: int) -> None:
        """No unit has had anything to do since ``time_ps``."""
        self.idle_ps = dict.fromkeys(UNITS, time_ps)

    def has_work(self, unit: str) -> bool:
        """Whether the stage has, or may have, more for ``unit``."""
        return bool(self._waiting[unit]) or not self._asked_all

    @property
    def _asked_all(self) -> bool:
        return self._head is None or isinstance(self._head, Barrier)

    def _ask(self, at_least: int = 0) -> None:
        """Take tasks from the order up to the next barrier, as far as their blocks are near, or
        ``at_least`` so many."""
        while self._head is not None and not isinstance(self._head, Barrier):
            task, own = self._head, self._head.id
            blocks = self._open[own.part]
            if at_least <= 0 and blocks and own.block > min(blocks) + _BLOCKS_AHEAD:
                return
            if own in self._given:
                raise self._wrong(f"gives {self._program.name_of(own)} twice")
            self._given.add(own)
            blocks[own.block] += 1
            self._waiting[self.unit_of(task.unit)].append(task)
            self.blocks_begun = max(self.blocks_begun, min(own.block + 1, self._program.layers))
            self._head = next(self._order, None)
            at_least -= 1

    def unit_of(self, kind: str) -> str:
        """Which unit does tasks of the parts that ``Task.unit`` names."""
        if kind in (PIM, PIM_LINK):
            return kind
        return LINK if kind == "link" and not self._schedule.in_order else NPU

    # units --------------------------------------------------------------------------------------
    def serve(
        self, unit: str, run: Callable[[AnyTask, Sequence[AnyTask]], Process],
        waited: Callable[[int], None] | None = None,
    ) -> Process:  # fmt: skip
        """Have ``unit`` do the tasks of the stage.

        Parameters
        ----------
        unit
            One of ``UNITS``.
        run
            Does a task, and is told which tasks follow it as far as that is known.
        waited
            Hears before a task how long the unit had to wait for it: since when, ps.
        """
        while True:
            at = self._choice(unit)
            if at is None:
                if not self.has_work(unit):
                    return
                if not self._is_stuck():
                    yield self._changed
                continue
            queue = self._waiting[unit]
            task = queue.pop(at)
            if waited is not None and self.idle_ps[unit] < int(self._env.now):
                waited(self.idle_ps[unit])
            self._running += 1
            yield from run(task, self._expected(task))
            self._finish(task, unit)

    def _is_ready(self, task: AnyTask) -> bool:
        return all(each in self._done for each in task.after)

    def _choice(self, unit: str) -> int | None:
        """Which of its waiting tasks ``unit`` takes; None: it has to wait."""
        queue = self._waiting[unit]
        if unit == NPU and self._schedule.in_order:
            return 0 if queue and self._is_ready(queue[0]) else None
        ready = {
            task.id: at
            for at, task in enumerate(queue)
            if self._is_ready(task) and not (unit == NPU and self._is_held(task))
        }
        if not ready:
            return None
        chosen = self._schedule.choose(unit, [queue[at] for at in ready.values()]).id
        if chosen not in ready:
            raise self._wrong(
                f"takes {self._program.name_of(chosen)}, which is not ready; ready are "
                f"{_listed([self._program.name_of(each) for each in ready])}"
            )
        return ready[chosen]

    def _expected(self, task: AnyTask) -> list[AnyTask]:
        """What the NPU will do after ``task``, or where it may choose, would if PIM did nothing
        meanwhile, up to the next product; behind this step's last tasks the next step's first."""
        if self._schedule.in_order:
            found = list(self._waiting[NPU])
            left = 0
        else:
            found = self._foreseen((task.id,))
            left = len(self._waiting[NPU]) + len(self._waiting[LINK]) - len(found)
        if self.following is not None and self._head is None and not left:
            found += self.following.coming()
        return found

    def _foreseen(self, ended: Sequence[TaskId]) -> list[AnyTask]:
        """What the NPU and the links would do behind ``ended``, up to the next product, if nobody
        else did anything."""
        known = {*self._done, *ended}
        left = [*self._waiting[NPU], *self._waiting[LINK]]
        found: list[AnyTask] = []
        while ready := [each for each in left if known.issuperset(each.after)]:
            following = self._schedule.choose(NPU, ready)
            found.append(following)
            if following.unit == "systolic":
                break
            known.add(following.id)
            left = [each for each in left if each is not following]
        return found

    def _finish(self, task: AnyTask, unit: str) -> None:
        self._running -= 1
        self._done.add(task.id)
        blocks = self._open[task.id.part]
        blocks[task.id.block] -= 1
        if not blocks[task.id.block]:
            del blocks[task.id.block]
        self.last_unit = unit
        if unit == NPU:
            self.ended.clear()
        else:
            self.ended.append((int(self._env.now), unit))
        self.idle_ps[unit] = int(self._env.now)
        self._ask()
        changed, self._changed = self._changed, self._env.event()
        changed.succeed()

    def _is_stuck(self) -> bool:
        """Whether nothing could go on, so that another task was asked for.

        Raises ``InputError`` where the stage has none: its tasks wait for one another.
        """
        if self._running or any(self._choice(unit) is not None for unit in UNITS):
            return False
        if not self._asked_all:
            self._ask(at_least=1)
            return True
        name = self._program.name_of
        waits = [
            f"{name(task)} for {name(next(each for each in task.after if each not in self._done))}"
            for queue in self._waiting.values()
            for task in queue
            if not self._is_ready(task)
        ]
        raise self._wrong(f"deadlocks: before the next barrier waits {_listed(waits)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
