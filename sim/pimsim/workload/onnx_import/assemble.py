"""Parts at several sizes to symbolic operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.workload.canonical import canonical_block
from pimsim.workload.fit_forms import fit_form
from pimsim.workload.onnx_import.formats import ElementType, Stored
from pimsim.workload.onnx_import.parts import GraphPart
from pimsim.workload.onnx_import.reading import count_elements
from pimsim.workload.onnx_import.shapes import Value
from pimsim.workload.operators import OperatorKind
from pimsim.workload.symbolic import OperatorMaker
from pimsim.workload.trace import Operand, OperandRole, Shard, SymbolicOperator

__all__ = ["Runs", "block_operators"]

_SHARDS = {
    "qkv": Shard.COLUMNS, "fc1": Shard.COLUMNS, "shared_fc1": Shard.COLUMNS,
    "expert_fc1": Shard.COLUMNS, "lm_head": Shard.COLUMNS, "proj": Shard.ROWS, "fc2": Shard.ROWS,
    "shared_fc2": Shard.ROWS, "expert_fc2": Shard.ROWS,
}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """The values of a graph at several sizes, of one phase."""

    values: Sequence[Mapping[str, Value]]
    tokens: Sequence[Mapping[str, int]]
    """Tokens ``T`` and requests ``B`` of each."""
    decode: bool
    activations: ElementType

    def rows(self, name: str, where: str) -> dict[str, int]:
        """A value's vectors along the last axis, as a form."""
        sizes = []
        for values in self.values:
            value = values.get(name)
            if value is None or value.shape is None:
                raise InputError(f"{where}: the shape of {name!r} could not be found")
            sizes.append(count_elements(value.shape[:-1]))
        form = fit_form(sizes, self.tokens, ("1", "T") if self.decode else ("1", "T", "B"))
        if form is None:
            raise InputError(
                f"{where}: {name!r} has {sizes} rows, no whole form of tokens and requests"
            )
        return form


def block_operators(
    parts: Sequence[GraphPart], runs: Runs, where: str
) -> tuple[SymbolicOperator, ...]:
    """The operators of one block, or of what is before or after them, in the cards' order.

    Parameters
    ----------
    parts
        Of one block, each after those that it needs.
    runs
        The graph at several sizes.
    where
        What messages call the block.

    Raises
    ------
    InputError
        Where a product has another number of rows than tokens.
    """
    attention = next((part for part in parts if part.what == "attention"), None)
    maker = _Maker(runs, attention, where)
    inside = set(parts)
    operators: list[SymbolicOperator] = []
    for part in parts:
        after = tuple(
            "value" if other.what == "attention" else other.name
            for other in part.after if other in inside
        )  # fmt: skip
        operators += maker.operators(part, after)
    return canonical_block(operators)


