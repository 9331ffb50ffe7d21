"""Rings of sliding windows: a piece of a prompt finds the tokens that its first one sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.loader import load_memory, load_pim, load_run
from pimsim.engine.device import Device
from pimsim.hardware.dram.layout import P_COMPS, P_OP, P_ROW
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.transfers import Rows
from pimsim.hardware.pim.kv_layout import RowRuns, ring_spans
from pimsim.hardware.pim.programs import AttentionShape, score_program, value_program
from pimsim.mapping.attention import AttentionBatch, value_work
from pimsim.mapping.kv_cache import CacheKind, KvCache
from pimsim.mapping.linear_kv import LinearLayout
from pimsim.mapping.tasks import NpuTask, PimTask
from pimsim.simulate import devices_of, resolve, simulate
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.instantiate import held_bytes
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry

WINDOW = 100


# places -------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2000))
def test_new_tokens_take_no_place_that_one_of_them_sees(window: int, new: int, cached: int) -> None:
    """One place fewer, and the last new token lies where the first one still looks."""
    kind = CacheKind(LinearLayout(1, 64, 0, 64).sections, window=window)
    ring = kind.ring(new)
    assert ring == window + new - 1
    first = max(cached - window + 1, 0)
    spans = ring_spans(first, cached + new, ring)
    places = [place for span in spans for place in span]
    assert len(places) == len(set(places)) == cached + new - first
    assert places == [token % ring for token in range(first, cached + new)]
    if cached >= window - 1 and ring > 1:
        assert (cached + new - 1) % (ring - 1) == first % (ring - 1)


def test_a_request_keeps_its_window_and_what_a_step_brings_beside() -> None:
    """A window of 100 tokens in pages of 16, of 29 new tokens at most: 128 tokens, 8 pages."""
    layout = LinearLayout(1, 64, 0, 64)
    cache = KvCache([CacheKind(layout.sections, 1, WINDOW)], 1, 8 + 7 * 16, unit="burst")
    assert cache.rows_needed(500, new_tokens=29) == 128
    assert cache.rows_needed(500) == 112
    cache.allocate("one token a step", 500)
    assert cache.ring("one token a step") == 100
    cache.free("one token a step")
    cache = KvCache([CacheKind(layout.sections, 1, WINDOW)], 1, 128, unit="burst")
    cache.allocate("chunks of 29", 72, new_tokens=29)
    assert cache.used_rows(0) == 80
    cache.append("chunks of 29", 29)
    cache.append("chunks of 29", 399)
    assert (cache.ring("chunks of 29"), cache.used_rows(0)) == (128, 128)
    # tokens 372 to 500 lie from place 116 on and up to 116, in the same page
    assert cache.keys("chunks of 29", 372, 500).runs == ((112, 16), (0, 128))
    assert cache.keys("chunks of 29", 380, 495).runs == ((112, 16), (0, 112))
    with pytest.raises(ValueError, match="keeps tokens 372 to 500, asked for 371 to 500"):
        cache.keys("chunks of 29", 371, 500)
    assert cache.use().share == 1.0


# PIM ----------------------------------------------------------------------------------------

MEMORY, PIM = load_memory("hbm2-neupims").config, load_pim("neupims").config
SHARED = AttentionShape.of(8, 1, 128, MEMORY, PIM, 2)
OWN = AttentionShape.of(4, 4, 128, MEMORY, PIM, 2)


@pytest.mark.parametrize(
    ("shape", "first", "end", "keys", "values"),
    [
        # keys of four tiles of 32 tokens share a row: tokens 300 to 700 begin in the third
        (SHARED, 300, 700, range(2, 6), range(2 * 4)),
        (SHARED, 0, 700, range(6), range(2 * 4)),
        (SHARED, 512, 700, range(4, 6), range(4, 2 * 4)),
        # a row for each tile
        (OWN, 300, 700, range(9, 22), range(2 * 16)),
        (OWN, 600, 601, range(18, 19), range(16, 2 * 16)),
    ],
)
def test_pim_reads_rows_from_the_one_in_which_a_window_begins(
    shape: AttentionShape, first: int, end: int, keys: range, values: range
) -> None:
    cache = KvCache([CacheKind(shape.kv_sections)], 1, 1000, first_row=50)
    cache.allocate(0, 900)
    pages = cache.pages(0)

    def rows(program: object) -> list[int]:
        found = written_out(program)  # type: ignore[arg-type]
        return sorted({int(row) for row in found[found[:, P_OP] != int(Command.GWRITE)][:, P_ROW]})

    own = RowRuns.of((*pages.keys.runs, *pages.shared_keys.runs))
    program = score_program(shape, end, pages, 0, 0, True, (0, 8), first)
    assert rows(program) == [own.row(at) for at in keys]
    tiles = -(-end // 32) - (keys.start * 4 if shape is SHARED else keys.start)
    found = written_out(program)
    comps = int(found[found[:, P_OP] == int(Command.GEMV)][:, P_COMPS].sum())
    assert comps == shape.heads * tiles * 128 // 16
    program = value_program(shape, end, pages, 0, 0, True, (0, 8), first)
    assert rows(program) == [pages.values.row(at) for at in values]


def test_weights_of_both_ends_of_a_ring_come_from_rows_of_their_own() -> None:
    """Two heads over a row of values at each end: a row of weights for each."""
    shape = AttentionShape.of(2, 2, 128, MEMORY, PIM, 2)
    cache = KvCache([CacheKind(shape.kv_sections)], 1, 1000, first_row=50)
    cache.allocate(0, 1000)
    places = ((range(600, 1000), range(300)),)
    batch = AttentionBatch(shape, (cache.pages(0),), (700,), (0,), places)
    vector = load_run("neupims").config.npu.vector
    found = written_out(value_work(batch, 900, MEMORY, PIM, vector, 2)[0][0])
    sources = found[found[:, P_OP] == int(Command.GWRITE)][:, P_ROW]
    assert sorted(sources.tolist()) == sorted(set(sources.tolist()))
    assert len(sources) == 2 * 2


# runs ---------------------------------------------------------------------------------------

HEAD = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"


@pytest.fixture
def sliding(tiny_card: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides for one request with this row, of blocks with a window of 100 tokens."""

    def given_row(row: str, **workload: object) -> list[str]:
        card, trace = tmp_path / "sliding.yaml", tmp_path / "requests.csv"
        card.write_text(tiny_card.read_text() + f"window:\n  size: {WINDOW}\n")
        trace.write_text(f"{HEAD}0,0,{row}\n")
        keys = {"model": card, "requests": trace, "layers": 1, **workload}
        return [*(f"workload.{key}={value}" for key, value in keys.items()), "parallel.tp=1"]

    return given_row


