"""Recorded operations of one block to operators, with sizes still those of one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pimsim.capture.placing import GEMM_OPS, Place, is_movement, layer_of, place
from pimsim.capture.recorder import (
    AppendEvent,
    AttentionEvent,
    Event,
    OpEvent,
    TensorFacts,
)

__all__ = ["Draft", "Unplaced", "drafts_of_blocks", "folded"]

OUTSIDE = {"before": -1, "after": 10**9}
_FLOATS = {"float32", "float16", "bfloat16", "float64"}


@dataclass
class Draft:
    """An operator of one run."""

    name: str
    group: str
    what: str
    """``gemm``, ``norm``, ``act``, ``rope``, ``residual``, ``route``, ``combine``, ``embed``,
    ``append``, ``attention``."""
    module: str
    size: int = 0
    """Rows, which depend on the batch."""
    facts: dict[str, object] = field(default_factory=dict)
    """What does not."""
    after: dict[str, None] = field(default_factory=dict)
    weights: dict[str, None] = field(default_factory=dict)
    """Parameters and buffers that it reads."""

    def same_but_size(self, other: Draft) -> bool:
        """Whether it is the operator of another run."""
        return (self.name, self.group, self.what, self.facts) == (
            other.name, other.group, other.what, other.facts,
        )  # fmt: skip


@dataclass(frozen=True)
class Unplaced:
    """An operation that belongs to no operator that we know."""

    op: str
    module: str


def drafts_of_blocks(events: Sequence[Event]) -> tuple[dict[int, list[Draft]], list[Unplaced]]:
    """Operators by block.

    Parameters
    ----------
    events
        What the model called, in order.

    Returns
    -------
    drafts : dict[int, list[Draft]]
        By number of the block: -1 what comes before the first, 10^9 what comes after the last.
    unplaced : list[Unplaced]
        Operations whose place is not known.
    """
    blocks: dict[int, list[Event]] = {}
    seen_layer = False
    for event in events:
        layer, _ = layer_of(event.path)
        if layer is None:
            layer = OUTSIDE["after" if seen_layer else "before"]
        else:
            seen_layer = True
        blocks.setdefault(layer, []).append(event)
    unplaced: list[Unplaced] = []
    found = {}
    for layer, mine in blocks.items():
        builder = _Builder(unplaced, _norm_names(mine), layer == OUTSIDE["before"])
        for event in mine:
            builder.take(event)
        found[layer] = builder.finished()
    return found, unplaced


def _norm_names(events: Sequence[Event]) -> set[str]:
    return {event.path.rsplit(".", 1)[-1] for event in events if "norm" in event.path}


class _Builder:
    """The operators of one block, in the order in which they began."""

    def __init__(self, unplaced: list[Unplaced], norms: set[str], before: bool) -> None:
        self.drafts: dict[str, Draft] = {}
        self.sources: dict[int, dict[str, None]] = {}
        """Operators that the tensors of a storage come from."""
        self.weights: dict[int, str] = {}
        """Parameters that tensors are copies or parts of."""
        self.unplaced = unplaced
        self.norms = norms
        self.before = before
        """It comes before the first block."""
        self.residuals = 0

    def take(self, event: Event) -> None:
        """Add what one event does."""
        if isinstance(event, AppendEvent):
            draft = self._draft("kv_append", "kv_append", "append", event)
            draft.size = event.tokens
            draft.facts = {
                "elements": event.elements_per_token, "heads": event.heads, "dim": event.dim,
            }  # fmt: skip
            self._link(draft, event)
        elif isinstance(event, AttentionEvent):
            draft = self._draft("attention", "score", "attention", event)
            draft.size = event.tokens
            draft.facts = {
                "heads": event.heads, "kv_heads": event.kv_heads, "key_dim": event.key_dim,
                "value_dim": event.value_dim, "window": event.window, "sinks": bool(event.sinks),
                "shared": event.shared,
            }  # fmt: skip
            if event.sinks:
                draft.weights[folded(event.sinks)] = None
            self._link(draft, event)
        elif event.op == "embedding":
            self._embed(event)
        elif is_movement(event):
            self._pass_on(event)
        else:
            self._operation(event)

    def _draft(self, name: str, group: str, what: str, event: Event) -> Draft:
        if name not in self.drafts:
            self.drafts[name] = Draft(name, group, what, folded(event.path))
        return self.drafts[name]

    def _link(self, draft: Draft, event: Event) -> None:
        for each in event.inputs:
            weight = self._weight(each)
            if weight and isinstance(event, OpEvent):
                draft.weights[folded(weight)] = None
            for name in self.sources.get(each.storage, ()):
                if name != draft.name:
                    draft.after[name] = None
        for each in event.outputs:
            self.sources[each.storage] = {draft.name: None}

    def _pass_on(self, event: OpEvent) -> None:
        union: dict[str, None] = {}
        for each in event.inputs:
            union |= self.sources.get(each.storage, {})
        names = [name for i in event.inputs if (name := self._weight(i))]
        written = {each.storage for each in event.outputs}
        mixed = any(
            not self._weight(i) and i.storage not in written and i.dtype in _FLOATS
            for i in event.inputs
        )
        for each in event.outputs:
            if names and not mixed:
                self.weights[each.storage] = names[0]
            # writing into a tensor adds to what it comes from
            self.sources[each.storage] = self.sources.get(each.storage, {}) | union

    def _weight(self, tensor: TensorFacts) -> str:
        return tensor.weight or self.weights.get(tensor.storage, "")

    def _embed(self, event: OpEvent) -> None:
        layer, _ = layer_of(event.path)
        if layer is not None:
            self._pass_on(event)
            return
        draft = self._draft("embed", "embed", "embed", event)
        # positions may be looked up once for all requests
        draft.size = max(draft.size, _rows(event.outputs[0]))
        draft.facts["width"] = event.outputs[0].shape[-1]
        draft.facts["tables"] = _count(draft, "tables") + 1
        self._link(draft, event)

    def _operation(self, event: OpEvent) -> None:
        where = place(event)
        if where is None:
            self._leave_out(event)
            return
        if self.before and where.group == "final_norm":
            where = Place("embed", "embed_norm")
        if not event.outputs[0].shape:  # a factor that does not depend on the tokens
            self._leave_out(event) if event.weights else self._pass_on(event)
            return
        if where.group == "angles":
            return  # a table of angles for all blocks: small, and not counted
        if event.op in GEMM_OPS:
            self._gemm(where, event)
        elif self._is_gemm(where.name):  # its bias, or a factor on its results
            draft = self.drafts[where.name]
            if event.op == "add" and event.weights:
                draft.facts["bias"] = True
            self._link(draft, event)
        elif where.group == "rope":
            self._rope(event)
        elif "norm" in where.name or where.group in ("ln1", "ln2") or "ln" in where.group:
            self._norm(where, event)
        elif where.group == "res":
            self._residual(event)
        elif where.group.endswith("act"):
            self._act(where, event)
        elif where.group in ("route", "combine", "experts"):
            self._experts(where, event)
        elif where.group == "embed":
            draft = self._draft("embed", "embed", "embed", event)
            if event.op == "mul" and event.outputs[0].shape[-1] == draft.facts.get("width"):
                draft.facts["scaled"] = True
            self._link(draft, event)
        elif where.group == "lm_head":
            self._pass_on(event)  # a factor on its input
        else:
            self._leave_out(event)

    def _is_gemm(self, name: str) -> bool:
        return name in self.drafts and self.drafts[name].what == "gemm"

    def _leave_out(self, event: OpEvent) -> None:
        self.unplaced.append(Unplaced(event.op, folded(event.path)))
        self._pass_on(event)

    def _gemm(self, where: Place, event: OpEvent) -> None:
        draft = self._draft(where.name, where.group, "gemm", event)
        known = [(i, self._weight(i)) for i in event.inputs if self._weight(i)]
        weight, weight_name = next(((i, n) for i, n in known if len(i.shape) >= 2), (None, ""))
        data = next((i for i in event.inputs if not self._weight(i)), None)
        if weight is None or data is None:
            self._leave_out(event)
            return
        out = event.outputs[0]
        count = weight.shape[0] if event.op in ("bmm", "baddbmm") else 1
        draft.size = _rows(out) // count
        bias = event.op in ("addmm", "baddbmm")
        draft.facts = {
            "n": out.shape[-1], "k": data.shape[-1], "count": count, "bias": bias,
            "weight": folded(weight_name),
        }  # fmt: skip
        if "grouped_mm" in event.op:
            draft.facts["experts"] = weight.shape[0]
        self._link(draft, event)

    def _norm(self, where: Place, event: OpEvent) -> None:
        group = where.group
        if group == "ln2" and event.path.endswith("post_attention_layernorm"):
            # what it is called in blocks with and without norms on both sides
            before = "pre_feedforward_layernorm" in self.norms
            if before or "input_layernorm" not in self.norms:
                group = "post_ln1"
        name = group if where.name == where.group else where.name
        draft = self._draft(name, group, "norm", event)
        widest = max(event.outputs, key=lambda each: each.elements)
        rows = _rows(widest)
        if widest.elements >= _count(draft, "largest"):
            draft.size = rows
            draft.facts["width"] = widest.shape[-1]
            draft.facts["largest"] = widest.elements
        centred = event.op in ("native_layer_norm", "sub")
        layer_norm = centred or draft.facts.get("function") == "layernorm"
        draft.facts["function"] = "layernorm" if layer_norm else "rmsnorm"
        self._link(draft, event)

    def _rope(self, event: OpEvent) -> None:
        draft = self._draft("rope", "rope", "rope", event)
        out = event.outputs[0]
        if out.dtype.startswith("complex") and event.op == "mul":
            draft.size += _rows(out)  # pairs of features as complex numbers
            draft.facts["width"] = out.shape[-1] * 2
        elif event.op == "sub":
            draft.facts["halves"] = True
        elif event.op == "add":
            draft.size += _rows(out)
            # turned half by half, one difference and one sum, or all at once
            draft.facts["width"] = out.shape[-1] * (2 if "halves" in draft.facts else 1)
        self._link(draft, event)

    def _residual(self, event: OpEvent) -> None:
        if event.op != "add":
            self._pass_on(event)
            return
        self.residuals += 1
        name = f"res{self.residuals}"
        draft = self._draft(name, name, "residual", event)
        out = event.outputs[0]
        draft.size = _rows(out)
        draft.facts["width"] = out.shape[-1]
        self._link(draft, event)

    def _act(self, where: Place, event: OpEvent) -> None:
        draft = self._draft(where.name, where.group, "act", event)
        functions = {"silu": "silu", "gelu": "gelu", "relu": "relu", "sigmoid": "silu",
                     "tanh": "gelu"}  # fmt: skip
        if event.op in functions and "function" not in draft.facts:
            draft.facts["function"] = functions[event.op]
        out = event.outputs[0]
        draft.size = _rows(out)
        draft.facts["width"] = out.shape[-1]
        self._link(draft, event)

    def _experts(self, where: Place, event: OpEvent) -> None:
        group = where.group
        biased = event.op == "add" and any(self._weight(i) for i in event.inputs)
        if group == "route" and biased and "router" in self.drafts:
            self.drafts["router"].facts["bias"] = True
        if group == "experts":
            done = "expert_fc2" in self.drafts
            started = "expert_fc1" in self.drafts
            if biased and started:
                draft = self.drafts["expert_fc2" if done else "expert_fc1"]
                draft.facts["bias"] = True
                self._link(draft, event)
                return
            if started and not done:
                self._act(Place("expert_act", "expert_act"), event)
                return
            group = "combine" if done else "route"
        draft = self._draft(group, group, group, event)
        out = event.outputs[0]
        if group == "route":
            if event.op in ("_softmax", "sigmoid"):
                draft.facts["scoring"] = "softmax" if event.op == "_softmax" else "sigmoid"
                draft.facts["width"] = out.shape[-1]
                draft.size = _rows(out)
        else:
            draft.facts["width"] = out.shape[-1]
            draft.size = _rows(out)
            if where.group == "combine":
                draft.facts["shared"] = True
        self._link(draft, event)

    def finished(self) -> list[Draft]:
        """The operators; glue without a size of its own joins what it serves."""
        for draft in self.drafts.values():
            draft.facts.pop("largest", None)
            if draft.what == "act":
                draft.facts["gated"] = self._gated(draft)
        empty = [name for name, draft in self.drafts.items() if not draft.size]
        for name in empty:
            gone = self.drafts.pop(name)
            for draft in self.drafts.values():
                if name in draft.after:
                    del draft.after[name]
                    draft.after |= {n: None for n in gone.after if n != draft.name}
        self._without_cycles()
        return list(self.drafts.values())

    def _gated(self, act: Draft) -> bool:
        """Whether an activation is multiplied by another product, or by half of its own: a GELU
        that is spelt out multiplies, too, but all of it comes from one product."""
        products = [self.drafts[name] for name in act.after if self._is_gemm(name)]
        return len(products) > 1 or any(
            draft.facts.get("n") == 2 * _count(act, "width") for draft in products
        )

    def _without_cycles(self) -> None:
        """Each operator after those that it waits for, the ones that began before it first.

        An activation begins before its gate's partner and still waits for it; what comes back to
        an operator that something else already waited for is glue that two share.
        """
        order = {name: at for at, name in enumerate(self.drafts)}
        wanted = [
            (order[name] > order[draft.name], draft, name)
            for draft in self.drafts.values() for name in draft.after if name in order
        ]  # fmt: skip
        for draft in self.drafts.values():
            draft.after = {}
        for later, draft, name in sorted(wanted, key=lambda each: each[0]):
            if not later or not self._waits(name, draft.name):
                draft.after[name] = None

    def _waits(self, name: str, other: str) -> bool:
        """Whether ``name`` waits for ``other``, directly or not."""
        waiting, seen = [name], set[str]()
        while waiting:
            each = waiting.pop()
            if each == other:
                return True
            if each not in seen:
                seen.add(each)
                waiting += self.drafts[each].after
        return False


def _rows(tensor: TensorFacts) -> int:
    """Vectors along the last axis."""
    return tensor.elements // tensor.shape[-1] if tensor.shape and tensor.elements else 0


def _count(draft: Draft, key: str) -> int:
    value = draft.facts.get(key, 0)
    assert isinstance(value, int)
    return value


def folded(path: str) -> str:
    """The path with the block's number left open.

    Parameters
    ----------
    path
        Of a module or parameter, with dots.

    Returns
    -------
    str
        ``{layer}`` stands where the number was.
    """
    return re.sub(r"(?<=\.)(layers|h|blocks|block)\.\d+", r"\1.{layer}", path)
