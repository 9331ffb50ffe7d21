"""What strategies that guess tokens share: draft trees, and how many guesses are right."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cached_property

from pimsim.config.decoding import DecodingSettings
from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import read_text
from pimsim.config.resources import find_source

__all__ = ["DraftTree", "made_tokens"]

_LEVELS = re.compile(r"[0-9]{1,5}(/[0-9]{1,5})*")
_MOST_NODES = 4096
_MOST_TABLE_BYTES = 2**20
_COLUMNS = ["method", "model", "tokens"]


@dataclass(frozen=True)
class DraftTree:
    """Guesses by depth; each node is a token behind its parent. Raises ``ValueError`` where there
    is no root."""

    levels: tuple[int, ...]
    """Nodes of each depth, from the root on, which is the token that is known."""

    def __post_init__(self) -> None:
        if not self.levels or self.levels[0] != 1:
            found = "/".join(map(str, self.levels))
            raise ValueError(
                f"found {found!r}, a tree without a root; the first of its levels is 1, as in "
                f"1/{found}"
            )
        if 0 in self.levels:
            raise ValueError(f"depth {self.levels.index(0)} has no node; leave it out")
        if self.nodes > _MOST_NODES:
            raise ValueError(f"{self.nodes} nodes; at most {_MOST_NODES} are possible")

    @classmethod
    def of(cls, text: str) -> DraftTree:
        """The tree of ``1/10/28``.

        Parameters
        ----------
        text
            Nodes by depth, from the root on.

        Raises
        ------
        ValueError
            For anything else.
        """
        if not _LEVELS.fullmatch(text):
            raise ValueError(f"found {text!r}; expected nodes by depth from the root on, 1/10/28")
        return cls(tuple(map(int, text.split("/"))))

    @cached_property
    def nodes(self) -> int:
        """All of them, the root too."""
        return sum(self.levels)

    @property
    def depth(self) -> int:
        """Tokens of the longest branch, the root apart."""
        return len(self.levels) - 1


def made_tokens(settings: DecodingSettings, depth: int, strategy: str) -> float:
    """Tokens that a step makes on average, the one that the model adds itself included.

    Parameters
    ----------
    settings
        Which say how often drafts are right.
    depth
        Drafts behind one another, the most that can be right.
    strategy
        Name of it in a table of measured acceptance.

    Returns
    -------
    float
        1 to ``depth`` + 1. Of independent acceptance ``a`` the sum of ``a^k`` for k up to
        ``depth`` (Leviathan et al. 2023, arXiv 2211.17192, equation 1).

    Raises
    ------
    InputError
        For more tokens than there can be, or a table that does not have the strategy.
    """
    if settings.acceptance is not None:
        return float(sum(settings.acceptance**k for k in range(depth + 1)))
    said = settings.tokens
    if said is None:
        assert settings.measured is not None
        said = _measured(settings.measured, strategy)
    if said > depth + 1:
        raise InputError(
            f"workload.decoding: {strategy} makes at most {depth + 1} tokens a step with drafts "
            f"of depth {depth}; found {said:g}"
        )
    return said


def _measured(where: str, strategy: str) -> float:
    """Tokens a step of a strategy, in a CSV of ``method, model, tokens``."""
    table, _, model = where.rpartition("/")
    key = f"workload.decoding: {strategy}: measured"
    if not table or not model:
        raise InputError(f"{key}: found {where!r}; expected TABLE/MODEL, spec-bench/vicuna-7b")
    path = find_source("acceptance", table)
    text = read_text(path, "a table of acceptance", _MOST_TABLE_BYTES)
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    if not rows or rows[0] != _COLUMNS:
        raise InputError(f"{path}: its columns must be {','.join(_COLUMNS)}")
    models: list[str] = []
    for number, row in enumerate(rows[1:], 2):
        try:
            method, name, tokens = row
            value = float(tokens)
        except ValueError:
            raise InputError(f"{path}: row {number}: found {','.join(row)!r}") from None
        if method != strategy:
            continue
        models.append(name)
        if name == model:
            if not 1 <= value <= 1000:
                raise InputError(f"{path}: row {number}: tokens is {tokens}; allowed: 1 to 1000")
            return value
    if not models:
        raise InputError(f"{key}: {path.name} has no row of {strategy}")
    raise InputError(
        f"{key}: {path.name} has no {model!r} of {strategy}{near_miss(model, models)}; it has "
        f"{', '.join(models)}"
    )