def bursts(runs: Sequence[object]) -> set[int]:
    return {
        burst
        for run in runs
        if isinstance(run, Rows)
        for at, count in zip(run.first_burst.tolist(), run.bursts.tolist(), strict=True)
        for burst in range(at, at + count)
    }


def moved(device: Device) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Channel (-1: all) and burst of what a step appends, and of what attention reads."""
    block = device.block(0, 0)
    found: list[set[tuple[int, int]]] = []
    for tasks in (block.before, block.attention):
        own = [t for t in tasks if isinstance(t, NpuTask) and t.kind in ("kv_append", "attention")]
        parts = [*own, *(step for t in own for step in t.steps)]
        scatters = [s for part in parts for s in part.scatters]
        runs = [run for t in own for run in (*t.streams, *(r for s in t.steps for r in s.loads))]
        found.append(
            {(-1, burst) for burst in bursts(runs)}
            | {(s.channel, s.first + at * s.stride) for s in scatters for at in range(s.count)}
        )
    return found[0], found[1]


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim"])
def test_a_piece_reads_what_the_pieces_before_it_wrote_and_none_of_its_own(
    preset: str, sliding: Callable[..., list[str]]
) -> None:
    """Chunks of 32 tokens in a ring of 131: 99 cached tokens are read, 32 others written."""
    devices, _ = devices_of(resolve(preset, sliding("512,9,0,512", chunk=32)))
    assert len(devices) == 16
    assert devices[0].mapper.addresses.ring(0, 0) == 131
    # four blocks, four heads of 128 elements of 2 bytes, keys and values
    assert devices[0].work.needs[0].kv_bytes == 4 * 131 * 4 * 128 * 2 * 2
    so_far: set[tuple[int, int]] = set()
    sizes = []
    for number, device in enumerate(devices):
        wrote, read = moved(device)
        if preset == "npu-only":
            assert wrote.isdisjoint(read)
        assert read <= so_far
        assert bool(read) == bool(number)
        sizes.append(len(read))
        so_far |= wrote
    assert sizes[-1] == sizes[-2] if preset == "npu-only" else sizes[-1] > 0


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize("preset", ["npu-only", "npu-pim", "neupims"])
def test_windows_run_in_pieces_and_on(
    preset: str, fidelity: str, sliding: Callable[..., list[str]]
) -> None:
    """Every law holds, also of the token that follows, which sees a part of the ring."""
    keys = sliding("200,9,0,200", chunk=64, steps=6)
    found = simulate(resolve(preset, [*keys, f"fidelity={fidelity}"]))
    assert [step.tokens for step in found.steps] == [64, 64, 64, 8, 1, 1]


def test_a_token_on_pim_sees_its_window_of_a_longer_ring(
    sliding: Callable[..., list[str]],
) -> None:
    """After 64 tokens at once the ring has 163 places: of 201 tokens the last 100 lie at 101 to
    162 and 0 to 37."""
    devices, _ = devices_of(resolve("npu-pim", sliding("200,9,0,200", chunk=64, steps=5)))
    plan = devices[-1].mapper.addresses
    assert plan.ring(0, 0) == 163
    score = next(t for t in devices[-1].block(0, 0).attention if t.kind == "attention_score")
    assert isinstance(score, PimTask)
    program = written_out(next(p for p in score.programs if len(p)))
    rows = plan.kv(0, 0)
    shape = devices[-1].kv[0].shape
    assert shape is not None
    page = max(shape.kv_sections.keys.page_tokens, shape.kv_sections.shared_keys.page_tokens)
    seen = {token % 163 // page for token in range(101, 201)}
    own = rows.shared_keys if shape.kv_sections.shared_keys.page_rows else rows.keys
    each = own.count // -(-163 // page)
    wanted = {own.row(at * each + row) for at in seen for row in range(each)}
    assert set(program[program[:, P_OP] != int(Command.GWRITE)][:, P_ROW].tolist()) == wanted


def test_a_token_on_the_npu_sees_its_window_of_a_longer_ring(
    sliding: Callable[..., list[str]],
) -> None:
    """The same 100 tokens of four heads, a page of 16 tokens of a head in 64 bursts."""
    devices, _ = devices_of(resolve("npu-only", sliding("200,9,0,200", chunk=64, steps=5)))
    rows = devices[-1].mapper.addresses.kv(0, 0)
    for kind, section in (("attention_score", rows.keys), ("attention_value", rows.values)):
        task = next(t for t in devices[-1].block(0, 0).attention if t.kind == kind)
        assert isinstance(task, NpuTask)
        wanted = {
            section.row(((place // 16 * 4 + head) * 16 + place % 16) * 4 + burst)
            for place in (token % 163 for token in range(101, 201))
            for head in range(4) for burst in range(4)
        }  # fmt: skip
        assert bursts(task.streams) == wanted
        assert sum(run.total for run in task.streams) == len(wanted) == 100 * 4 * 4


def test_memory_holds_a_window_and_the_tokens_of_a_step(tiny_card: Path, tmp_path: Path) -> None:
    card = tmp_path / "sliding.yaml"
    card.write_text(tiny_card.read_text() + f"window:\n  size: {WINDOW}\n")
    trace = card_trace(load_card(str(card)))
    request = Request(0, 0.0, 500, 1, 0)
    (kind,) = set(trace.phases["decode"].sequence())
    one, many, short = (
        held_bytes(trace, Step((StepEntry(request, new, context),)), 1)[kind].kv
        for new, context in ((1, 500), (65, 500), (65, 120))
    )
    assert (many * WINDOW, short * WINDOW) == (one * 164, one * 120)
