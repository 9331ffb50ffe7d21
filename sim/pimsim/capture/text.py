"""Texts and token ids for measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimsim.capture.loading import LoadedModel
from pimsim.config.errors import InputError
from pimsim.config.reading import read_text as read_text_file

__all__ = ["Text", "read_text", "token_ids"]


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
    ids = _encode(loaded, text[: 40 * count])
    if len(ids) < count:
        raise InputError(f"the text has {len(ids)} tokens, {count} are needed")
    return ids[:count]


def _encode(loaded: LoadedModel, text: str) -> list[int]:
    from tokenizers import Tokenizer

    folder = loaded.folder
    if folder is not None and (folder / "tokenizer.json").is_file():
        tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    if folder is not None and loaded.gguf is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            folder, gguf_file=loaded.gguf, local_files_only=True
        )
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    raise InputError(f"model {loaded.name}: it comes without a tokenizer (tokenizer.json)")
