"""What decoding strategies have in common, and how one is written in a config."""

from __future__ import annotations

from pydantic import Field, ValidationError, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.config.plugins import ModuleName, load_module
from pimsim.config.schema import explain
from pimsim.config.tree import Entry, Scalar, parse_text

__all__ = ["NO_DECODING", "DecodingSettings", "decoding_settings"]

NO_DECODING = "none"
"""Of ``workload.decoding``: a token a step."""
_FORM = "NAME or NAME:KEY=VALUE,KEY=VALUE"


class DecodingSettings(ConfigModel):
    """How often drafts are right, and what the host does; every strategy has these keys."""

    tokens: float | None = Field(default=None, ge=1, le=1000)
    """Tokens that a step makes on average, the one that the model adds itself included."""
    acceptance: float | None = Field(default=None, ge=0, le=1)
    """Probability that one of the drafts of a depth is right where all before it were, each time
    anew: ``(1 - a^(depth + 1)) / (1 - a)`` tokens a step."""
    measured: str | None = None
    """``TABLE/MODEL``: tokens a step of this strategy as a table has them (``spec-bench``)."""
    host_us: float = Field(default=0.0, ge=0, le=1e7)
    """What the host does in a step (tables of drafts, trees, sampling), microseconds."""
    host_overlapped: bool = False
    """It does so beside the device: a step takes the longer of both; else their sum."""

    @model_validator(mode="after")
    def _one_acceptance(self) -> DecodingSettings:
        keys = ("tokens", "acceptance", "measured")
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "none is given"
            raise ValueError(f"one of tokens, acceptance and measured says what is right; {found}")
        return self


def decoding_settings(text: str) -> tuple[str, DecodingSettings]:
    """The strategy that ``text`` asks for.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...`` of ``workload.decoding``.

    Returns
    -------
    tuple
        Name of its module, and its settings, checked.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    """
    name, _, rest = text.partition(":")
    name = ModuleName("decoding", (NO_DECODING,)).check(name.strip())
    if name == NO_DECODING:
        raise ValueError(f"found {text!r}; {NO_DECODING!r} has no keys")
    values: dict[str, Scalar] = {}
    for part in rest.split(",") if rest.strip() else ():
        key, separator, value = (each.strip() for each in part.partition("="))
        if not separator or not key or not value:
            raise ValueError(f"found {part.strip()!r} in {text!r}; expected {_FORM}")
        if key in values:
            raise ValueError(f"{key} is given twice in {text!r}")
        values[key] = _scalar(key, value)
    settings = load_module("decoding", name).STRATEGY.Settings
    try:
        return name, settings.model_validate(values)
    except ValidationError as error:
        root = Entry({key: Entry(value, name) for key, value in values.items()}, name)
        raise ValueError(str(explain(error, root, settings))) from None


def _scalar(key: str, text: str) -> Scalar:
    """What YAML takes ``text`` for. Raises ``ValueError`` for a list, a mapping or infinity."""
    try:
        found = parse_text(text, key).value
    except InputError as error:
        raise ValueError(str(error)) from None
    if isinstance(found, (dict, tuple)):
        raise ValueError(f"{key}: found {text!r}; a number, a word or true or false is expected")
    return found
