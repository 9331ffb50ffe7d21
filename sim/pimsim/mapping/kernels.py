"""A step's operators as the kernels that a GPU launches.

What is fused: rotary positions and the write of new keys and values into the QKV product, whose
outputs they are; a residual sum with the norm after it (the last one with the next block's first
norm). Biases are added by the product. Where each request feeds one token and all have the same
context, scores, softmax and values are three kernels; in any other step attention is one.

Products move the bytes that the operators say: of a packed format its elements, scales and zero
points, of a cache of another type its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pimsim.config.errors import InputError
from pimsim.hardware.xpu.experts import Experts
from pimsim.hardware.xpu.flash import FlashAttention, FlashPart
from pimsim.hardware.xpu.tiling import Product
from pimsim.workload.operators import Block, ForwardPass, Operator, OperatorKind
from pimsim.workload.step import Mask, Step, StepEntry

__all__ = [
    "AttentionKernels", "BlockKernels", "ExpertShape", "Streamed", "flash_parts", "kernels_of",
    "per_element",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Streamed:
    """A kernel that reads and writes each tensor once."""

    name: str
    moved_bytes: int
    flops: int


@dataclass(frozen=True, slots=True)
class AttentionKernels:
    """Decode attention of one device's heads over all requests."""

    requests: int
    heads: int
    """Query heads of all requests."""
    head_dim: int
    context: int
    """Tokens that each reads: no more than the block's window."""
    element_bytes: int
    """Of the KV cache; those narrower than a byte count as one."""
    score: Product
    value: Product
    softmax: Streamed
    kv_bytes: int
    """Keys and values read."""
    sent_bytes: int
    """New queries, keys and values: what a unit that holds the KV cache is sent."""
    returned_bytes: int
    """Results that come back."""

    @property
    def macs(self) -> int:
        """Multiply-adds of both products."""
        return self.score.macs + self.value.macs

    @property
    def fused(self) -> FlashAttention:
        """The same in one launch."""
        heads, kv_heads = self.heads // self.requests, self.score.count // self.requests
        part = FlashPart(self.requests, 1, self.context, self.context, self.context)
        return FlashAttention(
            parts=(part,),
            heads=heads,
            kv_heads=kv_heads,
            key_dim=self.head_dim,
            value_dim=self.value.n,
            element_bytes=self.score.element_bytes,
            key_value_bytes=per_element(self.kv_bytes, self.score.count * self.context),
            softmax_flops=self.softmax.flops,
        )


@dataclass(frozen=True, slots=True)
class BlockKernels:
    """One decoder block on one device, in the order of its launches."""

    kind: str
    count: int
    """Blocks of that kind."""
    attention: AttentionKernels | None
    """None: it is ``flash``."""
    projections: tuple[tuple[str, Product], ...]
    """QKV and output projection."""
    ffn: tuple[tuple[str, Product], ...]
    add_norms: tuple[Streamed, ...]
    """Residual sums and norms."""
    activations: tuple[Streamed, ...]
    """Of the dense network, and of experts that all tokens go to."""
    reduced_bytes: tuple[int, ...]
    """One device's payload of each all-reduce."""
    weight_bytes: int
    flash: tuple[FlashAttention, ...] = ()
    """One launch for each form of attention that the step has."""
    kv_written_bytes: int = 0
    """New keys and values."""
    kv_cached_bytes: int = 0
    """Keys and values of earlier steps that attention reads, as they lie in the cache."""
    experts: Experts | None = None
    """Those that a router chooses: its choice, both products, and their sum."""
    order: tuple[str, ...] = ()
    """Names of the block's operators, each behind those that it needs."""
    elsewhere: tuple[AttentionKernels, ...] = ()
    """Attention of single tokens by whoever holds the cache beside the device: one for each context
    that they read. What is in ``flash`` and ``kv_written_bytes`` is then of the others."""

    @property
    def alone(self) -> tuple[AttentionKernels, ...]:
        """Attention of single tokens that is no part of ``flash``, of each context."""
        return self.elsewhere if self.attention is None else (self.attention,)

    @property
    def kv_bytes(self) -> int:
        """Keys and values that attention reads, each once."""
        own, together = self.alone, self.flash
        return sum(each.kv_bytes for each in own) + sum(each.kv_bytes for each in together)

    @property
    def attention_macs(self) -> int:
        """Multiply-adds of pairs of a new token and a key that it attends to."""
        own, together = self.alone, self.flash
        return sum(each.macs for each in own) + sum(each.macs for each in together)


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """What a device has of a mixture of experts."""

    held: int
    """Experts whose weights it has, or a part of each."""
    choices: int
    """Experts of a token, on all devices."""


