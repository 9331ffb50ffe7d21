"""Interpolated step times of a machine in closed form: what is exact, what bounds the error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pimsim.mapping.placement import split_sub_batches
from pimsim.serving.records import ENTRY, REQUEST
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import Batch, load_scheduler
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_log import StepLog
from pimsim.serving.step_times import ON_CHANNELS, Dealing, StepCost
from pimsim.serving.step_times.anchors import Anchor, Grid
from pimsim.serving.step_times.between import F_CONTEXT, F_FULLEST, N_FOUND, measure
from pimsim.serving.step_times.interpolated import Errors, Interpolated, _uniform
from pimsim.serving.step_times.simulated import Simulated
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.traffic import Traffic

LONGEST = 4096
TimeOf = Callable[["Machine", Step], float]


class Machine:
    """Whose steps take what ``time`` says, in microseconds; each channel attends at once."""

    parts = ("work", "static")
    max_context = LONGEST

    def __init__(self, time: TimeOf, channels: int = 4, sub_batches: int = 1) -> None:
        self._time = time
        self.channels = channels
        self.sub_batches = sub_batches
        self.pim_tokens = 0 if time is additive else 1
        self.least_loaded = True
        self.dealing = ON_CHANNELS
        self.asked: list[Step] = []

    @property
    def work(self) -> NDArray[np.int64]:
        return np.arange(self.max_context + 1, dtype=np.int64)

    @property
    def idle_w(self) -> NDArray[np.float64]:
        return np.array([0.0, 50.0])

    def cost(self, step: Step) -> StepCost:
        self.asked.append(step)
        time_us = self._time(self, step)
        return StepCost(
            round(time_us * 1e6), np.array([1e-6 * sum(step.contexts), 50e-6 * time_us])
        )

    def fullest(self, step: Step) -> int:
        """Keys of the fullest channel, of requests that decode."""
        load = [0] * self.channels
        for entry in step.entries:
            if entry.new_tokens == 1:
                load[entry.request.channel or 0] += entry.context
        return max(load)


def additive(machine: Machine, step: Step) -> float:
    """Tokens, keys of the fullest channel, and keys that prompts see, each at its price."""
    prompts = [entry for entry in step.entries if entry.new_tokens > 1]
    pairs = sum(entry.pairs() for entry in prompts)
    return 1000 + 20 * step.tokens + 0.5 * machine.fullest(step) + 1e-3 * pairs


def beside(machine: Machine, step: Step) -> float:
    """Keys in the cache that prompts see, beside those of the fullest channel."""
    prompts = [entry for entry in step.entries if entry.new_tokens > 1]
    past = sum(entry.new_tokens * (entry.context - entry.new_tokens) for entry in prompts)
    return 1000 + 20 * step.tokens + max(0.5 * machine.fullest(step), 1e-2 * past)


def filled(machine: Machine, step: Step) -> float:
    """Arrays that 48 tokens fill: as many take as long as fewer."""
    return 400 + 20 * max(step.tokens, 48) + 0.5 * machine.fullest(step)


def in_turn(machine: Machine, step: Step) -> float:
    """Products of a sub-batch beside attention of the one before: the longer of the two counts."""
    channel = [entry.request.channel or 0 for entry in step.entries]
    split = split_sub_batches(channel, channel, "per-channel", machine.sub_batches)
    parts = [Step(tuple(step.entries[at] for at in part)) for part in split if part]
    if len(parts) == 1:
        return 1000 + 20 * step.tokens + machine.fullest(step)
    return sum(
        max(1000 + 20 * part.tokens, 2.0 * machine.fullest(parts[at - 1]))
        for at, part in enumerate(parts)
    )


def fullest_place(dealing: Dealing, step: Step) -> int:
    """Keys of the place with the most, of requests that decode: head by head, as it is said."""
    contexts = [entry.context for entry in step.entries if entry.new_tokens == 1]
    load = [0] * dealing.places
    if dealing.longest_first:
        contexts.sort(reverse=True)
    for number, context in enumerate(each for each in contexts for _ in range(dealing.heads)):
        emptiest = load.index(min(load))
        load[emptiest if dealing.longest_first else number % dealing.places] += context
    return max(load)


def traffic(count: int = 40, gap_us: int = 20_000) -> Traffic:
    draw = np.random.default_rng(3)
    arrivals = np.cumsum(draw.integers(0, 2 * gap_us, count)) * 10**6
    return Traffic(arrivals, draw.integers(2, 900, count), draw.integers(2, 80, count))


def serve(times: Simulated, asked: Traffic | None = None) -> tuple[Service, StepLog]:
    kind = load_scheduler("vllm")
    settings = kind.Settings(name="vllm", max_num_seqs=32, max_num_batched_tokens=512)
    fleet = Fleet(kind, settings, times, 5000, 16, load_router("round_robin"))
    service, log = Service(traffic() if asked is None else asked, fleet), StepLog()
    service.run([log])
    log.flush()
    return service, log


def errors_of(machine: Machine, fineness: int = 0) -> NDArray[np.float64]:
    """Of all steps of a service, each simulated too."""
    times = Interpolated(machine, 10**6, 0, fineness)
    serve(times)
    return np.array([told / machine.cost(step).time_ps - 1 for told, step in times.sample])


@pytest.mark.parametrize("sub_batches", [1, 2])
def test_what_is_linear_between_anchors_is_exact(sub_batches: int) -> None:
    def linear(machine: Machine, step: Step) -> float:
        return 1000 + 20 * step.tokens + 0.5 * sum(step.contexts)

    # by the tokens of all requests, as one channel has them all; a prompt alone sees its own
    machine = Machine(linear, channels=1, sub_batches=sub_batches)
    decoding = Traffic(np.zeros(9, np.int64), np.full(9, 1), np.arange(9) * 30 + 200)
    times = Interpolated(machine, 10**6, 0)
    service, _ = serve(times, decoding)
    off = [told / machine.cost(step).time_ps - 1 for told, step in times.sample[1:]]
    assert np.abs(off).max() < 2e-3
    assert times.errors.worst < 2e-3
    assert (service.requests["finish_ps"] > 0).all()


@pytest.mark.parametrize(("time", "sub_batches"), [(additive, 1), (beside, 1), (in_turn, 2)])
@pytest.mark.parametrize("channels", [1, 4])
def test_errors_are_small_and_smaller_with_more_anchors(
    time: TimeOf, sub_batches: int, channels: int
) -> None:
    coarse, fine = (errors_of(Machine(time, channels, sub_batches), at) for at in (0, 2))
    assert np.abs(coarse).mean() < 0.02
    assert np.abs(coarse).max() < 0.15
    assert abs(coarse.mean()) < 0.01
    assert np.abs(fine).mean() < max(0.6 * np.abs(coarse).mean(), 2e-3)


@pytest.mark.parametrize("channels", [1, 4])
def test_rungs_are_close_where_few_tokens_fill_the_arrays(channels: int) -> None:
    # with rungs of 2, 11 and 64 tokens 5 and 11 %
    assert np.abs(errors_of(Machine(filled, channels))).max() < 0.04


@pytest.mark.parametrize("longest_first", [True, False])
@pytest.mark.parametrize(("places", "heads"), [(64, 8), (8, 3), (5, 2), (1, 8)])
def test_heads_that_a_design_deals_out_count_by_the_fullest_place(
    places: int, heads: int, longest_first: bool
) -> None:
    dealing = Dealing(places, heads, longest_first)

    def dealt(machine: Machine, step: Step) -> float:
        return 1000 + 20 * step.tokens + fullest_place(dealing, step)

    machine = Machine(dealt, channels=1)
    machine.dealing, machine.pim_tokens = dealing, 1
    off = errors_of(machine)
    assert np.abs(off).mean() < 0.005
    assert np.abs(off).max() < 0.06
    machine = Machine(dealt, channels=1)
    assert places == 1 or np.abs(errors_of(machine)).mean() > 2 * np.abs(off).mean()


@pytest.mark.parametrize("longest_first", [True, False])
def test_the_fullest_place_of_any_requests(longest_first: bool) -> None:
    draw = np.random.default_rng(2)
    work = np.arange(LONGEST + 1)
    nobody = np.zeros(40, dtype=REQUEST)
    for _ in range(60):
        count, parts = int(draw.integers(1, 40)), int(draw.integers(1, 3))
        dealing = Dealing(int(draw.integers(1, 20)), int(draw.integers(1, 9)), longest_first)
        entries = np.zeros(count, dtype=ENTRY)
        entries["request"] = np.arange(count)
        entries["new"] = draw.integers(1, 4, count)
        entries["context"] = draw.integers(4, 200, count)
        found, pieces = np.zeros((parts, N_FOUND)), np.zeros((count, 3), np.int64)
        scratch = np.zeros((parts, 1), np.int64), np.zeros((2, 1), np.int64)
        measure(
            entries, count, nobody, np.zeros(count, np.int32), work, 2, tuple(dealing), *scratch,
            found, pieces,
        )  # fmt: skip
        # two tokens attend as two requests; three are a piece of a prompt, on the NPU
        held = entries[entries["new"] <= 2]
        if parts == 1:
            step = Step(
                tuple(
                    StepEntry(Request(at, 0.0, 1, 1, 0, 0), 1, int(one["context"]))
                    for at, one in enumerate(held) for _ in range(one["new"])
                )
            ) if len(held) else None  # fmt: skip
            assert found[0, F_FULLEST] == (fullest_place(dealing, step) if step else 0)
        assert (found[:, F_FULLEST] * dealing.places >= found[:, F_CONTEXT] * dealing.heads).all()


def test_few_steps_are_simulated_and_the_rest_is_told_by_a_sample() -> None:
    machine = Machine(additive)
    times = Interpolated(machine, 16, 5)
    _, log = serve(times, traffic(200))
    anchors = len(machine.asked)
    assert times.simulated == anchors < log.steps / 4
    said = times.describe()
    assert len(machine.asked) == anchors + 16
    assert times.describe() == said
    assert len(machine.asked) == anchors + 16  # once
    assert said["steps"] == log.steps
    low, high = said["error_interval"]
    assert low < (low + high) / 2 == pytest.approx(said["error_mean"])
    found = np.array([told / machine.cost(step).time_ps - 1 for told, step in times.sample])
    own = Errors.of(found)
    assert [low, high] == [own.mean - own.half_width, own.mean + own.half_width]
    exact = errors_of(Machine(additive))
    assert low - 0.01 < exact.mean() < high + 0.01


def test_a_sample_that_was_simulated_before_is_known() -> None:
    known: dict[str, list[float]] = {}
    told = []
    for machine in (Machine(additive), Machine(additive)):
        times = Interpolated(machine, 16, 5, known=known)
        serve(times)
        told.append(times.errors)
    assert told[0] == told[1]
    assert machine.asked == []
    # another channel, another context or a token more is another step
    count = len(known)
    (_, step), *_ = times.sample
    first = step.entries[0]
    for other in (
        replace(first, context=first.context + 1),
        replace(first, request=replace(first.request, channel=3 - (first.request.channel or 0))),
        replace(first, new_tokens=first.new_tokens + 1, context=first.context + 1),
    ):
        times._true_ps(Step((other, *step.entries[1:])))
        count += 1
        assert len(known) == count
    times._true_ps(step)
    assert len(known) == count


def test_numbers_of_a_sample_are_splitmix64_s() -> None:
    """Vigna's generator (public domain), here in whole numbers without a width."""

    def mixed(state: int) -> int:
        state &= 2**64 - 1
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    for seed, number in ((0, 1), (5, 0), (5, 77), (2**63, 10**6)):
        whole = mixed(seed + number * 0x9E3779B97F4A7C15)
        assert _uniform(np.uint64(seed), np.uint64(number)) == ((whole >> 11) + 0.5) * 2.0**-53
    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first of seed 0


