"""Whether two traces of a model say the same: a card's and an export's, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pimsim.workload.trace import OperandRole, OperatorTrace, SymbolicOperator

__all__ = ["Disagreement", "disagreements"]

Form = Mapping[str, int]
_SIZES = ("FLOPs", "weight bytes", "KV bytes read", "KV bytes written")


@dataclass(frozen=True)
class Disagreement:
    """A size that differs."""

    phase: str
    block: str
    group: str
    size: str
    ours: Form
    theirs: Form

    def __str__(self) -> str:
        where = f"{self.phase}, block {self.block}, {self.group}"
        return f"{where}: {self.size} {dict(self.ours)} and {dict(self.theirs)}"


def disagreements(ours: OperatorTrace, theirs: OperatorTrace) -> Iterator[Disagreement]:
    """Every group of every kind of block, in both phases, whose sizes are not the same form.

    Kinds of block are matched by the blocks that have them, so their names may differ; a
    different order of kinds is a disagreement of the group ``blocks``.
    """
    for phase in ours.phases:
        if phase not in theirs.phases:
            continue
        mine, other = ours.phases[phase], theirs.phases[phase]
        pairs = dict.fromkeys(zip(mine.sequence(), other.sequence(), strict=False))
        kinds = {(len(set(mine.sequence())), len(set(other.sequence())), len(pairs))}
        if len(kinds) != 1 or len({*next(iter(kinds))}) != 1:
            yield Disagreement(
                phase, "all", "blocks", "kinds",
                {kind: list(mine.sequence()).count(kind) for kind in mine.sequence()},
                {kind: list(other.sequence()).count(kind) for kind in other.sequence()},
            )  # fmt: skip
        outer = [(mine.before, other.before), (mine.after, other.after)]
        for a, b in [*pairs, *((x, y) for x, y in outer if x is not None and y is not None)]:
            left, right = _groups(mine.blocks[a]), _groups(other.blocks[b])
            for group in dict.fromkeys([*left, *right]):
                for at, size in enumerate(_SIZES):
                    one = left[group][at] if group in left else {}
                    two = right[group][at] if group in right else {}
                    if one != two:
                        yield Disagreement(phase, a, group, size, one, two)


def _groups(operators: tuple[SymbolicOperator, ...]) -> dict[str, list[dict[str, int]]]:
    """By group: FLOPs, weight bytes, KV bytes read and written, added up over its operators."""
    found: dict[str, list[dict[str, int]]] = {}
    for operator in operators:
        sums = found.setdefault(operator.group, [{} for _ in _SIZES])
        forms = (
            operator.flops,
            operator.bytes_of(OperandRole.WEIGHT, write=False),
            operator.bytes_of(OperandRole.KV, write=False),
            operator.bytes_of(OperandRole.KV, write=True),
        )
        for total, form in zip(sums, forms, strict=True):
            for symbol, coefficient in form.items():
                total[symbol] = total.get(symbol, 0) + coefficient
    return found