_ATTENTION = {
    OperatorKind.ATTENTION_SCORE: "score",
    OperatorKind.SOFTMAX: "softmax",
    OperatorKind.ATTENTION_VALUE: "value",
}
_FUSED = {OperatorKind.ROPE, OperatorKind.KV_APPEND}
_RESIDUALS = ("res1", "res2")


def kernels_of(
    step: ForwardPass, block: Block, count: int = 1, *, fused_gate: bool,
    shape: ExpertShape | None = None, cache_elsewhere: bool = False,
) -> BlockKernels:  # fmt: skip
    """The kernels of one block of a step.

    Parameters
    ----------
    step
        On one device.
    block
        One of its blocks.
    count
        Blocks of its kind.
    fused_gate
        Gate and up projections are one product.
    shape
        Of its mixture of experts, where it has one.
    cache_elsewhere
        Single tokens attend where the cache is, beside the device: each context by itself.

    Raises
    ------
    InputError
        For operators that have no kernel here.
    """
    _check(step, block)
    alike = _feeds_alike_tokens(step.step)
    apart = cache_elsewhere and not alike
    products = [each for each in block.operators if each.kind in _PRODUCTS]
    ffn: list[tuple[str, Product]] = []
    acts = {each.name: each for each in block.operators if each.name in _ACTIVATIONS}
    for each in products:
        act = acts.get(_ACTIVATION_OF.get(each.group, ""))
        if act is not None and not fused_gate and each.n == 2 * act.width:
            prefix = each.name.removesuffix("fc1")
            ffn += [(prefix + name, _gemm(each, step, 2)) for name in ("gate", "up")]
        elif each.group in _FFN:
            ffn.append((each.name, _gemm(each, step)))
    written = sum(each.kv_write_bytes for each in block.operators)
    window = next(each.window for each in block.operators if each.kind in _ATTENTION) or None
    counted = [each for each in step.step.entries if not apart or each.new_tokens > 1]
    fed = sum(each.new_tokens for each in counted)
    cached = sum(max(each.keys(window) - each.new_tokens, 0) for each in counted)
    return BlockKernels(
        kind=block.kind,
        count=count,
        attention=_attention(step, block, step.step.entries) if alike else None,
        projections=tuple(
            (each.name, _gemm(each, step)) for each in products if each.group not in _FFN
        ),
        ffn=tuple(ffn),
        add_norms=tuple(_add_norms(block)),
        activations=tuple(
            _streamed(each)
            for each in (*acts.values(), *(o for o in block.operators if o.group == _CHOICE))
        ),
        reduced_bytes=tuple(
            each.input_bytes for each in block.operators if each.kind is OperatorKind.COLLECTIVE
        ),
        weight_bytes=sum(each.weight_bytes for each in block.operators),
        flash=() if alike else tuple(_flash(step, block, apart)),
        kv_written_bytes=written * fed // step.step.tokens,
        kv_cached_bytes=written * cached // step.step.tokens,
        experts=_experts(step, block, shape),
        order=tuple(each.name for each in block.operators),
        elsewhere=tuple(_by_context(step, block)) if apart else (),
    )


def _experts(step: ForwardPass, block: Block, shape: ExpertShape | None) -> Experts | None:
    """The products of the experts that got tokens; None: the block has no experts."""
    products = [each for each in block.operators if each.kind is OperatorKind.EXPERT_GEMM]
    if not products:
        return None
    assert shape is not None
    if len(products) != 2:
        raise InputError(
            f"model {step.model}: its blocks ({block.kind}) have {len(products)} products of "
            "experts; GPUs compute two, with gate and up projections as one"
        )
    first, second = products
    hit = dict(zip(first.experts, first.expert_tokens, strict=True))
    loads = [*hit.values(), *[0] * (shape.held - len(hit))]
    elements = sum(each.n * each.k for each in products) * len(hit)
    return Experts(
        tokens=step.tokens,
        loads=tuple(loads),
        choices=shape.choices,
        hidden=first.k,
        inner=second.k,
        element_bytes=step.dtype_bytes,
        weight_bytes=per_element(sum(each.weight_bytes for each in products), elements)
        if elements
        else step.dtype_bytes,
        first_columns=first.n,
    )


