"""Schedules: every task once and after what it needs, stages, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.engine.dispatch import UNITS, Dispatch
from pimsim.engine.schedules import Schedule, load_schedule
from pimsim.engine.schedules.blocked import Blocked
from pimsim.engine.schedules.greedy import Greedy
from pimsim.mapping.barrier import Barrier
from pimsim.mapping.program import AnyTask, Program, link_block
from pimsim.mapping.tasks import WHOLE_BATCH, BlockProgram, NpuTask, PimTask, TaskId
from pimsim.workload.operators import Block, Operator, OperatorKind

POLICIES = module_names("policy")
K = OperatorKind


def operator(name: str, kind: OperatorKind, *needs: str) -> Operator:
    return Operator(name, kind, depends_on=needs)


DENSE = Block(
    "dense",
    (
        operator("norm", K.NORM),
        operator("qkv", K.GEMM, "norm"),
        operator("append", K.KV_APPEND, "qkv"),
        operator("score", K.ATTENTION_SCORE, "qkv"),
        operator("softmax", K.SOFTMAX, "score"),
        operator("value", K.ATTENTION_VALUE, "softmax"),
        operator("proj", K.GEMM, "value"),
        operator("reduce", K.COLLECTIVE, "proj"),
        operator("sum", K.ELEMENTWISE, "reduce"),
    ),
)
MOE = Block(
    "moe",
    (
        *DENSE.operators,
        operator("router", K.ROUTER, "sum"),
        operator("shared", K.GEMM, "sum"),
        operator("expert1", K.EXPERT_GEMM, "sum", "router"),
        operator("act", K.ACTIVATION, "expert1"),
        operator("expert2", K.EXPERT_GEMM, "act"),
        operator("combine", K.ELEMENTWISE, "expert2", "router", "shared"),
    ),
)


ATTENDS = ("score", "softmax", "value")


def npu(name: str, layer: int, unit: str = "vector", **more: Any) -> NpuTask:
    return NpuTask(name, "any", unit, layer, 0, 0, 0, **more)


def pim(name: str, layer: int) -> PimTask:
    return PimTask(name, "any", "pim", layer, 0, 0, 0)


def block(part: int, layer: int, moe: bool = False, on_pim: bool = True) -> BlockProgram:
    """Tasks of ``DENSE`` or ``MOE``, the latter's experts on both sides."""

    def at(name: str, unit: str = "vector") -> NpuTask:
        return npu(name, layer, unit)

    attention: tuple[AnyTask, ...] = (pim("score", layer), pim("value", layer))
    if not on_pim:
        attention = (at("score"), at("softmax"), at("value"))
    inputs = at("inputs", "dma")
    groups = BlockProgram(
        (at("norm"), at("qkv", "systolic"), at("append", "dma")), attention,
        (at("proj", "systolic"), at("reduce", "link"), at("sum")),
    )  # fmt: skip
    if not moe:
        return link_block(groups, DENSE, part, layer, ATTENDS)
    groups = replace(
        groups,
        after=(*groups.after, at("router"), inputs, at("shared", "systolic")),
        late=(at("expert1", "systolic"), at("act"), at("expert2", "systolic"), at("combine")),
        experts=(pim("expert1", layer), pim("expert2", layer)),
    )
    routed = {"expert1", "act", "expert2"}
    return link_block(groups, MOE, part, layer, ATTENDS, inputs, {"sum", "router"}, routed)


def program(parts: int = 1, layers: int = 2, moe: bool = False, on_pim: bool = True) -> Program:
    def beside() -> BlockProgram:
        tasks = (npu("norm", layers), npu("qkv", layers, "systolic"))
        head = Block("head", DENSE.operators[:2])
        return link_block(BlockProgram(tasks, (), ()), head, WHOLE_BATCH, layers)

    make: Callable[[int, int], BlockProgram] = lambda p, at: block(p, at, moe, on_pim)  # noqa: E731
    return Program(parts, layers, make, [("outside", beside)])


@dataclass
class Trace:
    """When each task ran, and in which stage."""

    start: dict[TaskId, int] = field(default_factory=dict)
    end: dict[TaskId, int] = field(default_factory=dict)
    tasks: dict[TaskId, AnyTask] = field(default_factory=dict)
    unit: dict[TaskId, str] = field(default_factory=dict)
    stages: list[tuple[str, list[str]]] = field(default_factory=list)


