"""A block's attention and what it writes to the cache, as tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.config.pim_link import PimLinkConfig
from pimsim.hardware.dram.system import Rows, Scatter, Stream
from pimsim.hardware.npu.vector import vector_lane_ops
from pimsim.hardware.pim.kv_layout import KvRows, ring_spans
from pimsim.hardware.pim.operations import Attention, Gemv, HeadProducts
from pimsim.hardware.pim.programs import value_chunks
from pimsim.mapping.addresses import AddressPlan, visible_tokens
from pimsim.mapping.attention import AttentionBatch, attention_work, score_work, value_work
from pimsim.mapping.attention_split import (
    AttentionSplit,
    bytes_in_banks,
    fetched_bytes,
    key_bytes,
    keys_are_made,
    share_of,
    split_attention,
)
from pimsim.mapping.block_placement import BlockPlacement
from pimsim.mapping.flash_attention import TiledAttention, flash_task
from pimsim.mapping.kv import append_scatters
from pimsim.mapping.kv_cache import KEYS, VALUES
from pimsim.mapping.kv_reads import BankedKv, CachedKv, KvReads, LinearKv, PagedKv
from pimsim.mapping.npu_attention import npu_product, npu_softmax
from pimsim.mapping.pim_link import transfer_task
from pimsim.mapping.scratchpad import softmax_sram_bytes
from pimsim.mapping.tasks import AnyTask, NpuTask, PimTask, StreamTask, Task
from pimsim.workload.operators import Block, ForwardPass, Operator, OperatorKind
from pimsim.workload.step import Step, StepEntry

__all__ = ["AttentionMapper", "chosen_spans"]

Kept = TypeVar("Kept", bound=Task)


@dataclass(frozen=True)
class AttentionMapper:
    """Maps attention of one (sub-)batch onto the device."""

    npu: NpuConfig
    memory: MemoryConfig
    pim: PimConfig | None
    addresses: AddressPlan
    element_bytes: int
    kv_element_bytes: int
    vector_task: Callable[[Operator, int], NpuTask]
    """Of vector work between scores and values that is no softmax."""
    pim_link: PimLinkConfig | None = None
    """To the memory that PIM and the cache are in; None: the device's."""

    def _bursts(self, size: int) -> int:
        return -(-size // self.memory.organization.burst_bytes)

    def append(self, operator: Operator, forward: ForwardPass, placed: BlockPlacement) -> NpuTask:
        """New keys and values go to the cache."""
        streams: tuple[Rows, ...] = ()
        scatters: list[Scatter] = []
        rows, rings = self._kept(placed, range(len(placed.members)))
        step = forward.step
        if placed.shape is not None:
            scatters = append_scatters(
                placed.shape, rows, placed.channel, step.contexts, step.new_tokens, rings,
                self.memory, self.kv_element_bytes,
            )  # fmt: skip
        elif placed.linear is not None:
            new = [range(entry.cached, entry.context) for entry in step.entries]
            streams = placed.linear.appends(new, rows, rings)
        if self.pim_link is not None:
            return transfer_task(
                operator.name, str(operator.kind), placed.layer, operator.kv_write_bytes,
                self.pim_link, streams, operator.kv_write_bytes,
            )  # fmt: skip
        return NpuTask(
            operator.name, str(operator.kind), "dma", placed.layer, 0, 0, operator.kv_write_bytes,
            streams=streams, scatters=tuple(scatters), sram_bytes=operator.kv_write_bytes,
        )  # fmt: skip

    def _kept(
        self, placed: BlockPlacement, entries: Iterable[int]
    ) -> tuple[list[KvRows], list[int | None]]:
        """Where the caches of ``entries`` lie, and the tokens of each that are kept, in a ring."""
        members = [placed.members[at] for at in entries]
        plan, layer = self.addresses, placed.layer
        return plan.kvs(layer, members), plan.rings(layer, members)

    def over_cache(
        self, task: NpuTask, operator: Operator, step: Step, placed: BlockPlacement,
        is_spilled: bool,
    ) -> NpuTask:  # fmt: skip
        """``task``, a product of what is cached (MLA's expansion), with the reads of that.

        They come with its first tile, into the scratchpad; where activations are ``is_spilled``,
        from there to the others that the tiles read (vLLM, too, gathers what is cached into a
        workspace).
        """
        among = operator.entries or range(len(step.entries))
        entries = [at for at in among if step.entries[at].cached]
        rows, rings = self._kept(placed, entries)
        tokens = [range(step.entries[at].cached) for at in entries]
        first, *others = task.steps
        loads: list[Stream | Rows] = [*first.loads]
        scatters = [*first.scatters]
        if placed.shape is None:
            assert placed.linear is not None, "a block without a cache reads one"
            loads += placed.linear.reads(KEYS[0], tokens, rows, rings)
        else:
            for at, own, ring, span in zip(entries, rows, rings, tokens, strict=True):
                kv = BankedKv(
                    placed.shape, own, placed.channel[at], Fraction(0), self.memory,
                    self.kv_element_bytes, ring,
                )  # fmt: skip
                scatters += [
                    each for head in range(placed.shape.kv_heads)
                    for each in kv.key_scatters(head, span)
                ]  # fmt: skip
        stores = first.stores
        if is_spilled:
            at = self.addresses.activation_burst + self._bursts(operator.input_bytes)
            size = self._bursts(operator.k * self.element_bytes * sum(map(len, tokens)))
            stores = (Stream(at, size, write=True), *stores)
        step_with = replace(first, loads=tuple(loads), scatters=tuple(scatters), stores=stores)
        return replace(
            task, steps=(step_with, *others), kv_bytes=operator.kv_read_bytes,
            sram_bytes=task.sram_bytes + operator.kv_read_bytes,
        )  # fmt: skip

    def tasks(
        self, operators: Sequence[Operator], block: Block, forward: ForwardPass,
        placed: BlockPlacement,
    ) -> Iterator[tuple[AnyTask, ...]]:  # fmt: skip
        """Scores, softmax and values of ``block``, and what lies between them: each with what goes
        before and behind it over the link to PIM, one after the other."""
        in_banks = placed.shape is not None and self.pim is not None
        on_pim = in_banks or placed.in_design
        known: dict[tuple[int, ...], tuple[Operator, bool, AttentionSplit]] = {}
        between: dict[tuple[int, ...], list[Operator]] = {}  # scores and values, on a design
        for operator in operators:
            if operator.kind is OperatorKind.ATTENTION_SCORE:
                made = keys_are_made(block, operator)
                split = split_attention(forward.step, operator, on_pim, placed.pim_tokens, made)
                known[operator.entries] = operator, made, split
            # of the scores of the same entries, which are before all that follows them
            score, made, split = known[operator.entries]
            if operator.kind in (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE):
                if split.pim and placed.in_design:
                    if score is not operator:
                        chain = self._in_design(
                            score, operator, between.pop(operator.entries, ()), split,
                            forward.step, placed,
                        )  # fmt: skip
                        yield tuple(_grouped(each, split.pim, forward.step) for each in chain)
                elif split.pim:
                    banks = self._in_banks(operator, split, forward.step, placed)
                    yield (_grouped(banks, split.pim, forward.step),)
                if split.single:
                    one = self._single_product(operator, split.single, forward.step, placed)
                    yield (_grouped(one, split.single, forward.step),)
                if split.tiled and score is not operator:
                    chain = self._tiled(score, operator, split.tiled, forward.step, placed, made)
                    yield tuple(_grouped(each, split.tiled, forward.step) for each in chain)
                continue
            if split.pim and placed.in_design:
                between.setdefault(operator.entries, []).append(operator)
            if split.single and operator.kind is OperatorKind.SOFTMAX:
                contexts = _visible(forward.step, split.single, operator.window)
                own = _part(operator, split.single, forward.step)
                softmax = npu_softmax(own, placed.layer, contexts, self.npu, self.element_bytes)
                yield (_grouped(softmax, split.single, forward.step),)
            elif split.single:
                own = _part(operator, split.single, forward.step)
                task = self.vector_task(own, placed.layer)
                yield (_grouped(task, split.single, forward.step),)

    def _single_product(
        self, operator: Operator, entries: tuple[int, ...], step: Step, placed: BlockPlacement
    ) -> NpuTask:
        """One new token a request, on the NPU."""
        assert placed.linear is not None, "such requests attend in the banks"
        visible = _visible(step, entries, operator.window)
        ends = [step.entries[at].context for at in entries]
        part = (KEYS if operator.kind is OperatorKind.ATTENTION_SCORE else VALUES)[0]
        rows, rings = self._kept(placed, entries)
        if operator.page:
            chosen = [chosen_spans(e, n, operator.page) for e, n in zip(ends, visible, strict=True)]
            streams = placed.linear.chosen_by_core(part, chosen, rows, self.npu.cores)
        else:
            last = [range(end - seen, end) for end, seen in zip(ends, visible, strict=True)]
            streams = placed.linear.reads_by_core(part, last, rows, rings, self.npu.cores)
        return npu_product(
            _part(operator, entries, step), placed.layer, visible, self.npu, self.element_bytes,
            streams, self.memory.organization.burst_bytes,
        )  # fmt: skip

    def _in_banks(
        self, operator: Operator, split: AttentionSplit, step: Step, placed: BlockPlacement
    ) -> PimTask:
        """Token after token, in the banks."""
        shape, pim = placed.shape, self.pim
        assert shape is not None
        assert pim is not None
        is_score = operator.kind is OperatorKind.ATTENTION_SCORE
        members, positions = _by_token(step, split.pim)
        window = operator.window or None
        contexts = positions
        if window is not None:
            contexts = [visible_tokens(each, window) for each in positions]
        rows, rings = self._kept(placed, range(len(placed.members)))
        places: tuple[tuple[range, ...], ...] = ()
        if any(ring is not None for ring in rings) or contexts != positions:
            places = tuple(
                chosen_spans(end, seen, operator.page)
                if operator.page
                else _places(end, seen, rings[i])
                for i, end, seen in zip(members, positions, contexts, strict=True)
            )
            if all(each == (range(c),) for each, c in zip(places, contexts, strict=True)):
                places = ()
        batch = AttentionBatch(
            shape, tuple(rows[i] for i in members), tuple(contexts),
            tuple(placed.channel[i] for i in members), places,
        )  # fmt: skip
        programs, marks, after = attention_work(
            score_work if is_score else value_work, batch, self.addresses.operand_row, self.memory,
            pim, self.npu.vector, self.element_bytes,
        )  # fmt: skip
        lane_ops = vector_lane_ops("softmax", sum(contexts)) * shape.heads
        if is_score:  # scores come, are read, and probabilities are written and sent back
            sram_bytes = 2 * softmax_sram_bytes(contexts, shape.heads, self.element_bytes)
        else:  # one partial result of each row's worth of tokens
            spans = (span for number in range(len(contexts)) for span in batch.spans(number))
            chunks = (value_chunks(shape, span) for span in spans)
            values = shape.heads * shape.value_dim * sum(chunks)
            sram_bytes = 2 * values * self.element_bytes
        return PimTask(
            operator.name, str(operator.kind), "pim", placed.layer,
            _part(operator, split.pim, step).flops, 0, bytes_in_banks(operator, step, split),
            programs=programs, marks=marks, vector_work=after,
            vector_lane_ops=lane_ops if is_score else 0, element_bytes=self.kv_element_bytes,
            sram_bytes=sram_bytes,
        )  # fmt: skip

    def _in_design(
        self, score: Operator, value: Operator, between: Sequence[Operator],
        split: AttentionSplit, step: Step, placed: BlockPlacement,
    ) -> tuple[AnyTask, ...]:  # fmt: skip
        """Scores, softmax and values together, as the design's own commands; queries before and
        results behind go over its link, where it has one. Of a design that does products alone:
        scores, what the vector units do with them, values. Raises ``InputError`` where the design
        knows no such heads."""
        assert self.pim is not None
        if "attention" not in self.pim.operations:
            return tuple(self._by_products(score, value, between, split, step, placed))
        if value.head_dim != score.head_dim:
            raise InputError(
                f"{self.pim.name}: keys of {score.head_dim} and values of {value.head_dim} "
                "elements a head; its attention takes equal ones (schedule.attention_placement=npu)"
            )
        _, positions = _by_token(step, split.pim)
        contexts = tuple(visible_tokens(each, score.window or None) for each in positions)
        parts = [_part(each, split.pim, step) for each in (score, value)]
        sent, returned = (
            len(positions) * score.heads * each.head_dim * self.element_bytes
            for each in (score, value)
        )
        link = self.pim_link
        task = StreamTask(
            "attention", "attention", "pim", placed.layer, sum(each.flops for each in parts), 0,
            sum(bytes_in_banks(each, step, split) for each in (score, value)),
            operation=Attention(
                score.heads, score.kv_heads, score.head_dim, contexts, self.kv_element_bytes
            ),
            sram_bytes=sent + returned if link is None else 0,
        )  # fmt: skip
        if link is None:
            return (task,)
        return (
            transfer_task("queries", "transfer", placed.layer, sent, link),
            task,
            transfer_task("results", "transfer", placed.layer, returned, link),
        )

    def _by_products(
        self, score: Operator, value: Operator, between: Sequence[Operator],
        split: AttentionSplit, step: Step, placed: BlockPlacement,
    ) -> Iterator[AnyTask]:  # fmt: skip
        """Products on the design with the vector units' work between them, and what goes over the
        link before and behind each product."""
        _, positions = _by_token(step, split.pim)
        contexts = [visible_tokens(each, score.window or None) for each in positions]
        scores = score.heads * sum(contexts) * self.element_bytes
        for product in (score, value):
            is_score = product is score
            vectors, results = (
                len(positions) * each.heads * each.head_dim * self.element_bytes
                for each in (score, value)
            )
            before, behind = (vectors, scores) if is_score else (scores, results)
            if self.pim_link is not None:
                yield transfer_task(
                    f"{product.name} operands", "transfer", placed.layer, before, self.pim_link
                )
            yield self._head_products(
                product, contexts, split, step, placed,
                before + behind if self.pim_link is None else 0,
            )  # fmt: skip
            if self.pim_link is not None:
                yield transfer_task(
                    f"{product.name} results", "transfer", placed.layer, behind, self.pim_link
                )
            for operator in between if is_score else ():
                own = _part(operator, split.pim, step)
                if operator.kind is OperatorKind.SOFTMAX:
                    yield npu_softmax(own, placed.layer, contexts, self.npu, self.element_bytes)
                else:
                    yield self.vector_task(own, placed.layer)

    def _head_products(
        self, product: Operator, contexts: Sequence[int], split: AttentionSplit, step: Step,
        placed: BlockPlacement, sram_bytes: int,
    ) -> StreamTask:  # fmt: skip
        """Scores or values: a matrix for each head of keys of each token, a vector for each of its
        query heads."""
        is_score, dim = product.kind is OperatorKind.ATTENTION_SCORE, product.head_dim
        vectors = (product.heads // product.kv_heads,) * product.kv_heads
        return StreamTask(
            product.name, str(product.kind), "pim", placed.layer,
            _part(product, split.pim, step).flops, 0, bytes_in_banks(product, step, split),
            operation=HeadProducts(
                tuple(
                    Gemv(
                        *((context, dim) if is_score else (dim, context)), vectors,
                        self.kv_element_bytes,
                    )
                    for context in contexts
                )
            ),
            sram_bytes=sram_bytes,
        )  # fmt: skip

    def _tiled(
        self, score: Operator, value: Operator, entries: tuple[int, ...], step: Step,
        placed: BlockPlacement, made: bool,
    ) -> tuple[NpuTask, ...]:  # fmt: skip
        """Several new tokens a request, on the NPU in tiles; behind the link, what is cached comes
        over it first."""
        fed = [step.entries[at] for at in entries]
        each = (key_bytes(score, step) + key_bytes(value, step)) / score.kv_heads
        if made:
            each = Fraction((score.head_dim + value.head_dim) * self.element_bytes)
        fetched = self.pim_link is not None and any(entry.cached for entry in fed)
        # what is made, or has come over the link, is on chip or among the activations
        here = made or fetched
        new = [entry.context if here else entry.new_tokens for entry in fed]
        fresh_bytes = int(sum(new) * each * score.kv_heads)
        moved = fresh_bytes + score.input_bytes + value.output_bytes
        if made:  # keys are inputs
            moved -= sum(new) * score.kv_heads * score.head_dim * self.element_bytes
        pad = self.npu.scratchpad
        is_spilled = pad.activations == "dram" or moved > pad.capacity // 4
        at = self.addresses.activation_burst
        burst_bytes = self.memory.organization.burst_bytes
        reads, new_at = [], at
        for at_entry, entry, fresh in zip(entries, fed, new, strict=True):
            cached: CachedKv | None = None
            if not here and entry.cached:
                cached = self._cached(placed, at_entry, each)
            made_now = LinearKv(new_at, fresh, each, burst_bytes) if is_spilled else None
            new_at += self._bursts(int(fresh * each * score.kv_heads))
            reads.append(KvReads(0 if here else entry.cached, cached, made_now))
        tiles = flash_task(
            TiledAttention(
                score, value, placed.layer, self.npu, self.memory, self.element_bytes,
                (at, at) if is_spilled else None,
            ),
            fed, reads,
        )  # fmt: skip
        if not fetched:
            return (tiles,)
        return (
            *self._fetch(score, value, entries, step, placed, at if is_spilled else None),
            tiles,
        )

    def _fetch(
        self, score: Operator, value: Operator, entries: tuple[int, ...], step: Step,
        placed: BlockPlacement, to_burst: int | None,
    ) -> Iterator[NpuTask]:  # fmt: skip
        """What is cached of ``entries`` over the link, and into the device's memory from
        ``to_burst`` on where it does not stay on chip."""
        assert self.pim_link is not None and placed.linear is not None
        size = fetched_bytes(score, value, entries, step)
        with_cache = [at for at in entries if step.entries[at].cached]
        rows, rings = self._kept(placed, with_cache)
        tokens = [_last_cached(step.entries[at], score.window or None) for at in with_cache]
        streams = [
            each for part in (KEYS[0], VALUES[0])
            for each in placed.linear.reads(part, tokens, rows, rings)
        ]  # fmt: skip
        yield transfer_task(
            "cached", "transfer", placed.layer, size, self.pim_link, streams, size
        )  # fmt: skip
        if to_burst is not None:
            yield NpuTask(
                "cached", "transfer", "dma", placed.layer, 0, 0, 0,
                streams=(Stream(to_burst, self._bursts(size), write=True),), sram_bytes=size,
            )  # fmt: skip

    def _cached(self, placed: BlockPlacement, entry: int, token_bytes: Fraction) -> CachedKv:
        """Where the tokens before the step of an entry lie."""
        (rows,), (ring,) = self._kept(placed, [entry])
        if placed.shape is None:
            assert placed.linear is not None, "a block without a cache reads one"
            return PagedKv(placed.linear, rows, ring)
        return BankedKv(
            placed.shape, rows, placed.channel[entry], token_bytes, self.memory,
            self.kv_element_bytes, ring,
        )  # fmt: skip


def _grouped(task: Kept, entries: tuple[int, ...], step: Step) -> Kept:
    """The task with the request group that it works for."""
    return task if len(entries) == len(step.entries) else replace(task, entries=entries)


def _last_cached(entry: StepEntry, window: int | None) -> range:
    """Tokens before the step that the entry's new ones may see."""
    return range(entry.cached - min(entry.cached, entry.keys(window)), entry.cached)


def _visible(step: Step, entries: Sequence[int], window: int) -> list[int]:
    """Keys that the last token of each entry sees."""
    return [visible_tokens(step.entries[at].context, window or None) for at in entries]


def _places(end: int, seen: int, ring: int | None) -> tuple[range, ...]:
    """Places in its cache of the last ``seen`` of ``end`` tokens; a whole ring is read from its
    start."""
    if seen == ring:
        return (range(ring),)
    return tuple(ring_spans(end - seen, end, ring))


def chosen_spans(end: int, seen: int, page: int) -> tuple[range, ...]:
    """Which ``seen`` of ``end`` tokens a query reads.

    Parameters
    ----------
    end
        Tokens of the context.
    seen
        Tokens that are read.
    page
        Tokens that are chosen together: the last ones, and pages that lie as far from one another
        as they can, since which ones a query needs is not known; 0: the last tokens.
    """
    if seen >= end or not page:
        return (range(end - seen, end),)
    whole = (end - 1) // page  # pages before the last one
    left = seen - (end - whole * page)
    if left <= 0:
        return (range(end - seen, end),)
    count = -(-left // page)
    firsts = [number * whole // count * page for number in range(count)]
    lengths = (left - (count - 1) * page, *[page] * (count - 1))
    spans = [range(at, at + size) for at, size in zip(firsts, lengths, strict=True)]
    return (*spans, range(whole * page, end))


def _by_token(step: Step, entries: Sequence[int]) -> tuple[list[int], list[int]]:
    """The entry of each new token, and the context at it."""
    if step.tokens == len(step.entries):
        return list(entries), [step.contexts[at] for at in entries]
    members: list[int] = []
    contexts: list[int] = []
    for at in entries:
        entry = step.entries[at]
        members += [at] * entry.new_tokens
        contexts += entry.ends
    return members, contexts


def _part(operator: Operator, entries: Sequence[int], step: Step) -> Operator:
    """The operator's work for some of the entries that it works on."""
    whole = operator.entries or tuple(range(len(step.entries)))
    if tuple(entries) == whole:
        return operator
    window, fed = operator.window or None, step.new_tokens
    share = share_of(entries, whole, step, window)
    tokens = Fraction(sum(fed[at] for at in entries), sum(fed[at] for at in whole))
    seen = step.keys(window)
    keys = sum(seen[at] for at in entries)
    return replace(
        operator,
        flops=int(operator.flops * share),
        rows=int(operator.rows * tokens),
        input_bytes=int(operator.input_bytes * share),
        output_bytes=int(operator.output_bytes * share),
        kv_read_bytes=int(key_bytes(operator, step) * keys),
    )