def _feeds_alike_tokens(step: Step) -> bool:
    """Whether each request feeds one token and all read as many."""
    return {(entry.new_tokens, entry.context) for entry in step.entries} == {
        (1, step.entries[0].context)
    }


_FFN = ("fc1", "fc2", "shared_fc1", "shared_fc2", "router")
_PRODUCTS = (OperatorKind.GEMM, OperatorKind.ROUTER)
_ACTIVATIONS = ("act", "shared_act")
_ACTIVATION_OF = {"fc1": "act", "shared_fc1": "shared_act"}
_CHOICE = "choice"
"""Group of what chooses the keys that attention reads."""
_OF_EXPERTS = ("route", "expert_act", "combine")
"""Operators beside the products of experts that their kernels do, too."""


def _check(step: ForwardPass, block: Block) -> None:
    """What a block must have, and all that it may have."""
    for each in block.operators:
        known = each.kind in _ATTENTION or each.kind in _FUSED or each.group in _RESIDUALS
        known = known or each.kind in (
            *_PRODUCTS, OperatorKind.EXPERT_GEMM, OperatorKind.NORM, OperatorKind.COLLECTIVE,
        ) or each.name in (*_ACTIVATIONS, *_OF_EXPERTS) or each.group == _CHOICE  # fmt: skip
        if not known:
            raise InputError(
                f"model {step.model}: its blocks ({block.kind}) have {each.name} ({each.kind}); "
                "GPUs compute blocks with attention and a feed-forward network, dense or of experts"
            )
    kinds = {each.kind for each in block.operators}
    missing = [name for kind, name in _ATTENTION.items() if kind not in kinds]
    missing += [] if block.has("act") or OperatorKind.EXPERT_GEMM in kinds else ["act"]
    if missing:
        raise InputError(
            f"model {step.model}: its blocks ({block.kind}) have no {missing[0]}; GPUs compute "
            "blocks with attention and a feed-forward network, dense or of experts"
        )


def per_element(size_bytes: int, elements: int) -> int | Fraction:
    """Bytes of one of ``elements``. Exact: times the elements it is whole bytes again.

    Parameters
    ----------
    size_bytes
        Of all of them.
    elements
        1 or more.
    """
    found = Fraction(size_bytes, elements)
    return found.numerator if found.denominator == 1 else found


def _gemm(operator: Operator, step: ForwardPass, parts: int = 1) -> Product:
    """One of ``parts`` equal slices of the columns."""
    elements = operator.n * operator.k * operator.count
    return Product(
        operator.m,
        operator.n // parts,
        operator.k,
        operator.count,
        element_bytes=step.dtype_bytes,
        b_bytes=per_element(operator.weight_bytes, elements),
    )


def _streamed(operator: Operator) -> Streamed:
    return Streamed(operator.name, operator.input_bytes + operator.output_bytes, operator.flops)


def _add_norms(block: Block) -> list[Streamed]:
    """Residual sums with the norm after each, and norms that follow no sum.

    A block's first norm is taken with the last sum of the block before it, which is another of its
    kind. Two inputs, one output: the sum between them is not counted, as in AttAcc's fit.
    """
    sums = [each for each in block.operators if each.group in _RESIDUALS]
    norms = [each for each in block.operators if each.kind is OperatorKind.NORM]
    names = {each.name for each in sums}
    after: dict[str, Operator] = {}
    for norm in norms:
        source = next((name for name in norm.depends_on if name in names), None)
        if source is None and not norm.depends_on and sums:
            source = sums[-1].name
        if source is not None and source not in after:
            after[source] = norm
    fused = {norm.name for norm in after.values()}
    found = []
    for each in (*(norm for norm in norms if norm.name not in fused), *sums):
        second = after.get(each.name)
        if second is None:
            found.append(_streamed(each))
        else:
            moved = each.input_bytes + second.output_bytes
            flops = each.flops + second.flops
            found.append(Streamed(f"{each.name}+{second.name}", moved, flops))
    return found


def _by_context(step: ForwardPass, block: Block) -> Iterator[AttentionKernels]:
    """Of single tokens, those that read as many keys together; the longest first."""
    if not any(entry.new_tokens == 1 for entry in step.step.entries):
        return
    window = next(each.window for each in block.operators if each.kind in _ATTENTION) or None
    alike: dict[int, list[StepEntry]] = {}
    for entry in step.step.entries:
        if entry.new_tokens == 1:
            alike.setdefault(entry.keys(window), []).append(entry)
    for _, entries in sorted(alike.items(), reverse=True):
        yield _attention(step, block, entries)