def test_the_sample_is_of_the_seed_and_by_time() -> None:
    samples = []
    for seed in (1, 1, 2):
        times = Interpolated(Machine(additive), 8, seed)
        serve(times)
        samples.append([told for told, _ in times.sample])
    assert samples[0] == samples[1] != samples[2]
    times = Interpolated(Machine(additive), 10**6, 0)
    serve(times)
    every = np.array([told for told, _ in times.sample], dtype=np.float64)
    drawn = np.concatenate([_drawn(seed) for seed in range(6)])
    assert drawn.mean() > 1.2 * every.mean()  # steps that take longer come more often
    assert drawn.mean() == pytest.approx((every**2).sum() / every.sum(), rel=0.25)


_KNOWN: dict[str, list[float]] = {}
"""Anchors of ``additive``'s machine, for services that are served often."""


def _drawn(seed: int) -> NDArray[np.float64]:
    times = Interpolated(Machine(additive), 16, seed, known=_KNOWN)
    serve(times)
    return np.array([told for told, _ in times.sample], dtype=np.float64)


def test_what_is_known_is_not_simulated_again() -> None:
    known: dict[str, list[float]] = {}
    first = Interpolated(Machine(additive), 4, 0, known=known)
    one, _ = serve(first)
    again = Interpolated(Machine(additive), 4, 0, known=known)
    two, _ = serve(again)
    assert (one.requests["finish_ps"] == two.requests["finish_ps"]).all()
    assert first.simulated == len(known) > 0 == again.simulated
    assert (again.joule == first.joule).all()


