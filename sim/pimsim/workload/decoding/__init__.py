"""Decoding strategies: which steps a request asks for, and how many tokens come out of one.

One module holds one strategy and is named after it; what it calls ``STRATEGY`` is a subclass of
``DecodingStrategy``. A run asks for it by ``workload.decoding``. A strategy is made of few parts,
which ``rounds`` turns into a run's steps: rows that a request is fed, and which of them see each
other; weights and heads beside the model; a model that drafts, with the passes that it takes; and
the host's time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pimsim.config.decoding import DecodingSettings
from pimsim.config.settings_text import load_of_text
from pimsim.workload.requests import Request
from pimsim.workload.speculation import made_tokens
from pimsim.workload.step import Mask, StepEntry
from pimsim.workload.trace import OperatorTrace

__all__ = ["DecodingStrategy", "Drafter", "fed_behind", "load_strategy"]


@dataclass(frozen=True)
class Drafter:
    """What guesses, and how often in a step."""

    trace: OperatorTrace
    rows: int
    """Tokens of a request that a pass is fed."""
    passes: int
    """One after the other, each behind what the one before it guessed."""
    held_bytes: int
    """Parameters that are its own: the model's tables may be its tables, too."""
    mask: Mask = Mask.CAUSAL
    shares_cache: bool = False
    """Its cache is a part of the model's."""


class DecodingStrategy(ABC):
    """How tokens are made.

    Parameters
    ----------
    settings : DecodingSettings
        As ``Settings`` has them.
    """

    Settings: ClassVar[type[DecodingSettings]] = DecodingSettings
    mask: ClassVar[Mask] = Mask.CAUSAL
    """Of the tokens that the model is fed."""
    beside_blocks: ClassVar[bool] = True
    """It works beside the decoder blocks (heads, a drafter), so that a run must have
    ``workload.outside``."""

    def __init__(self, settings: DecodingSettings) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def name(self) -> str:
        """As a table of measured acceptance calls it."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Tokens of a request that the model is fed in a step, each with a row of logits."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Most drafts of a step that can be right."""

    @property
    def made(self) -> float:
        """Tokens that a step makes on average, the model's own included. Raises ``InputError``
        where it cannot make so many."""
        return made_tokens(self.settings, self.depth, self.name)

    @property
    def advances(self) -> float:
        """Tokens that a request is further on after a round, on average: those that are made."""
        return self.made

    def passes(self, request: Request, ahead: int, made: int) -> list[StepEntry]:
        """What the model is fed of a request in a round, pass after pass.

        Parameters
        ----------
        request
            Of the batch.
        ahead
            Tokens that it has made since the run began.
        made
            That it makes in this round.
        """
        return [fed_behind(request, ahead, self.rows, self.mask, made)]

    def model(self, trace: OperatorTrace, requests: int) -> OperatorTrace:
        """The model with what the strategy adds to a pass that verifies.

        Parameters
        ----------
        trace
            Of the model alone.
        requests
            Of a step.
        """
        return trace

    def drafter(self, trace: OperatorTrace) -> Drafter | None:
        """What guesses; None: the model itself, or the host.

        Parameters
        ----------
        trace
            Of the model alone.
        """
        return None

    def inputs(self) -> Mapping[str, tuple[str, str]]:
        """What it reads: kind and name of a source, by key of its settings."""
        measured = self.settings.measured
        table = "" if measured is None else measured.rpartition("/")[0]
        return {"measured": ("acceptance", table)} if table else {}


def fed_behind(request: Request, ahead: int, rows: int, mask: Mask, made: int) -> StepEntry:
    """``rows`` tokens behind those that the request has made.

    Parameters
    ----------
    request
        Of the batch.
    ahead
        Tokens that it has made since the run began.
    rows
        That are fed, each with a row of logits.
    mask
        Which of them see each other.
    made
        Tokens of the request in the step.
    """
    cached = request.context - 1 + ahead
    return StepEntry(request, rows, cached + rows, rows, min(made, rows), mask)


def load_strategy(text: str) -> DecodingStrategy:
    """The strategy of ``workload.decoding``.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...``.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    InputError
        Where a module has no strategy.
    """
    return load_of_text("decoding", text, DecodingStrategy)  # type: ignore[type-abstract]