def _attention(
    step: ForwardPass, block: Block, entries: Sequence[StepEntry]
) -> AttentionKernels:  # fmt: skip
    """Of single tokens that read as many keys: a thread block for each KV head of each request, its
    group of queries the rows."""
    score, value = block.operator("score"), block.operator("value")
    requests, context = len(entries), entries[0].keys(score.window or None)
    rows, count = score.heads // score.kv_heads, score.kv_heads * requests
    all_keys = sum(each.keys(score.window or None) for each in step.step.entries)
    all_pairs = sum(each.pairs(score.window or None) for each in step.step.entries)
    keys, tokens = requests * context, step.step.tokens

    def product(n: int, k: int, read_bytes: int) -> Product:
        cached = per_element(read_bytes, count * n * k)
        return Product(rows, n, k, count, step.dtype_bytes, cached, tiled=False)

    sent = sum(each.output_bytes for each in block.operators if each.group == "qkv")
    whole = _streamed(block.operator("softmax"))
    scores = Streamed(
        whole.name, whole.moved_bytes * keys // all_pairs, whole.flops * keys // all_pairs
    )
    return AttentionKernels(
        requests=requests,
        heads=score.heads * requests,
        head_dim=score.head_dim,
        context=context,
        element_bytes=step.kv_dtype_bytes,
        score=product(context, score.head_dim, score.kv_read_bytes * keys // all_keys),
        value=product(value.head_dim, context, value.kv_read_bytes * keys // all_keys),
        softmax=scores,
        kv_bytes=(score.kv_read_bytes + value.kv_read_bytes) * keys // all_keys,
        sent_bytes=sent * requests // tokens,
        returned_bytes=value.output_bytes * requests // tokens,
    )


def flash_parts(entries: Sequence[StepEntry], window: int | None) -> tuple[FlashPart, ...]:
    """Entries that are asked the same as one part each, in the order of their first.

    Parameters
    ----------
    entries
        Of a step.
    window
        Last tokens that one sees, itself among them; None: all before it.
    """
    alike = Counter((each.new_tokens, each.context, each.mask) for each in entries)
    shapes = {(each.new_tokens, each.context, each.mask): each for each in entries}
    return tuple(
        FlashPart(
            requests=count,
            new_tokens=shapes[shape].new_tokens,
            context=shapes[shape].context,
            keys=shapes[shape].keys(window),
            pairs=shapes[shape].pairs(window),
            causal=shapes[shape].mask is Mask.CAUSAL,
        )
        for shape, count in alike.items()
    )


def _flash(step: ForwardPass, block: Block, prompts: bool) -> Iterator[FlashAttention]:
    """The block's attention of each form, with all entries of that form, or only its
    ``prompts``."""

    def of_kind(kind: OperatorKind, entries: tuple[int, ...]) -> Operator:
        return next(
            each for each in block.operators if each.kind is kind and each.entries == entries
        )

    for score in block.operators:
        if score.kind is not OperatorKind.ATTENTION_SCORE:
            continue
        value = of_kind(OperatorKind.ATTENTION_VALUE, score.entries)
        of_form = [step.step.entries[at] for at in score.entries] or list(step.step.entries)
        entries = [each for each in of_form if not prompts or each.new_tokens > 1]
        if not entries:
            continue
        window = score.window or None
        keys = sum(each.keys(window) for each in entries)
        read = score.kv_read_bytes + value.kv_read_bytes
        read = read * keys // sum(each.keys(window) for each in of_form)
        if not read:  # keys and values that the step has made
            read = keys * score.kv_heads * (score.head_dim + value.head_dim) * step.dtype_bytes
        flops = of_kind(OperatorKind.SOFTMAX, score.entries).flops
        pairs, all_pairs = (sum(e.pairs(window) for e in some) for some in (entries, of_form))
        yield FlashAttention(
            parts=flash_parts(entries, window),
            heads=score.heads,
            kv_heads=score.kv_heads,
            key_dim=score.head_dim,
            value_dim=value.head_dim,
            window=window,
            element_bytes=step.dtype_bytes,
            key_value_bytes=per_element(read, keys * score.kv_heads),
            softmax_flops=flops * pairs // all_pairs,
        )