def test_energy_is_at_least_that_of_an_idle_machine_and_adds_up() -> None:
    machine = Machine(additive)
    times = Interpolated(machine, 4, 0)
    _, log = serve(times)
    exact = Simulated(Machine(additive))
    serve(exact)
    assert times.worked_ps == log.busy_ps
    static = 50 * times.worked_ps / 1e12
    assert times.joule[1] == pytest.approx(static, rel=0.01)
    assert times.joule[1] >= static * (1 - 1e-9)
    assert times.joule.sum() == pytest.approx(log.columns["dynamic_j"].sum() + static)
    assert times.joule[0] == pytest.approx(exact.joule[0], rel=0.02)


def test_requests_keep_their_channels_and_new_ones_take_the_emptiest() -> None:
    machine = Machine(additive)
    simulated = Simulated(machine)
    serve(simulated)
    channel: dict[int, int] = {}
    for step in machine.asked:
        load = [0] * machine.channels
        for entry in step.entries:
            request = entry.request
            assert request.channel is not None
            if entry.context > entry.new_tokens:
                assert channel[request.id] == request.channel
                load[request.channel] += entry.context
        for entry in step.entries:
            if entry.context == entry.new_tokens:
                own = entry.request.channel or 0
                assert load[own] == min(load)
                load[own] += entry.context
                channel[entry.request.id] = own


