"""What techniques do to a real model's text, measured: how often guesses are right, what a cache
that is read in part or a narrow format costs, what the host takes.

One module holds one measurement and is named after the technique; what it calls ``MEASUREMENT`` is
a subclass of ``Measurement``. ``pimsim measure`` asks for it by ``NAME:KEY=VALUE,...``. Each row
that is measured says the keys of ``workload`` with which a run has it, so that what was measured is
what is simulated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from pimsim.capture.loading import LoadedModel
from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.config.settings_text import load_of_text

__all__ = [
    "WRITTEN",
    "Measured",
    "MeasuredRow",
    "Measurement",
    "OnText",
    "Quality",
    "Subject",
    "listed",
    "load_measurement",
    "numbers",
    "smallest_within",
]  # fmt: skip


@dataclass(frozen=True)
class MeasuredRow:
    """One choice of a technique's keys."""

    name: str
    figures: Mapping[str, float]
    """By the names of ``Measurement.FIGURES``."""
    workload: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a run's ``workload``; none where the row is there to be compared with."""


@dataclass(frozen=True)
class Measured:
    """What was found."""

    rows: tuple[MeasuredRow, ...]
    text: str
    """What was read, and how much of it."""
    chosen: int | None = None
    """The row that a run is given; None: none is good enough."""
    why: str = ""
    """Why it is that row."""


@dataclass(frozen=True)
class Subject:
    """A model with weights, and the texts that it reads."""

    loaded: LoadedModel
    encode: Callable[[str], list[int]]
    texts: Mapping[str, tuple[str, Callable[[], str]]]
    """By name: what each is, and what gathers it."""
    report: Callable[[str], None]
    """Hears what is being done."""

    def piece(self, name: str, tokens: int, begin: float = 0.0) -> list[int]:
        """Token ids of a text.

        Parameters
        ----------
        name
            Of the text.
        tokens
            That are needed.
        begin
            Part of the text that is passed over.

        Raises
        ------
        InputError
            Where there are fewer.
        """
        text = self.texts[name][1]()
        start = int(len(text) * begin)
        # a token has at most so many characters, on average over a text
        ids = self.encode(text[start : start + 40 * tokens])
        if len(ids) < tokens:
            raise InputError(f"the text {name!r} has {len(ids)} tokens, {tokens} are needed")
        return ids[:tokens]

    def text_of(self, name: str | None) -> str:
        """The text that is read: the one that is given, or ``name``.

        Parameters
        ----------
        name
            That the settings ask for.

        Raises
        ------
        InputError
            For an unknown name.
        """
        if len(self.texts) == 1:
            return next(iter(self.texts))
        assert name is not None
        if name not in self.texts:
            raise InputError(f"text is {name!r}; allowed: {', '.join(self.texts)}")
        return name


class Measurement(ABC):
    """What can be found out of a technique.

    Parameters
    ----------
    settings : ConfigModel
        As ``Settings`` has them.
    """

    Settings: ClassVar[type[ConfigModel]]
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]]
    """By name: what a table calls a figure, and how it is written."""
    EXTRA: ClassVar[str] = "torch"
    """Of pimsim's distribution, that it needs beside ``torch``."""

    def __init__(self, settings: ConfigModel) -> None:
        self.settings = settings

    @abstractmethod
    def measure(self, subject: Subject) -> Measured:
        """Read texts with the model.

        Parameters
        ----------
        subject
            Model and texts.

        Raises
        ------
        InputError
            Where the model has not what the technique needs.
        """


class OnText(ConfigModel):
    """A measurement that reads one text."""

    text: str = "prose"
    """docs, prose or code of the standard library, where no file is given."""
    tokens: int = Field(default=1024, ge=16, le=100_000)
    """That are read."""


class Quality(OnText):
    """A measurement of perplexity."""

    rise: float = Field(default=20.0, ge=0, le=1e6)
    """What perplexity may rise by in the row that a run is given, percent."""


def listed(least: int, most: int) -> AfterValidator:
    """What checks a key that lists whole numbers, as ``64/128/256``.

    Parameters
    ----------
    least, most
        That are allowed.
    """

    def check(value: str) -> str:
        parts = value.split("/")
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise ValueError(f"found {value!r}; whole numbers are expected, as 64/128/256")
        found = numbers(value)
        outside = [each for each in found if not least <= each <= most]
        if outside:
            raise ValueError(f"found {outside[0]} in {value!r}; allowed: {least} to {most:,}")
        if len(set(found)) < len(found):
            raise ValueError(f"found {value!r}; each number is given once")
        return value

    return AfterValidator(check)


def _written(value: Any) -> Any:
    """One number is a list, too."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


WRITTEN = BeforeValidator(_written)
"""Of a list."""


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a checked list.

    Parameters
    ----------
    text
        As ``64/128/256``.
    """
    return tuple(map(int, text.split("/")))


def smallest_within(
    rows: Sequence[MeasuredRow], cost: str, figure: str, limit: float, *, at_least: bool = False
) -> int | None:
    """The row of least cost whose figure keeps a limit.

    Parameters
    ----------
    rows
        Of a measurement; those without keys of a run are not looked at.
    cost
        A figure.
    figure
        That must keep the limit.
    limit
        Most that it may be.
    at_least
        The limit is the least that it may be.

    Returns
    -------
    int | None
        Its place; None: no row keeps the limit.
    """
    good = [
        at for at, row in enumerate(rows) if row.workload
        and (row.figures[figure] >= limit if at_least else row.figures[figure] <= limit)
    ]  # fmt: skip
    return min(good, key=lambda at: rows[at].figures[cost], default=None)


def load_measurement(text: str) -> Measurement:
    """The measurement that a command asks for.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...``.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    InputError
        Where a module has no measurement.
    """
    return load_of_text("measurement", text, Measurement)  # type: ignore[type-abstract]