class _Maker:
    def __init__(self, runs: Runs, attention: GraphPart | None, where: str) -> None:
        self.runs, self.attention, self.where = runs, attention, where
        kind = runs.activations
        cache = attention.facts["cache"] if attention is not None else kind
        self.make = OperatorMaker(
            max(kind.bits // 8, 1), max(cache.bits // 8, 1), kind.name, cache.name
        )
        self.cache = cache

    def operators(self, part: GraphPart, after: tuple[str, ...]) -> list[SymbolicOperator]:
        """One operator, or the three of attention."""
        made = getattr(self, f"_{part.what}")(part, after)
        found = made if isinstance(made, list) else [made]
        return [self._cached(each.model_copy(update={"module": part.module})) for each in found]

    def _cached(self, operator: SymbolicOperator) -> SymbolicOperator:
        """The operator with the cache's bytes, where its elements are narrower than one."""
        bits = self.cache.bits
        if bits >= 8 or not any(o.role is OperandRole.KV for o in operator.operands):
            return operator
        operands = tuple(
            operand.model_copy(
                update={"bytes": {s: -(-each * bits // 8) for s, each in operand.bytes.items()}}
            )
            if operand.role is OperandRole.KV else operand
            for operand in operator.operands
        )  # fmt: skip
        return operator.model_copy(update={"operands": operands})

    def _with(
        self, operator: SymbolicOperator, weights: Sequence[Stored], once: str = "1",
        per: int = 1, whole: Sequence[bool] = (),
    ) -> SymbolicOperator:  # fmt: skip
        """The operator with its weights as the file keeps them; ``per``: one of so many."""
        operands = []
        for at, weight in enumerate(weights):
            for piece in weight.pieces:
                if piece.bytes % per:
                    raise InputError(
                        f"{self.where}: {piece.bytes:,} bytes of {weight.name!r} are not shared by "
                        f"{per:,}"
                    )
                if piece.bytes:
                    name = weight.name if piece.what == "weight" else f"{weight.name}.{piece.what}"
                    operands.append(
                        Operand(
                            name=name, role=OperandRole.WEIGHT, dtype=piece.dtype,
                            bytes={once: piece.bytes // per},
                            whole=bool(whole[at]) if at < len(whole) else False,
                        )
                    )  # fmt: skip
        rest = [each for each in operator.operands if each.role is not OperandRole.WEIGHT]
        return operator.model_copy(update={"operands": (*operands, *rest)})

    def _product(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        facts, group = part.facts, part.group
        shard = _SHARDS.get(group, Shard.NONE)
        experts = facts["experts"]
        kind = OperatorKind.EXPERT_GEMM if experts else OperatorKind.GEMM
        kind = OperatorKind.ROUTER if group == "router" else kind
        attention = self.attention.facts if self.attention is not None else {}
        made = self.make.gemm(
            part.name, facts["n"], facts["k"], after, group=group, shard=shard,
            m=self._symbol(part), kind=kind,
            heads=attention.get("heads", 0) if part.name == "q" else 0,
            kv_heads=attention.get("kv_heads", 0) if part.name in ("k", "v") else 0,
            dim=attention.get("key_dim", 0) if group == "qkv" else 0,
        )  # fmt: skip
        whole = [False] + [shard is Shard.ROWS] * (len(part.weights) - 1)
        return self._with(made, part.weights, "E" if experts else "1", max(experts, 1), whole)

    def _symbol(self, part: GraphPart) -> str:
        """The one symbol that a product's rows are."""
        if part.facts["experts"]:
            return "A"
        form = self.runs.rows(part.out, self.where)
        if part.name == "lm_head" and form in ({"T": 1}, {"B": 1}):
            return "L"  # one row of logits a request is asked for
        if form != {"T": 1}:
            raise InputError(
                f"{self.where}: {part.name} has {form} rows, which is no number of tokens"
            )
        return "T"

    def _norm(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        facts = part.facts
        count = facts.get("count")
        form = {"T": count} if count else self.runs.rows(part.out, self.where)
        shard, heads, keys = Shard.NONE, 0, 0
        if part.group == "qk_norm":
            assert self.attention is not None
            shard = Shard.COLUMNS
            if facts["width"] == self.attention.facts["key_dim"]:
                shard = Shard.HEADS
                heads, keys = (form["T"], 0) if part.name == "q_norm" else (0, form["T"])
        made = self.make.norm(
            part.name, facts["width"], facts["function"], after, group=part.group, rows=form,
            shard=shard, heads=heads, kv_heads=keys, parameters=0,
        )  # fmt: skip
        whole = [shard is Shard.HEADS and sum(w.elements for w in part.weights)
                 <= 2 * facts["width"]] * len(part.weights)  # fmt: skip
        return self._with(made, part.weights, whole=whole)

    def _rope(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        assert self.attention is not None
        facts = self.attention.facts
        turned = part.facts["width"]
        if not 0 < turned <= facts["key_dim"]:
            raise InputError(
                f"{self.where}: {turned} features of {facts['key_dim']} a head are turned"
            )
        return self.make.rope(facts["heads"], facts["kv_heads"], turned, facts["key_dim"], after)

    def _append(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        facts = part.facts
        size = facts["kv_heads"] * (facts["key_dim"] + facts["value_dim"])
        return self.make.append(size, facts["kv_heads"], facts["key_dim"], after)

    def _attention(self, part: GraphPart, after: tuple[str, ...]) -> list[SymbolicOperator]:
        facts = part.facts
        score, softmax, value = self.make.scores(
            facts["heads"], facts["kv_heads"], facts["key_dim"], facts["value_dim"],
            facts["window"], after, ("softmax", "kv_append"),
        )  # fmt: skip
        if facts["sinks"] is not None:
            softmax = self._with(softmax, [facts["sinks"]])
        return [score, softmax, value]

    def _act(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        facts = part.facts
        rows = {"A": 1} if facts["experts"] else {"T": 1}
        return self.make.activate(
            part.name, rows, facts["width"], facts["function"], facts["gated"], after
        )

    def _residual(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        return self.make.residual(part.name, part.facts["width"], after)

    def _route(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        return self.make.route(part.facts["width"], part.facts["scoring"], after)

    def _combine(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        return self.make.combine(part.facts["width"], part.facts["shared"], after)

    def _embed(self, part: GraphPart, after: tuple[str, ...]) -> SymbolicOperator:
        facts = part.facts
        made = self.make.embed(facts["width"], facts["tables"], facts["scaled"])
        operands = []
        for weight in part.weights:
            rows = weight.elements // facts["width"]
            row = self._with(made, [weight], "T", rows)
            operands += [each for each in row.operands if each.role is OperandRole.WEIGHT]
        rest = [each for each in made.operands if each.role is not OperandRole.WEIGHT]
        return made.model_copy(update={"operands": (*operands, *rest)})