def done(schedule: Schedule, work: Program, times: Sequence[int] = (3,)) -> Trace:
    """Do all of ``work``; tasks take ``times`` in turn."""
    env, trace = simpy.Environment(), Trace()
    dispatch = Dispatch(env, work, schedule, lambda task: False)

    def run(unit: str) -> Callable[[AnyTask, Sequence[AnyTask]], Iterator[Any]]:
        def run(task: AnyTask, following: Sequence[AnyTask]) -> Iterator[Any]:
            assert task.id not in trace.start, "done twice"
            trace.start[task.id], trace.tasks[task.id] = int(env.now), task
            trace.unit[task.id] = unit
            trace.stages[-1][1].append(f"{task.name}{task.id.part}/{task.id.block}")
            yield env.timeout(times[len(trace.start) % len(times)])
            trace.end[task.id] = int(env.now)

        return run

    def step() -> Iterator[Any]:
        while (label := dispatch.begin()) is not None:
            trace.stages.append((label, []))
            sides = [
                env.process(dispatch.serve(unit, run(unit)))  # type: ignore[arg-type]
                for unit in UNITS if dispatch.has_work(unit)
            ]  # fmt: skip
            if sides:
                yield simpy.AllOf(env, sides)

    env.run(until=env.process(step()))  # type: ignore[arg-type]
    return trace


# laws of every schedule ---------------------------------------------------------------------------


@given(
    st.sampled_from(POLICIES), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans(),
    st.lists(st.integers(1, 40), min_size=1, max_size=7),
)  # fmt: skip
def test_every_task_runs_once_and_after_what_it_needs(
    policy: str, layers: int, parts: int, moe: bool, on_pim: bool, times: list[int]
) -> None:
    schedule = load_schedule(policy)()
    parts = min(parts, schedule.max_parts or parts)
    work = program(parts, layers, moe, on_pim)
    trace = done(schedule, work, times)
    each = len(block(0, 0, moe, on_pim).tasks)
    assert len(trace.end) == each * parts * layers + 2
    for own, task in trace.tasks.items():
        assert all(trace.end[before] <= trace.start[own] for before in task.after)
    # a sub-batch's blocks follow one another; what lies outside follows all
    for part in range(parts):
        ends = [
            max(t for own, t in trace.end.items() if own[:2] == (part, at)) for at in range(layers)
        ]
        starts = [
            min(t for own, t in trace.start.items() if own[:2] == (part, at))
            for at in range(layers)
        ]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    outside = [own for own in trace.start if own.part == WHOLE_BATCH]
    others = max(t for own, t in trace.end.items() if own.part != WHOLE_BATCH)
    assert all(trace.start[own] >= others for own in outside)
    # a unit does one task at a time
    for unit in UNITS:
        spans = sorted((trace.start[o], trace.end[o]) for o, u in trace.unit.items() if u == unit)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_what_is_not_at_once_is_not() -> None:
    for policy in (name for name in POLICIES if not load_schedule(name).at_once):
        trace = done(load_schedule(policy)(), program(1, 3))
        spans = [(trace.start[o], trace.end[o], u == "pim") for o, u in trace.unit.items()]
        for start, end, _ in (span for span in spans if span[2]):
            assert all(b <= start or end <= a for a, b, is_pim in spans if not is_pim)


def test_two_sub_batches_are_at_once_where_a_schedule_says_so() -> None:
    for policy in POLICIES:
        schedule = load_schedule(policy)
        if schedule.max_parts == 1:
            continue
        trace = done(schedule(), program(2, 4), [10])
        pim_spans = [(trace.start[o], trace.end[o]) for o, u in trace.unit.items() if u == "pim"]
        npu_spans = [(trace.start[o], trace.end[o]) for o, u in trace.unit.items() if u == "npu"]
        shared = sum(
            max(min(b, d) - max(a, c), 0) for a, b in pim_spans for c, d in npu_spans
        )  # fmt: skip
        assert shared >= 0.5 * sum(b - a for a, b in pim_spans), policy


# the graph ----------------------------------------------------------------------------------------


def edges(of: BlockProgram) -> dict[str, set[str]]:
    names = {task.id: task.name + "!" * (task.unit == "pim") for task in of.tasks}
    return {names[task.id]: {names[each] for each in task.after} for task in of.tasks}


