"""What kernels of memories are made of: requests that are dealt to channels, samples of what their
channels count, rates of streams as commands show them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from cases import values


@values("memories/dealt")
def _dealt() -> Iterator[str]:
    """Bits of a channel in the middle of a burst's number, at its end and at its start."""
    from pimsim.hardware.dram.request_order import deal

    bursts = np.array([0, 1, 5, 8, 13, 64, 65, 100, 255, 256, 1023, 77], np.int64)
    operand = np.array([0, 0, 1, 1, 1, 2, 2, 0, 1, 2, 0, 2], np.int64)
    for (channels, low), parts in product(((1, 0), (2, 0), (4, 2), (4, 4), (8, 1)), (1, 3)):
        listed = np.zeros((len(bursts), 2), np.int64)
        width = channels.bit_length() - 1
        sizes = deal(bursts, operand, channels, parts, low, width, listed)
        yield f"{channels} channels, {parts} parts, low {low}: {sizes.tolist()}"
        yield f"  {listed.tolist()}"


@values("memories/samples")
def _samples() -> Iterator[str]:
    from pimsim.hardware.dram.channel_queues.layout import CHANNEL as QUEUED
    from pimsim.hardware.dram.layout import CHANNEL
    from pimsim.hardware.dram.samples import (
        N_SAMPLE,
        make_samples,
        next_sample,
        shares,
        sum_channels,
        sum_with_banks,
    )

    for name, kind in (("bank-queues", CHANNEL), ("channel-queues", QUEUED)):
        channels = np.zeros(3, kind)
        for number, channel in enumerate(channels):
            channel["counter"] = np.arange(channel["counter"].size) * (number + 1)
            channel["bus_until"] = (90, 250, 400)[number]
            channel["rank"][:2, 0] = ((0, 2), (1, 0), (3, 3))[number]
            channel["rank"][0, 1:3] = 30, 7
            channel["rank"][1, 1:3] = 120, 11
            if "columns_until" in (kind.names or ()):
                channel["columns_until"] = (50, 101, 333)[number]
        for ranks, now, scale in ((1, 0, 1), (2, 100, 1), (2, 100, 2), (2, 260, 1), (1, 500, 1)):
            sample = np.full(N_SAMPLE, -1, np.int64)
            sum_channels(channels, ranks, now, scale, sample)
            yield f"{name} {ranks} {now} {scale}: {sample.tolist()}"
            if name == "bank-queues":
                sum_with_banks(channels, ranks, now, sample)
                yield f"  with banks {sample.tolist()}"
    table, state = make_samples(10, 4)
    for now in (10, 20, 25, 30, 41, 55, 60, 90, 200, 201, 555):
        row = next_sample(table, state, now)
        yield f"at {now} row {row}, state {state.tolist()}, {table[:, -1].tolist()}"
    amounts = np.array([10, 7, 0, 5])
    for done in (0, 3, 5, 9, 10, 30):
        found = shares(np.array([3, 5, 5, 10]), np.array([9, 5, 7, 30]), np.array(done), amounts)
        yield f"shares at {done}: {found.tolist()}"


@values("memories/rates")
def _rates() -> Iterator[str]:
    """Of single streams, of those that follow one another, of scattered bursts."""
    from pimsim.config.loader import load_memory, load_pim
    from pimsim.hardware.dram.fast.probe import Probe
    from pimsim.hardware.dram.transfers import Scatter, Stream, scatter_table

    for name, design in (
        ("hbm2-neupims", "neupims"), ("hbm2", None), ("gddr6", None), ("lpddr5-6400", None),
        ("ddr5-4800", None),
    ):  # fmt: skip
        pim = None if design is None else load_pim(design).config
        memory = load_memory(name, ["organization.channels=2"]).config
        probe = Probe(memory, pim)
        yield f"=== {name}"
        for way, rate in (("reads", probe.reads), ("writes", probe.writes)):
            told = (rate.ticks, rate.latency, rate.bursts, rate.active, rate.cycles)
            yield f"{way} {told}, counts {rate.counts[rate.counts > 0].tolist()}"
        yield f"lags {probe.lags}, chains {probe.chains}"
        several = np.array([1, 2, 9, 64, 300, 5000])
        yield f"  between {probe.lag(several).tolist()}, {probe.chain_ticks(several).tolist()}"
        for before, own in (
            (Stream(0, 64), Stream(64, 64)), (Stream(0, 64), Stream(1 << 16, 64)),
            (Stream(0, 64, write=True), Stream(64, 64)),
            (Stream(0, 9), Stream(4096, 200, write=True)),
        ):  # fmt: skip
            lost = probe.lost_ticks(before, own)
            yield f"lost {before.write} {own.first_burst} {own.write}: {lost}"
        for scatters in (
            (Scatter(0, 0, 16, 32),),
            (Scatter(0, 5, 3, 1024), Scatter(0, 9, 3, 1024)),
        ):
            told = probe.scatter_ticks(scatter_table(scatters))
            yield f"scattered {[(s.first, s.count, s.stride) for s in scatters]}: {told}"
        yield f"from {[probe.cycles_from(at, Stream(0, 40)) for at in (0, 1, 1000)]}"


@values("results/fronts")
def _fronts() -> Iterator[str]:
    """Of points in two figures, whose order and whose ends must not matter."""
    from pimsim.report.sweep_charts import front_of, ticks_of

    points: dict[str, tuple[list[float], list[float]]] = {
        "none": ([], []), "one": ([1.0], [1.0]), "rising": ([1, 2, 3], [1, 2, 3]),
        "falling": ([3, 2, 1], [1, 2, 3]), "equal": ([1, 1, 1], [1, 1, 1]),
        "last is best": ([1, 2, 9], [5, 4, 1]), "ties": ([1, 2, 2, 3], [1, 2, 2, 2]),
        "mixed": ([5, 1, 4, 2, 3, 6], [3, 1, 1, 2, 9, 9]),
    }  # fmt: skip
    for name, (gains, costs) in points.items():
        found = front_of(gains, costs)
        yield f"{name}: {found}"
        turned = front_of(gains[::-1], costs[::-1])
        kept = [(gains[at], costs[at]) for at in found]
        assert sorted(kept) == sorted((gains[::-1][at], costs[::-1][at]) for at in turned)
    for at in ((1.0, 2.0, 4.0, 8.0), (1.0, 2.0, 3.0), (10.0,), (0.0, 5.0), (3.0, 24.0, 3.0)):
        ticks: Any = ticks_of(at)
        yield f"ticks of {at}: {ticks}"