def test_steps_of_anchors_are_what_they_say() -> None:
    step = Anchor(3, 500, 100, 3, 40, logits=False).step(2)
    assert step.new_tokens == (1, 1, 1, 33, 33, 34)
    assert step.contexts == (250, 500, 250, 73, 73, 74)
    assert [entry.logits for entry in step.entries] == [1, 1, 1, 0, 0, 0]
    assert [entry.request.channel for entry in step.entries] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("requests", [1, 2, 7, 8, 24])
def test_sub_batches_of_anchors_are_alike_and_end_with_the_longest(requests: int) -> None:
    contexts = Anchor(requests, 800).step(8, 2).contexts
    assert max(contexts) == 800
    if requests % 8 == 0:
        assert contexts[0] == contexts[1] < contexts[2] == contexts[3] < contexts[7]
        assert contexts[:8] == contexts[-8:]
        assert np.mean(contexts) == 500


@pytest.mark.parametrize("longest", [64, 2048, 131072])
def test_anchors_are_no_longer_than_a_context(longest: int) -> None:
    grid = Grid.of(longest)
    for at in range(np.searchsorted(grid.tokens, 8 * longest if longest < 1000 else 4096)):
        for split in range(len(grid.splits)):
            step = grid.prompt(at, split, 2).step(4, 2)
            assert max(step.contexts) <= longest
            assert step.tokens == 2 * grid.tokens[at]
        for past in range(grid.pasts.shape[1]):
            assert max(grid.behind(at, past).step(4).contexts) <= longest
        assert grid.pasts[at, 0] == 0
        assert (np.diff(grid.pasts[at]) >= 0).all()
    assert grid.contexts[-1] == longest
    assert 1 <= grid.some < len(grid.contexts)


def test_errors_by_hand() -> None:
    found = Errors.of(np.array([0.01, 0.03, -0.01]))
    assert found.mean == pytest.approx(0.01)
    assert found.half_width == pytest.approx(4.303 * 0.02 / math.sqrt(3))
    assert (found.absolute, found.worst) == (pytest.approx(0.05 / 3), 0.03)
    assert found.bound == pytest.approx(0.01 + found.half_width)
    many = Errors.of(np.array([0.01, 0.03] * 15))
    assert many.half_width == pytest.approx(
        2.0452 * np.std([0.01, 0.03] * 15, ddof=1) / 30**0.5, rel=1e-3
    )
    assert Errors.of(np.zeros(0)).sampled == 0


def test_a_step_between_is_the_same_whatever_batch_holds_it() -> None:
    """Entries in an array that was longer, of a step made by hand."""
    machine = Machine(additive)
    asked = np.zeros(3, dtype=REQUEST)
    asked["length"], asked["computed"] = 100, (99, 150, 0)
    batch = Batch(8, asked)
    batch.entries[:2] = np.array([(0, 1, 100, 0), (1, 1, 151, 0)], dtype=ENTRY)
    batch.requests = 2
    found: list[Any] = []
    for junk in (0, 7):
        batch.entries["context"][2:] = junk
        found.append(Interpolated(machine, 2, 0).duration_ps(batch))
    assert found[0] == found[1]
    assert found[0] / 1e6 == pytest.approx(1000 + 40 + 75.5, rel=0.02)