def test_the_edges_of_a_block_are_its_operators() -> None:
    assert edges(block(0, 0, moe=True)) == {
        "norm": set(), "qkv": {"norm"}, "append": {"qkv"},
        # the softmax has no task on PIM; the cache holds the new token before it is read
        "score!": {"qkv", "append"}, "value!": {"score!", "append"},
        "proj": {"value!"}, "reduce": {"proj"}, "sum": {"reduce"}, "router": {"sum"},
        "shared": {"sum"}, "inputs": {"sum", "router"},
        "expert1": {"sum", "router"}, "act": {"expert1"}, "expert2": {"act"},
        "expert1!": {"inputs"}, "expert2!": {"expert1!"},
        "combine": {"expert2", "router", "shared", "expert2!"},
    }  # fmt: skip
    on_npu = edges(block(0, 0, on_pim=False))
    assert on_npu["softmax"] == {"score", "append"} and on_npu["value"] == {"softmax", "append"}


def test_attention_of_prompts_beside_pim_waits_for_its_own_side() -> None:
    """A task does all of attention of some requests, PIM that of the others."""
    groups = block(0, 0)
    tiled = npu("tiles", 0, "systolic")
    on_npu = (npu("score", 0), npu("softmax", 0), npu("value", 0))
    mixed = replace(groups, attention=(*groups.attention, *on_npu, tiled))
    linked = link_block(mixed, DENSE, 0, 0, ATTENDS)
    found = edges(linked)
    assert found["tiles"] == {"qkv", "append"}
    assert found["value!"] == {"score!", "append"}
    assert found["softmax"] == {"score", "append"} and found["value"] == {"softmax", "append"}
    assert found["proj"] == {"value!", "value", "tiles"}


def test_what_feeds_pim_says_so() -> None:
    feeding = {task.name for task in block(0, 0, moe=True).tasks if task.feeds_pim}
    assert feeding == {
        "norm", "qkv", "append", "score", "value", "proj", "reduce", "sum", "router", "inputs",
        "expert1",
    }  # fmt: skip
    assert not any(task.feeds_pim for task in block(0, 0, on_pim=False).tasks)


def test_blocks_wait_for_the_one_before_whoever_asks_first() -> None:
    work = program(2, 3)
    third = work.block(1, 2)  # nobody asked for the second
    assert third.before[0].after == (TaskId(1, 1, block(1, 1).tasks[-1].id.number),)
    assert work.block(1, 0).before[0].after == ()


# stages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["serial", "blocked", "interleaved", "rotating"])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_one_batch_repeats_a_b_e(policy: str, layers: int) -> None:
    trace = done(load_schedule(policy)(), program(1, layers))
    assert [name for name, _ in trace.stages] == [*["A", "B", "E"] * layers, "outside"]
    for at in range(layers):
        assert [own for _, own in trace.stages[3 * at : 3 * at + 3]] == [
            [f"norm0/{at}", f"qkv0/{at}", f"append0/{at}"],
            [f"score0/{at}", f"value0/{at}"],
            [f"proj0/{at}", f"reduce0/{at}", f"sum0/{at}"],
        ]


def test_the_stages_of_two_blocks_are_the_papers() -> None:
    # MECHANISMS 4.8
    def both(npu_side: Sequence[str], pim_side: str = "") -> set[str]:
        groups = {"qkv": ("norm", "qkv", "append"), "rest": ("proj", "reduce", "sum")}
        found = {
            f"{name}{part[-1]}/{at}"
            for part, at in (each.split("/") for each in npu_side)
            for name in groups[part[:-1]]
        }
        return found | ({f"score{pim_side}", f"value{pim_side}"} if pim_side else set())

    trace = done(load_schedule("interleaved")(), program(2, 2))
    assert [(name, set(own)) for name, own in trace.stages[:-1]] == [
        ("A", both(["qkv0/0"])),
        ("B", both(["qkv1/0"], "0/0")),
        ("C", both(["rest0/0", "qkv0/1"], "1/0")),
        ("D", both(["rest1/0", "qkv1/1"], "0/1")),
        ("E", both(["rest0/1"], "1/1")),
        ("F", both(["rest1/1"])),
    ]
    again = done(load_schedule("rotating")(), program(2, 2))
    assert [own for _, own in again.stages] == [own for _, own in trace.stages]


def test_three_sub_batches_take_turns() -> None:
    trace = done(load_schedule("rotating")(), program(3, 2))
    attends = [[each for each in own if each.startswith("score")] for _, own in trace.stages[:-1]]
    assert attends == [
        [], ["score0/0"], ["score1/0"], ["score2/0"], ["score0/1"], ["score1/1"], ["score2/1"],
        [], [],
    ]  # fmt: skip


