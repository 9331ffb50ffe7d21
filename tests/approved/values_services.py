"""What steps take that are not simulated: interpolated ones of machines in closed form, layers that
were measured, anchors, and the gaps between tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from cases import values
from facts import facts, number_text


class _Machine:
    """Whose steps take what a formula says, of products and of the fullest channel."""

    parts = ("work", "static")
    max_context = 2048
    least_loaded = True

    def __init__(
        self, channels: int, sub_batches: int, pim_tokens: int, places: int, heads: int,
        longest_first: bool,
    ) -> None:  # fmt: skip
        from pimsim.serving.step_times import Dealing

        self.dealing = Dealing(places, heads, longest_first)
        self.channels = channels
        self.sub_batches = sub_batches
        self.pim_tokens = pim_tokens
        self.work = np.arange(self.max_context + 1, dtype=np.int64) // 3 + 1
        self.idle_w = np.array([0.0, 50.0])

    def cost(self, step: Any) -> Any:
        from pimsim.serving.step_times import StepCost

        load = [0] * (self.dealing.places or self.channels)
        pairs = dealt = 0
        entries = list(step.entries)
        if self.dealing.longest_first:
            entries.sort(key=lambda entry: -entry.context)
        for entry in entries:
            own = int(self.work[entry.context])
            if entry.new_tokens <= max(self.pim_tokens, 1) and self.dealing.places:
                for _ in range(self.dealing.heads * entry.new_tokens):
                    emptiest = load.index(min(load))
                    load[emptiest if self.dealing.longest_first else dealt % len(load)] += own
                    dealt += 1
            elif entry.new_tokens <= max(self.pim_tokens, 1):
                load[entry.request.channel or 0] += own * entry.new_tokens
            else:
                pairs += entry.new_tokens * (entry.context - entry.new_tokens // 2)
        made = sum(entry.logits for entry in step.entries)
        products = 900 + 11 * step.tokens + 5 * made
        beside = max(max(load), 2 * pairs // 100) if self.pim_tokens else max(load) + pairs // 100
        time_ps = 1_000_000 * (products + beside)
        joule = np.array([1e-6 * sum(step.contexts) + 3e-6 * step.tokens, 50e-12 * time_ps])
        return StepCost(time_ps, joule)


def _steps() -> dict[str, list[tuple[int, int, int, bool]]]:
    """New tokens, context, drafts of each request, and whether its known tokens end."""
    return {
        "one": [(1, 100, 0, True)],
        "nine": [(1, 53 + 90 * at, 0, True) for at in range(9)],
        "at rungs": [(1, 512, 0, True)] * 4,
        "the longest": [(1, 2048, 0, True)] * 17,
        "a prompt": [(300, 300, 0, True)],
        "a piece": [(256, 256, 0, False)],
        "a piece behind a past": [(256, 1024, 0, False)],
        "a last piece behind a past": [(200, 1200, 0, True), (1, 30, 0, True)],
        "prompts": [(100, 100, 0, True), (33, 33, 0, True), (700, 700, 0, True)],
        "mixed": [*((1, 200 + 41 * at, 0, True) for at in range(12)), (300, 300, 0, True)],
        "mixed, behind a past": [
            *((1, 900 + at, 0, True) for at in range(30)), (128, 1500, 0, False),
            (64, 64, 0, True),
        ],
        "drafts": [(3, 300, 2, True), (3, 700, 2, True), (1, 500, 0, True), (4, 90, 3, True)],
    }  # fmt: skip


@values("services/interpolated")
def _interpolated() -> Iterator[str]:
    """Steps one by one, and what is said of all of them."""
    from pimsim.serving.records import ENTRY, REQUEST
    from pimsim.serving.schedulers import Batch
    from pimsim.serving.step_times.interpolated import Interpolated

    on_channels = 0, 1, False
    for channels, parts, pim_tokens, fineness, dealing in (
        (1, 1, 0, 0, on_channels), (4, 1, 1, 0, on_channels), (4, 2, 1, 0, on_channels),
        (3, 2, 3, 0, on_channels), (4, 3, 1, 1, on_channels), (2, 2, 0, 1, on_channels),
        (1, 1, 1, 0, (16, 4, True)), (1, 2, 3, 0, (6, 5, True)), (1, 1, 1, 1, (7, 3, False)),
    ):  # fmt: skip
        machine = _Machine(channels, parts, pim_tokens, *dealing)
        times: Any = Interpolated(machine, 5, 7, fineness)
        yield f"=== {channels} channels, {parts} sub-batches, {pim_tokens} on PIM, {fineness}"
        if dealing != on_channels:
            yield f"dealt: {machine.dealing}"
        for name, given in _steps().items():
            asked = np.zeros(len(given), REQUEST)
            batch = Batch(len(given) + 3, asked)
            for row, (new, context, drafts, ends) in enumerate(given):
                batch.entries[row] = np.array((row, new, context, drafts), ENTRY)
                computed = context - new
                asked["computed"][row] = computed
                asked["length"][row] = computed + new - drafts + (0 if ends else 50)
            batch.requests = len(given)
            took = times.duration_ps(batch)
            yield f"{name}: {took} ps, {number_text(batch.dynamic_j)} J, {times.simulated} anchors"
        yield f"joule {[number_text(each) for each in times.joule]}, {times.worked_ps} ps"
        yield f"anchors {sorted(times.known)}"
        yield from facts(times.describe(), "said")


@values("services/anchors")
def _anchors() -> Iterator[str]:
    from pimsim.serving.step_times.anchors import Anchor, Grid

    for most, fineness in product((1, 53, 300, 4096, 131072), (0, 1)):
        grid = Grid.of(most, fineness)
        yield f"=== {most}, {fineness}: some {grid.some}"
        for name in ("requests", "contexts", "tokens", "splits", "wanted"):
            yield from facts(getattr(grid, name), name)
        yield from facts(grid.pasts[::7], "pasts")
        for anchor in (
            grid.decode(2, len(grid.contexts) - 1), grid.prompt(9, 0, 1), grid.prompt(9, 2, 3),
            grid.behind(8, 1), grid.head(True), grid.head(False),
        ):  # fmt: skip
            yield f"{anchor.key} {anchor}"
    for anchor, channels, parts in (
        (Anchor(7, 500), 3, 1), (Anchor(7, 500), 3, 2), (Anchor(2, 500, 100, 3, 40), 4, 2),
        (Anchor(0, 0, 10, 4, 5, logits=False), 2, 1), (Anchor(9, 1), 4, 3),
    ):  # fmt: skip
        step = anchor.step(channels, parts)
        told = [(e.new_tokens, e.context, e.logits, e.request.channel) for e in step.entries]
        yield f"{anchor.key} on {channels} in {parts}: {told}"


@values("services/measured")
def _measured() -> Iterator[str]:
    """Layers by hand: 1 us a token of each layer, and attention by a plane."""
    from pimsim.serving.records import ENTRY
    from pimsim.serving.schedulers import Batch
    from pimsim.serving.step_times.profile import load_profile

    tables = {
        "dense.csv": ["layer,tokens,time_us"] + [
            f"{layer},{tokens},{each + tokens * 1.5}"
            for each, layer in enumerate(("embedding", "layernorm", "qkv", "final_layernorm"))
            for tokens in (1, 16, 100, 700)
        ],
        "per_sequence.csv": ["layer,sequences,time_us"] + [
            f"head,{n},{n + 0.25}" for n in (1, 2, 40)
        ],
        "attention.csv": ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"] + [
            f"{chunk},{before},{n},{context},{chunk * (before + 7) / 9 + n * (context + 3) / 5}"
            for chunk, before, n, context in product(
                (0, 64, 512), (0, 1000), (0, 1, 8, 32), (0, 128, 900)
            )
            if (chunk or n) and (n or not context) and (context or not n)
            and (chunk or not before) and not (chunk and n > 8)
        ],
    }  # fmt: skip
    steps = {
        "a token": [(1, 128)], "tokens": [(1, 100), (1, 301), (1, 899)], "many": [(1, 500)] * 32,
        "a prompt": [(64, 64)], "a piece": [(100, 700)], "two pieces": [(50, 50), (200, 1100)],
        "beside": [(100, 300), (1, 200), (1, 400)], "beside many": [(300, 310), *[(1, 77)] * 20],
        "too many tokens": [(701, 701)], "too many requests": [(1, 9)] * 41,
        "too long a piece": [(513, 513)], "too much before": [(10, 1011)],
        "too many beside": [(1, 9)] * 33, "too long": [(1, 901)],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in tables.items():
            (Path(folder) / name).write_text("\n".join(lines) + "\n")
        for layers in (1, 3):
            profile = load_profile(folder, layers)
            yield from facts(profile.dense_ps[[0, 1, 2, 15, 16, 17, 99, 100, 700]], "dense")
            yield from facts(profile.sequences_ps, "sequences")
            yield f"beside {profile.beside}"
            for name, given in steps.items():
                batch = Batch(len(given))
                for row, (new, context) in enumerate(given):
                    batch.entries[row] = np.array((row, new, context, 0), ENTRY)
                batch.requests = len(given)
                batch.tokens = sum(new for new, _ in given)
                try:
                    yield f"{layers} {name}: {profile.duration_ps(batch)}"
                except Exception as error:
                    yield f"{layers} {name}: {str(error).removeprefix(folder)}"


@values("services/gaps")
def _gaps() -> Iterator[str]:
    from pimsim.serving.gaps import gap_percentile, mean_gap_ps, new_gaps, note_gap

    gaps = new_gaps()
    yield f"none: {mean_gap_ps(gaps)} {gap_percentile(gaps, 0.5)}"
    for number, (gap, times) in enumerate(
        ((0, 1), (1, 2), (1000, 1), (1001, 3), (4096, 1), (10**9, 4), (10**12 + 1, 1), (2**40, 2))
    ):
        note_gap(gaps, gap, times)
        yield f"{number}: mean {number_text(mean_gap_ps(gaps))}"
        told = [number_text(gap_percentile(gaps, share)) for share in (0, 0.1, 0.5, 0.9, 0.99, 1)]
        yield f"  {' '.join(told)}, bins {np.flatnonzero(gaps).tolist()}"
