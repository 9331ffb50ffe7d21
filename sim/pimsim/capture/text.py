"""Texts and token ids for measurements."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimsim.capture.loading import LoadedModel
from pimsim.config.errors import InputError
from pimsim.config.reading import read_text as read_text_file

__all__ = ["DOMAINS", "Text", "load_tokenizer", "read_text", "token_ids", "tokenizer_of"]

_CHARACTERS = 40
"""That a token has at most, on average over a text."""


@dataclass(frozen=True)
class Text:
    """A text to measure on."""

    name: str
    given: str | None = None
    """A file's; None: the held-out docstrings of the standard library, which are on any machine
    with Python."""

    @property
    def content(self) -> str:
        """The text. Docstrings take seconds to gather: first see that there is a model."""
        if self.given is not None:
            return self.given
        return held_out_docstrings()


def held_out_docstrings() -> str:
    """Docstrings of the standard library that no checkpoint of ours was trained on."""
    from pimsim.capture.train import held_out_text

    return held_out_text()


def read_text(path: str | None) -> Text:
    """A file's text, or without a file docstrings.

    Parameters
    ----------
    path
        Of the file; None: docstrings of Python's standard library.

    Raises
    ------
    InputError
        For a file without any text.
    """
    if path is None:
        return Text("held-out docstrings of Python's standard library")
    given = read_text_file(path)
    if not given.strip():
        raise InputError(f"{path}: holds no text")
    return Text(Path(path).name, given)


def token_ids(loaded: LoadedModel, text: str, count: int) -> list[int]:
    """The first token ids of a text.

    Parameters
    ----------
    loaded
        A model with its tokenizer.
    text
        What is read.
    count
        Tokens that are needed.

    Raises
    ------
    InputError
        Where there are fewer, or where the model comes without a tokenizer.
    """
    # a token has at most so many characters that this is enough
    ids = tokenizer_of(loaded)(text[: _CHARACTERS * count])
    if len(ids) < count:
        raise InputError(f"the text has {len(ids)} tokens, {count} are needed")
    return ids[:count]


def tokenizer_of(loaded: LoadedModel) -> Callable[[str], list[int]]:
    """What makes token ids of a text, without special ones.

    Parameters
    ----------
    loaded
        A model with its tokenizer.

    Raises
    ------
    InputError
        Where the model comes without one.
    """
    found = load_tokenizer(loaded)
    if hasattr(found, "encode_batch"):  # of the package ``tokenizers``
        return lambda text: list(found.encode(text, add_special_tokens=False).ids)
    return lambda text: list(found(text, add_special_tokens=False)["input_ids"])


def load_tokenizer(loaded: LoadedModel) -> Any:
    """The model's tokenizer, of ``tokenizers`` or of ``transformers``.

    Parameters
    ----------
    loaded
        A model.

    Raises
    ------
    InputError
        Where the model comes without one.
    """
    from tokenizers import Tokenizer

    folder = loaded.folder
    if folder is not None and (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if folder is not None and loaded.gguf is not None:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, gguf_file=loaded.gguf, local_files_only=True)
    raise InputError(f"model {loaded.name}: it comes without a tokenizer (tokenizer.json)")


def prose_text() -> str:
    """The reference manual of Python's language, which the standard library holds."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def code_text() -> str:
    """Source of modules of the standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return "\n\n".join(
        path.read_text(encoding="utf-8") for path in sorted(folder.glob("[a-d]*.py"))
    )


DOMAINS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "docs": ("docstrings of Python's standard library", held_out_docstrings),
    "prose": ("reference manual of Python's language (pydoc_data.topics)", prose_text),
    "code": ("source of Python's standard library", code_text),
}
"""Texts that are on any machine with Python: what they are, and what gathers them."""