def test_the_npu_waits_for_pim_s_experts_where_they_are_not_at_once() -> None:
    trace = done(Blocked(), program(1, 1, moe=True), [10])
    start = {(t.name, t.unit): trace.start[own] for own, t in trace.tasks.items()}
    end = {(t.name, t.unit): trace.end[own] for own, t in trace.tasks.items()}
    assert start["expert1", "systolic"] == end["expert2", "pim"]
    beside = done(load_schedule("interleaved")(), program(1, 1, moe=True), [10])
    own = {(t.name, t.unit): own for own, t in beside.tasks.items()}
    assert beside.start[own["expert1", "systolic"]] < beside.end[own["expert2", "pim"]]


def test_greedy_feeds_pim_first_and_links_work_beside() -> None:
    trace = done(Greedy(), program(3, 2), [10])
    began = sorted(trace.start, key=lambda own: trace.start[own])
    names = [f"{trace.tasks[own].name}{own.part}/{own.block}" for own in began]
    # the second's QKV before anything that PIM does not wait for
    assert names.index("append1/0") < names.index("proj0/0")
    spans = {
        unit: [(trace.start[o], trace.end[o]) for o, u in trace.unit.items() if u == unit]
        for unit in UNITS
    }
    assert len(spans["link"]) == 6
    assert any(a < d and c < b for a, b in spans["link"] for c, d in spans["npu"])


def test_greedy_takes_what_pim_waits_for_then_the_earliest_block() -> None:
    rest, early, late = block(0, 0).after[0], block(1, 1).before[0], block(0, 2).before[0]
    assert Greedy().choose("npu", [rest, late, early]) is early
    assert Greedy().choose("npu", [block(1, 1).after[0], rest]) is rest


def test_pim_lets_what_is_ready_pass_what_waits() -> None:
    """Stage C: experts of the first sub-batch are given first, but wait for the NPU."""
    trace = done(load_schedule("interleaved")(), program(2, 2, moe=True), [10])
    stage = dict(trace.stages)["C"]
    assert stage.index("score1/0") < stage.index("inputs0/0")
    on_pim = [trace.tasks[own] for own in trace.start if trace.unit[own] == "pim"]
    order = [f"{task.name}{task.id.part}/{task.id.block}" for task in on_pim]
    assert order.index("score1/0") < order.index("expert10/0")


def test_no_more_than_the_next_block_is_made() -> None:
    made: list[tuple[int, int]] = []
    ended: list[int] = []

    def make(part: int, at: int) -> BlockProgram:
        made.append((part, at))
        return block(part, at)

    work = Program(1, 6, make)

    class Watched(Greedy):
        def choose(self, unit: str, ready: Sequence[AnyTask]) -> AnyTask:
            ended.append(max(at for _, at in made) - min(task.id.block for task in ready))
            return super().choose(unit, ready)

    done(Watched(), work)
    assert len(made) == 6 and max(ended) <= 2


# wrong ones ---------------------------------------------------------------------------------------


class Forgets(Schedule):
    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        for task in super().order(program):
            if task.id.block != 1 or task.name != "sum":  # type: ignore[union-attr]
                yield task


class ForgetsABlock(Schedule):
    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        yield from program.block(0, 0).tasks


class ForgetsInTheMiddle(Schedule):
    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        return (t for t in super().order(program) if t.name != "qkv")  # type: ignore[union-attr]


class Twice(Schedule):
    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        yield from super().order(program)
        yield from program.block(0, 1).before


class Backwards(Schedule):
    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        yield from reversed(list(super().order(program)))


class BarrierBefore(Schedule):
    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        tasks = program.block(0, 0).tasks
        yield from tasks[1:]
        yield Barrier("too early")
        yield tasks[0]


class TakesWhatWaits(Greedy):
    def choose(self, unit: str, ready: Sequence[AnyTask]) -> AnyTask:
        return block(0, 0).after[-1]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (Forgets, "forgets sum of block 1"),
        (ForgetsABlock, "forgets all of block 1"),
        (ForgetsInTheMiddle, "forgets qkv of block 0, qkv of block 1"),
        (Twice, "gives norm of block 1 twice"),
        (Backwards, "deadlocks"),
        (BarrierBefore, "waits qkv of block 0 for norm of block 0"),
        (TakesWhatWaits, "takes sum of block 0, which is not ready; ready are norm of block 0"),
    ],
)
def test_a_wrong_schedule_is_one_line_that_names_the_tasks(
    schedule: type[Schedule], told: str
) -> None:
    with pytest.raises(InputError) as error:
        done(schedule(), program(1, 2))
    assert told in str(error.value)
    assert str(error.value).startswith("schedule.policy 'test_schedules'")
    assert "\n" not in str(error.value)
