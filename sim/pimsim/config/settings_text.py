"""A module and its settings in one line of a config: ``NAME:KEY=VALUE,KEY=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import ValidationError

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.config.plugins import Base, ModuleName, load_class, load_module
from pimsim.config.resources import looks_like_path
from pimsim.config.schema import explain
from pimsim.config.tree import Entry, Scalar, parse_text

__all__ = ["NONE", "load_of_text", "settings_of_text", "with_files"]

NONE = "none"
"""In place of a module's name."""
_CLASSES = {
    "decoding": "STRATEGY", "format": "FORMAT", "kv_view": "VIEW", "measurement": "MEASUREMENT",
}  # fmt: skip
"""What modules of a kind call their class, which has its ``Settings``."""
_TECHNIQUE = re.compile(r"[a-z][a-z0-9_]*:\s*[a-z_]+\s*=")
_FORM = "NAME or NAME:KEY=VALUE,KEY=VALUE"


def settings_of_text(kind: str, text: str) -> tuple[str, ConfigModel]:
    """The module that ``text`` names, and what it says.

    Parameters
    ----------
    kind
        Of the module.
    text
        As it was written.

    Returns
    -------
    tuple
        Name of the module, and its settings, checked.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    """
    name, _, rest = text.partition(":")
    name = ModuleName(kind, (NONE,)).check(name.strip())
    if name == NONE:
        raise ValueError(f"found {text!r}; {NONE!r} has no keys")
    values: dict[str, Scalar] = {}
    for part in rest.split(",") if rest.strip() else ():
        key, separator, value = (each.strip() for each in part.partition("="))
        if not separator or not key or not value:
            raise ValueError(f"found {part.strip()!r} in {text!r}; expected {_FORM}")
        if key in values:
            raise ValueError(f"{key} is given twice in {text!r}")
        values[key] = _scalar(key, value)
    model: type[ConfigModel] = getattr(load_module(kind, name), _CLASSES[kind]).Settings
    try:
        return name, model.model_validate(values)
    except ValidationError as error:
        root = Entry({key: Entry(value, name) for key, value in values.items()}, name)
        raise ValueError(str(explain(error, root, model))) from None


def load_of_text(kind: str, text: str, base: type[Base]) -> Base:
    """What ``text`` asks for, by its settings.

    Parameters
    ----------
    kind
        Of the module.
    text
        As it was written.
    base
        Which the module's class must be derived from; it is made of its settings.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    InputError
        Where the module has no such class.
    """
    name, settings = settings_of_text(kind, text)
    found: Callable[[ConfigModel], Base] = load_class(kind, name, _CLASSES[kind], base)
    return found(settings)


def with_files(text: str, change: Callable[[str], str]) -> str:
    """A value of a config with ``change`` made to the path of the file that it names: itself, or
    one of its settings where it is a technique's.

    Parameters
    ----------
    text
        As it was written.
    change
        Of a path, of which there is none in most values.
    """
    if not _TECHNIQUE.match(text):
        return change(text) if looks_like_path(text) else text
    name, _, rest = text.partition(":")
    try:
        settings = getattr(load_module("decoding", name.strip()), _CLASSES["decoding"]).Settings
    except (InputError, AttributeError):
        return text  # another technique, which names no file, or a wrong name, which is said later
    parts = []
    for part in rest.split(","):
        key, separator, value = part.partition("=")
        value = value.strip()
        if key.strip() in settings.FILES and looks_like_path(value):
            part = f"{key}{separator}{change(value)}"
        elif key.strip() in settings.TABLES:
            table, slash, row = value.rpartition("/")
            if looks_like_path(table):
                part = f"{key}{separator}{change(table)}{slash}{row}"
        parts.append(part)
    return f"{name}:{','.join(parts)}"


def _scalar(key: str, text: str) -> Scalar:
    """What YAML takes ``text`` for. Raises ``ValueError`` for a list, a mapping or infinity."""
    try:
        found = parse_text(text, key).value
    except InputError as error:
        raise ValueError(str(error)) from None
    if isinstance(found, (dict, tuple)):
        raise ValueError(f"{key}: found {text!r}; a number, a word or true or false is expected")
    return found
