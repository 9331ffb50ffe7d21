"""The tasks of a step as a graph: what waits for what, within a block and from block to block."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import TypeVar

from pimsim.mapping.barrier import Barrier
from pimsim.mapping.tasks import (
    WHOLE_BATCH,
    AnyTask,
    BlockProgram,
    NpuTask,
    PimTask,
    StreamTask,
    Task,
    TaskId,
)
from pimsim.workload.operators import Block, OperatorKind

__all__ = ["AnyTask", "Program", "link_block"]

Kept = TypeVar(
    "Kept", NpuTask, PimTask, StreamTask, PimTask | StreamTask, NpuTask | StreamTask, AnyTask
)


def link_block(
    program: BlockProgram, block: Block, part: int, number: int, attends: Sequence[str] = (),
    inputs: NpuTask | None = None, read: Iterable[str] = (), routed: Container[str] = (),
    chains: Iterable[Sequence[AnyTask]] = (),
) -> BlockProgram:  # fmt: skip
    """The tasks of ``program`` with their places in a step and the edges of their operators.

    A task waits for those of the operators that its own depends on; where one of these has no task,
    for what that one needs. Attention also waits for the new keys and values to be written, whoever
    says so, and what of it runs on one side does not wait for the other's. Experts on PIM go one
    after the other, the first behind their inputs; what needs an expert and is none waits for the
    last of them.

    Parameters
    ----------
    program
        Of ``block``; tasks have the names of their operators, but for ``inputs`` and ``experts``,
        and for a task that does all of attention.
    block
        The operators.
    part, number
        Of the (sub-)batch and of the block.
    attends
        Names of the operators of attention.
    inputs, read
        The task that brings PIM's experts their inputs, None where there is none, and the operators
        that these are from.
    routed
        Names of the operators of the experts.
    chains
        Tasks of ``program`` that follow one another whatever they are.
    """
    tasks = program.tasks
    ids = {id(task): TaskId(part, number, at) for at, task in enumerate(tasks)}
    experts = [ids[id(task)] for task in program.experts]
    apart = {id(inputs), *map(id, program.experts)}
    own: dict[str, set[TaskId]] = {}
    for task in tasks:
        if id(task) not in apart:
            own.setdefault(task.name, set()).add(ids[id(task)])
    of_kind = {
        kind: [o for o in block.operators if o.kind is kind]
        for kind in (OperatorKind.KV_APPEND, OperatorKind.ATTENTION_VALUE)
    }
    written = {each for o in of_kind[OperatorKind.KV_APPEND] for each in own[o.name]}
    is_pim = {ids[id(task)]: task.unit == "pim" for task in program.attention}
    whole = set(is_pim) - {each for name in attends for each in own.get(name, ())}
    after: dict[TaskId, set[TaskId]] = {each: set(written) for each in whole}
    given: dict[str, set[TaskId]] = {}  # by operator: tasks that are done when it is
    for operator in block.operators:
        needed = {each for name in operator.depends_on for each in given[name]}
        mine = own.get(operator.name, set())
        if operator.name in attends:
            outer = {each for each in needed if each not in is_pim}
            for each in mine:
                same = {one for one in needed - outer if is_pim[one] == is_pim[each]}
                after[each] = outer | same | written
            for each in whole:
                after[each] |= outer
            sides = {is_pim[each] for each in mine}
            given[operator.name] = mine | {
                one for one in needed if not mine or (one in is_pim and is_pim[one] not in sides)
            }
            if operator in of_kind[OperatorKind.ATTENTION_VALUE]:
                given[operator.name] |= whole
            continue
        if operator.name not in routed and any(name in routed for name in operator.depends_on):
            needed.update(experts[-1:])
        after |= dict.fromkeys(mine, needed)
        given[operator.name] = mine or needed
    if inputs is not None:
        sent = ids[id(inputs)]
        after[sent] = {each for name in read for each in given[name]}
        after |= {task: {last} for task, last in zip(experts, (sent, *experts), strict=False)}
    for chain in chains:
        for first, second in pairwise(chain):
            after.setdefault(ids[id(second)], set()).add(ids[id(first)])
    groups = {operator.name: operator.entries for operator in block.operators}
    feeding = _ancestors([ids[id(t)] for t in tasks if t.unit == "pim"], after)

    def linked(group: Iterable[Kept]) -> tuple[Kept, ...]:
        return tuple(
            replace(
                task, id=ids[id(task)], after=tuple(sorted(after.get(ids[id(task)], ()))),
                feeds_pim=ids[id(task)] in feeding,
                entries=task.entries or groups.get(task.name, ()),
            )
            for task in group
        )  # fmt: skip

    return BlockProgram(
        linked(program.before), linked(program.attention), linked(program.after),
        linked(program.late), linked(program.experts),
    )  # fmt: skip


def _ancestors(of: Iterable[TaskId], after: dict[TaskId, set[TaskId]]) -> set[TaskId]:
    """Tasks that those ``of`` wait for, however indirectly."""
    found: set[TaskId] = set()
    left = list(of)
    while left:
        for each in after.get(left.pop(), ()):
            if each not in found:
                found.add(each)
                left.append(each)
    return found


def _behind(program: BlockProgram, ends: Sequence[TaskId]) -> BlockProgram:
    """``program`` where whatever waits for nothing waits for ``ends``."""
    return BlockProgram(
        **{
            group.name: tuple(
                task if task.after else replace(task, after=tuple(ends))
                for task in getattr(program, group.name)
            )
            for group in fields(program)
        }
    )


def _ends(program: BlockProgram) -> tuple[TaskId, ...]:
    """Tasks that nothing of the block waits for."""
    waited = {each for task in program.tasks for each in task.after}
    return tuple(task.id for task in program.tasks if task.id not in waited)


class Program:
    """All tasks of a step; those of a block are made when somebody asks for them, and not kept.

    A block's first tasks wait for the last ones of the block before it in the same (sub-)batch;
    what lies outside the blocks waits for all of them.

    Parameters
    ----------
    parts
        (Sub-)batches.
    layers
        Blocks of each.
    block
        Makes the tasks of a block, by (sub-)batch and block, with the edges among themselves.
    outside
        What runs once beside the blocks: a label, and what makes its tasks, of the whole batch.
    """

    def __init__(
        self, parts: int, layers: int, block: Callable[[int, int], BlockProgram],
        outside: Sequence[tuple[str, Callable[[], BlockProgram]]] = (),
    ) -> None:  # fmt: skip
        self.parts = range(parts)
        self.layers = layers
        self._block = block
        self._outside = tuple(outside)
        self._block_ends: dict[tuple[int, int], tuple[TaskId, ...]] = {}
        self._names: dict[TaskId, str] = {}

    @classmethod
    def of(cls, *tasks: NpuTask) -> Program:
        """A program of one block with ``tasks``, one after the other."""
        ids = [TaskId(0, 0, at) for at in range(len(tasks))]
        linked = tuple(
            replace(task, id=own, after=tuple(ids[:at][-1:]))
            for at, (task, own) in enumerate(zip(tasks, ids, strict=True))
        )
        return cls(1, 1, lambda part, layer: BlockProgram(linked, (), ()))

    def block(self, part: int, layer: int) -> BlockProgram:
        """Tasks of a block for one (sub-)batch."""
        made = self._block(part, layer)
        if layer:
            if (part, layer - 1) not in self._block_ends:
                self.block(part, layer - 1)
            made = _behind(made, self._block_ends[part, layer - 1])
        self._block_ends[part, layer] = _ends(made)
        self._names |= {task.id: task.name for task in made.tasks}
        return made

    def outside(self) -> Iterator[Barrier | AnyTask]:
        """What runs once behind the blocks, in order, a stage each."""
        last = self.layers - 1
        for label, make in self._outside:
            ends = [each for part in self.parts for each in self._block_ends.get((part, last), ())]
            yield Barrier(label)
            made = _behind(make(), ends)
            self._names |= {task.id: task.name for task in made.tasks}
            yield from made.tasks

    def name_of(self, task: Task | TaskId) -> str:
        """``fc1 of block 3, sub-batch 1``: as a message names a task."""
        own = task.id if isinstance(task, Task) else task
        part = f", sub-batch {own.part}" if len(self.parts) > 1 and own.part != WHOLE_BATCH else ""
        return f"{self._names.get(own, 'task')} of block {own.block}{part}"

    def missing(self, done: Container[TaskId]) -> list[str]:
        """What is not among ``done``, as a message names it."""
        found = [
            f"all of block {layer}" + (f", sub-batch {part}" if len(self.parts) > 1 else "")
            for part in self.parts
            for layer in range(self.layers)
            if (part, layer) not in self._block_ends
        ]
        return found + [self.name_of(each) for each in self._names if each not in done]
