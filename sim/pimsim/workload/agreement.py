"""Whether two traces of a model say the same: a card's and an export's, group by group.

A group of one may be several operators of the other (queries, keys and values), so what is compared
are sums of sizes, and which kinds, functions, cuts and earlier groups there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pimsim.workload.trace import OperandRole, OperatorTrace, SymbolicOperator

__all__ = ["Disagreement", "disagreements"]

Form = Mapping[str, int]
_SIZES = ("FLOPs", "weight bytes", "KV bytes read", "KV bytes written")
_FACTS = ("kinds", "functions", "shards", "windows", "after")


@dataclass(frozen=True)
class Disagreement:
    """A size, or a fact, that differs."""

    phase: str
    block: str
    group: str
    size: str
    ours: Form
    """Coefficients by symbol; of facts, how many operators have each."""
    theirs: Form

    def __str__(self) -> str:
        where = f"{self.phase}, block {self.block}, {self.group}"
        return f"{where}: {self.size} {dict(self.ours)} and {dict(self.theirs)}"


def disagreements(ours: OperatorTrace, theirs: OperatorTrace) -> Iterator[Disagreement]:
    """Every group of every kind of block, in both phases, whose sizes are not the same form, or
    whose facts are not the same.

    Kinds of block are matched by the blocks that have them, so their names may differ; a
    different order of kinds is a disagreement of the group ``blocks``.

    Parameters
    ----------
    ours
        One trace.
    theirs
        The other, of the same model.
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
                one, two = left.get(group, {}), right.get(group, {})
                for size in (*_SIZES, *_FACTS):
                    ours_is, theirs_is = one.get(size, {}), two.get(size, {})
                    same = ours_is == theirs_is
                    if size in _FACTS:
                        same = set(ours_is) == set(theirs_is)
                    if not same:
                        yield Disagreement(phase, a, group, size, ours_is, theirs_is)


def _groups(operators: tuple[SymbolicOperator, ...]) -> dict[str, dict[str, dict[str, int]]]:
    """By group: sizes added up over its operators, and how many of these have each fact."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    before: dict[str, set[str]] = {}
    # groups that an operator needs, through others too: one trace may say it by a detour
    for operator in operators:
        sums = found.setdefault(operator.group, {name: {} for name in (*_SIZES, *_FACTS)})
        after = {group for name in operator.depends_on for group in before[name]}
        before[operator.name] = after | {operator.group}
        forms: tuple[Form, ...] = (
            operator.flops,
            operator.bytes_of(OperandRole.WEIGHT, write=False),
            operator.bytes_of(OperandRole.KV, write=False),
            operator.bytes_of(OperandRole.KV, write=True),
            {str(operator.kind): 1},
            {operator.function: 1},
            {str(operator.shard): 1},
            {str(operator.window): 1},
            dict.fromkeys(sorted(after - {operator.group}), 1),
        )
        for total, form in zip(sums.values(), forms, strict=True):
            for symbol, coefficient in form.items():
                total[symbol] = total.get(symbol, 0) + coefficient
    return found
