"""Where mapping puts things: caches and their bursts, requests on channels and in sub-batches,
experts on either machine, a block's kernels on a GPU, vector work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from cases import values
from facts import facts, number_text
from values_workload import card


def _tried(work: Any) -> Any:
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _step_of(entries: Sequence[tuple[int, int]]) -> Any:
    from pimsim.workload.requests import Request
    from pimsim.workload.step import Step, StepEntry

    return Step(
        tuple(
            StepEntry(Request(row, 0.0, context, 9, 0), new, context)
            for row, (new, context) in enumerate(entries)
        )
    )


@values("mapping/linear-caches")
def _linear() -> Iterator[str]:
    """Bursts of pages that hold whole tokens, half ones, and latents; windows and their rings."""
    from pimsim.mapping.kv_cache import KEYS, VALUES
    from pimsim.mapping.linear_kv import BurstRuns, LinearLayout

    def told(runs: Any) -> str:
        shown = list(zip(runs.first.tolist(), runs.end.tolist(), strict=True))
        more = f" ... {len(shown)} runs" if len(shown) > 12 else ""
        return f"{runs.total} in {shown[:12]}{more}"

    layouts = {
        "whole": LinearLayout(2, 256, 256, 64), "thirds": LinearLayout(3, 48, 80, 64),
        "latent": LinearLayout(1, 1152, 0, 64), "large": LinearLayout(8, 33, 66, 32),
    }  # fmt: skip
    spans = (range(0), range(0, 1), range(3, 4), range(0, 16), range(15, 33), range(7, 300))
    for name, layout in layouts.items():
        sections = layout.sections
        yield f"=== {name}: pages of {layout.page_tokens}"
        yield from facts([sections.keys, sections.values], "sections")
        for part, tokens, ring in product((KEYS[0], VALUES[0]), spans, (None, 40)):
            at = f"{part} {tokens.start} to {tokens.stop}, ring {ring}"
            yield f"{at}: read {told(layout.read(part, tokens, ring))}"
            if len(tokens):
                yield f"  written {told(layout.written(part, tokens, ring))}"
                yield f"  a head {told(layout.read(part, tokens, ring, range(0, 1)))}"
    runs = BurstRuns.of(
        [(np.array([0, 5, 9]), np.array([5, 7, 9])), (np.array([12, 30]), np.array([29, 31]))]
    )
    yield f"joined {told(runs)}"
    for piece, owners in ((1, 2), (4, 3), (7, 1), (100, 4)):
        yield f"dealt {piece} {owners}: {[told(each) for each in runs.dealt(piece, owners)]}"
    # requests over cores, where their pages lie
    from pimsim.mapping.kv_cache import CacheKind, KvCache

    for name, cores in product(("whole", "thirds"), (1, 2, 5)):
        layout = layouts[name]
        cache = KvCache([CacheKind(layout.sections, 1, 100)], 1, 100_000, 7, "burst")
        for request, tokens in enumerate((40, 1, 333)):
            cache.allocate(request, tokens)
        pages = [cache.pages(each) for each in range(3)]
        rings = [cache.ring(each) for each in range(3)]
        spans = [range(0, 40), range(0, 1), range(233, 333)]
        for part in (KEYS[0], VALUES[0]):
            found = layout.reads_by_core(part, spans, pages, rings, cores)
            for core, rows in found.items():
                told = f"{rows.first_burst[:9]} {rows.bursts[:9]}"
                yield f"{name} {cores} cores, {part} of {core}: {told}"
        for rows in layout.appends([range(40, 47), range(1, 2), range(333, 350)], pages, rings):
            yield f"{name} appends {rows.first_burst[:20]} {rows.bursts[:20]} {rows.write}"


@values("mapping/caches")
def _caches() -> Iterator[str]:
    """A cache that requests come to, grow in and leave."""
    from pimsim.config.loader import load_memory, load_pim
    from pimsim.hardware.pim.programs import AttentionShape
    from pimsim.mapping.kv import StreamMap, append_scatters, channel_burst
    from pimsim.mapping.kv_cache import CacheKind, KvCache

    memory, pim = load_memory("hbm2-neupims").config, load_pim("neupims").config
    for shared, (heads, kv_heads, dim, value) in product(
        (False, True), ((8, 2, 64, 64), (4, 4, 128, 128), (16, 1, 576, 512))
    ):
        design = pim.model_copy(update={"keys_share_rows": shared})
        shape = AttentionShape.of(heads, kv_heads, dim, memory, design, 2, value)
        sections = shape.kv_sections
        kinds = [CacheKind(sections, 2), CacheKind(sections, 1, 50)]
        cache = KvCache(kinds, 2, 120, 10)
        yield f"=== {heads} {kv_heads} {dim} {value}, shared {shared}"
        acts: tuple[tuple[Any, ...], ...] = (
            ("allocate", "a", 30, 0), ("allocate", "b", 600, 1), ("append", "a", 5),
            ("allocate", "c", 49, 0, 4), ("append", "c", 4), ("free", "a"), ("append", "c", 40),
            ("allocate", "d", 5000, 0), ("append", "b", 3000), ("allocate", "e", 1, 0),
        )  # fmt: skip
        for name, *given in acts:
            at = f"{name} {given}"
            if given[0] not in cache.requests and name != "allocate":
                yield f"{at}: is not there"
                continue
            found = _tried(lambda n=name, g=given, c=cache: getattr(c, n)(*g))
            use = cache.use()
            yield (
                f"{at}: {found}, used {[cache.used_rows(n) for n in (0, 1)]}, rows {use.rows}, "
                f"share {number_text(use.share)}, empty {number_text(cache.fragmentation)}, "
                f"by channel {[cache.rows_by_channel(n) for n in (0, 1)]}"
            )
        for request in cache.requests:
            for kind in (0, 1):
                runs = [each.runs for each in cache.pages(request, kind).sections]
                yield f"{request} {kind}: ring {cache.ring(request, kind)}, {runs}"
        other = cache.copy()
        yield f"copied {other.requests} {[other.free_rows(n) for n in (0, 1)]}"
        if "c" in cache.requests:
            rows, rings = [cache.pages("c", 1)], [cache.ring("c", 1)]
            for context, new in ((49, 49), (53, 4), (93, 1), (96, 33)):
                made = append_scatters(shape, rows, [1], [context], [new], rings, memory, 2)
                told = [(one.channel, one.first, one.count, one.stride) for one in made]
                yield f"writes {context} {new}: {len(told)} {told[:6]} {told[-2:]}"
    places = StreamMap.of(memory)
    for bank, column in ((0, 0), (5, 3), (31, 7), (17, 31)):
        found = places.bursts([0, 1, 100], bank, column)
        one = channel_burst(memory, 100, bank, column)
        yield f"bursts of {bank} {column}: {found}, {one}"


@values("mapping/places")
def _places() -> Iterator[str]:
    from pimsim.mapping.placement import assign_channels, deal_longest_first, split_sub_batches
    from pimsim.workload.requests import Request

    costs = ([], [5], [3, 3, 3, 3], [9, 1, 8, 2, 7, 3, 6], [10, 1, 1, 1, 1, 1, 1, 1])
    for cost, places in product(costs, (1, 2, 3, 8)):
        yield f"dealt {cost} {places}: {deal_longest_first(cost, places)}"
    for channels in ([None] * 5, [2, None, 0, 0, None], [3, 1, 1, 1, 3], [4, None, 0, 0, 0]):
        asked = [Request(n, 0.0, 9, 9, 0, each) for n, each in enumerate(channels)]
        for policy in ("trace", "round-robin", "least-loaded"):
            found = _tried(lambda a=asked, p=policy: assign_channels(a, 4, p, [5, 4, 3, 2, 9]))
            yield f"channels {channels} {policy}: {found}"
    for channel, parts in product(
        ([0] * 7, [0, 1, 2, 3] * 2, [0, 0, 0, 1, 1, 2, 5, 5, 5, 5]), (1, 2, 3)
    ):
        cost = [7 * n % 10 + 1 for n in range(len(channel))]
        for policy in ("per-channel", "balanced"):
            found = split_sub_batches(channel, cost, policy, parts)
            yield f"split {channel} {policy} {parts}: {found}"


@values("mapping/experts")
def _experts() -> Iterator[str]:
    """Where experts go with costs by hand, and what they cost on presets."""
    from pimsim.config.loader import load_energy, load_run
    from pimsim.mapping.expert_costs import ExpertCosts
    from pimsim.mapping.experts import (
        ExpertEnergies,
        expert_bytes,
        expert_levels,
        place_by_tokens,
        stored_element_bytes,
        together,
    )
    from pimsim.workload.decode import card_pass
    from pimsim.workload.operators import OperatorKind

    for npu, pim, share in product((0, 100), (0, 40, 300), (None, (1, 2), (1, 1), (0, 4), (3, 7))):
        yield f"together {npu} {pim} {share}: {together(npu, pim, share)}"
    loads = {
        "few": {0: 1, 3: 1, 5: 9}, "alike": {0: 4, 1: 4, 2: 4}, "none": {},
        "many": {n: n * n % 17 + 1 for n in range(16)},
    }  # fmt: skip
    energies = {
        "time": None,
        "energy": ExpertEnergies(lambda n: 5.0 + n, lambda n: 2.0 * n, 0.01, False),
        "delay": ExpertEnergies(lambda n: 5.0 + n, lambda n: 2.0 * n, 0.01, True),
    }
    for (name, tokens), each, share, beside in product(
        loads.items(), energies, (None, (1, 2), (9, 10)), ((0, 0), (50, 0), (0, 200))
    ):
        found = place_by_tokens(
            tokens, lambda n: 40 + n, lambda n: None if n > 12 else 15 * n, *beside, share,
            energies[each],
        )  # fmt: skip
        yield (
            f"{name} {each} {share} {beside}: on PIM {found.on_pim}, NPU {found.on_npu}, "
            f"{found.pairs(found.on_npu)} pairs"
        )
    step = _step_of([(1, 40), (1, 7), (1, 300)])
    for preset, tp, model in (("neupims", 1, "moe"), ("npu-pim", 2, "moe")):
        config = load_run(preset).config
        block = card_pass(card(model), step, tp=tp, layers=2).blocks[-1]
        for number, level in enumerate(expert_levels(block)):
            names = [each.name for each in level.gemms], [each.name for each in level.after]
            yield f"{preset} level {number}: {names}"
        costs = ExpertCosts(config.npu, config.memory, config.pim)
        for operator in block.operators:
            if operator.kind is OperatorKind.EXPERT_GEMM:
                width = stored_element_bytes(operator)
                yield f"  {operator.name}: {width} {expert_bytes(operator)}"
        for tokens in (1, 2, 7, 64):
            on_pim = [costs.on_pim(block, at_once, tokens) for at_once in (False, True)]
            yield f"  {tokens} tokens: NPU {costs.on_npu(block, tokens)}, PIM {on_pim}"
        yield f"  share {costs.stream_share(block)}"
        yield f"  beside {costs.beside(block, False)} {costs.beside(block, True)}"
        for m, n, k in ((1, 64, 64), (300, 4096, 128)):
            yield f"  product {m} {n} {k}: {costs.product_cycles(m, n, k, 2 * n * k)}"
        spent = costs.energies(block, load_energy("default").config, 7.0, False)
        told = [number_text(f(n)) for f in (spent.npu_j, spent.pim_j) for n in (1, 9)]
        yield f"  joule {told}, static {number_text(spent.static_j)}"


@values("mapping/attention")
def _attention() -> Iterator[str]:
    """Who attends where, and what is read for it."""
    from pimsim.mapping.attention_split import (
        bytes_in_banks,
        bytes_over_bus,
        key_bytes,
        keys_are_made,
        linear_layout,
        share_of,
        split_attention,
    )
    from pimsim.workload.decode import card_pass
    from pimsim.workload.operators import OperatorKind

    steps = {
        "tokens": [(1, 40), (1, 7), (1, 300)], "mixed": [(1, 40), (3, 33), (64, 200), (100, 100)],
        "prompts": [(9, 9), (70, 70)],
    }  # fmt: skip
    for (name, entries), model in product(steps.items(), ("gqa", "mla", "gemma-3-270m")):
        step = _step_of(entries)
        block = card_pass(card(model), step, tp=1, layers=2).blocks[0]
        for score in block.operators:
            if score.kind is not OperatorKind.ATTENTION_SCORE:
                continue
            value = next(o for o in block.operators if o.kind is OperatorKind.ATTENTION_VALUE)
            made = keys_are_made(block, score)
            yield f"=== {name} {model} {score.name}: made {made}, window {score.window}"
            yield f"a key {key_bytes(score, step)} {key_bytes(value, step)}"
            yield f"layout {linear_layout(score, value, step, 64)}"
            for on_pim, most in ((False, 1), (True, 1), (True, 3), (True, 64)):
                split = split_attention(step, score, on_pim, most, made)
                moved = [bytes_in_banks(each, step, split) for each in (score, value)]
                over = [bytes_over_bus(each, step, split, made) for each in (score, value)]
                yield f"{on_pim} {most}: {split.pim} {split.single} {split.tiled}, {moved} {over}"
                every = range(len(entries))
                yield f"  share {share_of(split.tiled, every, step, score.window or None)}"


@values("mapping/gpu-kernels")
def _gpu_kernels() -> Iterator[str]:
    """What a block's operators are on a GPU."""
    from pimsim.mapping.kernels import ExpertShape, kernels_of, per_element
    from pimsim.workload.decode import card_pass

    steps = {"tokens": [(1, 40), (1, 40)], "unequal": [(1, 40), (1, 7)],
             "mixed": [(1, 40), (30, 33), (64, 64)]}  # fmt: skip
    for (name, entries), model, tp in product(steps.items(), ("tiny", "gqa", "moe"), (1, 2)):
        found = card_pass(card(model), _step_of(entries), tp=tp, layers=2)
        block = found.blocks[-1]
        for fused, elsewhere in ((True, False), (False, True)):
            shape = ExpertShape(8, 2) if model == "moe" else None
            kernels = _tried(
                lambda a=(found, block), f=fused, s=shape, e=elsewhere: kernels_of(
                    *a, 3, fused_gate=f, shape=s, cache_elsewhere=e
                )
            )
            yield f"=== {name} {model} tp {tp}, fused {fused}, elsewhere {elsewhere}"
            if isinstance(kernels, str):
                yield kernels
                continue
            yield from facts(kernels, "kernels")
            macs = kernels.attention_macs
            yield f"kv {kernels.kv_bytes}, macs {macs}, {len(kernels.alone)} alone"
    for size, elements in ((10, 5), (10, 4), (7, 14), (0, 3), (9, 6)):
        yield f"per element {size} {elements}: {per_element(size, elements)}"


@values("mapping/vector-work")
def _vector_work() -> Iterator[str]:
    from pimsim.config.loader import load_npu_of
    from pimsim.mapping.vector import vector_work
    from pimsim.workload.decode import card_pass

    step = _step_of([(1, 40), (30, 33), (64, 64)])
    for preset in ("neupims", "onnxim-tpuv4"):
        vector = load_npu_of(preset).vector
        cards = [(card(name), tp) for name, tp in (("tiny", 1), ("gqa", 2), ("moe", 1), ("mla", 1))]
        gated = card("gqa").model_copy(update={"activation": "gelu", "norm": "layernorm"})
        for model, tp in (*cards, (gated, 1)):
            found = card_pass(model, step, tp=tp, layers=2)
            for operator in (o for block in found.blocks for o in block.operators):
                work = _tried(lambda a=(operator, vector): vector_work(*a))
                told = work if isinstance(work, str) else " ".join(facts(work))
                yield f"{preset} {model.name} {operator.name}: {told}"
