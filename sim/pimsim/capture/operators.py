"""Drafts of several runs to symbolic operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pimsim.capture.drafts import Draft
from pimsim.config.errors import InputError
from pimsim.workload.fit_forms import fit_form
from pimsim.workload.operators import OperatorKind
from pimsim.workload.symbolic import OperatorMaker
from pimsim.workload.trace import OperandRole, Shard, SymbolicOperator

__all__ = ["hold_to_parameters", "symbolic_block"]

_SHARDS = {
    "qkv": Shard.COLUMNS, "fc1": Shard.COLUMNS, "kv_b": Shard.COLUMNS, "q_b": Shard.COLUMNS,
    "lm_head": Shard.COLUMNS, "shared_fc1": Shard.COLUMNS, "expert_fc1": Shard.COLUMNS,
    "proj": Shard.ROWS, "fc2": Shard.ROWS, "shared_fc2": Shard.ROWS, "expert_fc2": Shard.ROWS,
    "absorb_k": Shard.HEADS, "absorb_v": Shard.HEADS,
}  # fmt: skip


def symbolic_block(
    runs: Sequence[Sequence[Draft]], samples: Sequence[Mapping[str, int]], make: OperatorMaker,
    parameters: Mapping[str, int], experts_per_token: int, decode: bool, where: str,
) -> list[SymbolicOperator]:  # fmt: skip
    """The operators of a block, from the drafts of the same block in several runs.

    Parameters
    ----------
    runs
        Drafts of each run.
    samples
        Tokens ``T`` and requests ``B`` of each run.
    make
        Makes operators with the model's element size.
    parameters
        Elements of each of the block's parameters, by name with ``{layer}``.
    experts_per_token
        Of the router; 0 without one.
    decode
        Whether runs are of decode, where ``T`` and ``B`` are the same.
    where
        Model and block, for messages.

    Returns
    -------
    list[SymbolicOperator]
        In the order of the drafts.

    Raises
    ------
    InputError
        Where runs differ in more than sizes, or a size is no whole linear form of tokens and
        requests.
    """
    first = runs[0]
    for other in runs[1:]:
        if len(other) != len(first) or not all(map(Draft.same_but_size, first, other)):
            raise InputError(f"{where}: its operations depend on the batch in more than their size")
    attention = next((draft for draft in first if draft.what == "attention"), None)
    block = _Block(make, attention, parameters, experts_per_token, decode)
    operators: list[SymbolicOperator] = []
    for at, draft in enumerate(first):
        sizes = [run[at].size for run in runs]
        symbols = ("1", "T") if decode else ("1", "T", "B")
        form = fit_form(sizes, samples, symbols)
        if form is None:
            raise InputError(
                f"{where}: {draft.name} has {sizes} rows in runs of "
                f"{[dict(sample) for sample in samples]}: no whole linear form of tokens and "
                "requests"
            )
        operators += block.operators(draft, form, where)
    return operators


def hold_to_parameters(
    operators: Sequence[SymbolicOperator], drafts: Sequence[Draft],
    parameters: Mapping[str, int], element_bytes: int, where: str,
) -> None:  # fmt: skip
    """Hold a block's weight bytes to its parameters: each is read, and no more than there is.

    Parameters
    ----------
    operators
        Of the block.
    drafts
        What they were made of.
    parameters
        Elements of each of the block's parameters, by name with ``{layer}``.
    element_bytes
        Of a weight.
    where
        Model and block, for messages.

    Raises
    ------
    InputError
        With the first parameter that no operator reads, or where sums differ.
    """
    seen = {name for draft in drafts for name in draft.weights}
    unread = [name for name in parameters if name not in seen]
    if unread:
        raise InputError(
            f"{where}: no operator reads {unread[0]}, one of {len(unread)} parameters that are "
            "left over; this architecture is not supported"
        )
    experts = max([int(str(draft.facts.get("experts", 0))) for draft in drafts], default=0)
    counted = 0
    for operator in operators:
        form = operator.bytes_of(OperandRole.WEIGHT, write=False)
        counted += form.get("1", 0) + form.get("E", 0) * experts
    elements = sum(parameters.values())
    if counted != elements * element_bytes:
        raise InputError(
            f"{where}: its operators read {counted // element_bytes:,} weights, it has "
            f"{elements:,}; this architecture is not supported"
        )


class _Block:
    def __init__(
        self, make: OperatorMaker, attention: Draft | None, parameters: Mapping[str, int],
        experts_per_token: int, decode: bool,
    ) -> None:  # fmt: skip
        self.make = make
        self.parameters = parameters
        self.attention: Mapping[str, Any] = attention.facts if attention else {}
        self.experts_per_token = experts_per_token
        self.decode = decode

    def operators(self, draft: Draft, form: dict[str, int], where: str) -> list[SymbolicOperator]:
        """One operator, or the three of attention."""
        after = tuple("value" if name == "attention" else name for name in draft.after)
        after = tuple(dict.fromkeys(after))
        facts: Mapping[str, Any] = draft.facts
        made = getattr(self, f"_{draft.what}")(draft, form, facts, after, where)
        result = made if isinstance(made, list) else [made]
        return [each.model_copy(update={"module": draft.module}) for each in result]

    def _symbol(self, draft: Draft, form: dict[str, int], where: str) -> str:
        """The one symbol that a product's rows are."""
        if draft.group == "lm_head" and form in ({"B": 1}, {"T": 1}):
            return "L"  # one row of logits a request is asked for
        if draft.group.startswith("expert") and form == {"T": self.experts_per_token}:
            return "A"
        if form == {"T": 1}:
            return "T"
        raise InputError(f"{where}: {draft.name} has {form} rows, which is no number of tokens")

    def _gemm(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        group = draft.group
        expert = group.startswith("expert")
        if expert and "experts" not in facts:
            raise InputError(
                f"{where}: {draft.name} works on every expert for every token, so which experts "
                "tokens go to is not seen; this architecture is not supported"
            )
        kind = OperatorKind.EXPERT_GEMM if expert else OperatorKind.GEMM
        kind = OperatorKind.ROUTER if group == "router" else kind
        heads = self.attention.get("heads", 0)
        keys = self.attention.get("kv_heads", 0)
        return self.make.gemm(
            draft.name, facts["n"], facts["k"], after, group=group,
            shard=_SHARDS.get(group, Shard.NONE), bias=facts["bias"],
            m=self._symbol(draft, form, where), count=facts["count"], kind=kind,
            heads=heads if draft.name == "q" or facts["count"] > 1 else 0,
            kv_heads=keys if draft.name in ("k", "v") else 0,
            dim=self.attention.get("key_dim", 0) if group == "qkv" else 0,
            weight_name=facts["weight"],
        )  # fmt: skip

    def _norm(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        of_heads = draft.group == "qk_norm" and facts["width"] == self.attention.get("key_dim")
        shard = Shard.HEADS if of_heads else Shard.NONE
        if draft.group == "qk_norm" and not of_heads:
            shard = Shard.COLUMNS
        queries = draft.name == "q_norm"
        return self.make.norm(
            draft.name, facts["width"], facts["function"], after, group=draft.group, rows=form,
            parameters=sum(self.parameters.get(name, 0) for name in draft.weights),
            weight_name=next(iter(draft.weights), ""),
            shard=shard, heads=form["T"] if of_heads and queries else 0,
            kv_heads=form["T"] if of_heads and not queries else 0,
        )  # fmt: skip

    def _rope(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        heads = self.attention["heads"]
        dim = facts["width"] if self.attention["shared"] else self.attention["key_dim"]
        return self.make.rope(heads, form["T"] - heads, facts["width"], dim, after)

    def _append(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        return self.make.append(facts["elements"], facts["heads"], facts["dim"], after)

    def _attention(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> list[SymbolicOperator]:  # fmt: skip
        cached = tuple(name for name in after if name in ("kv_append", "kv_b"))
        return self.make.scores(
            facts["heads"], facts["kv_heads"], facts["key_dim"], facts["value_dim"],
            facts["window"], after, ("softmax", *cached), shared=facts["shared"],
            sinks=facts["sinks"],
        )  # fmt: skip

    def _act(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        rows = form
        if draft.group.startswith("expert"):
            rows = {self._symbol(draft, form, where): 1}
        if "function" not in facts:
            raise InputError(
                f"{where}: {draft.name}: the activation function is none of silu, gelu, relu"
            )
        gated = bool(facts.get("gated"))
        return self.make.activate(draft.name, rows, facts["width"], facts["function"], gated, after)

    def _residual(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        return self.make.residual(draft.name, facts["width"], after)

    def _route(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        return self.make.route(facts["width"], facts["scoring"], after)

    def _combine(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        return self.make.combine(facts["width"], bool(facts.get("shared")), after)

    def _embed(
        self, draft: Draft, form: dict[str, int], facts: Mapping[str, Any], after: tuple[str, ...],
        where: str,
    ) -> SymbolicOperator:  # fmt: skip
        return self.make.embed(facts["width"], facts["tables"], bool(facts.get("scaled")))
