"""Views of the KV cache: which keys and values a query reads, of those that its model would.

One module holds one view and is named after it; what it calls ``VIEW`` is a subclass of ``KvView``.
A run asks for it by ``workload.kv_view``. A view changes the operators of a trace while they are
symbolic, so that bytes, arithmetic, capacity and writes follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pimsim.config.base import ConfigModel
from pimsim.config.settings_text import load_of_text
from pimsim.workload.requests import Request
from pimsim.workload.trace import OperatorTrace

__all__ = ["KvView", "load_view"]


class KvView(ABC):
    """Part of a cache.

    Parameters
    ----------
    settings : ConfigModel
        As ``Settings`` has them.
    """

    Settings: ClassVar[type[ConfigModel]]
    cuts_prompts: ClassVar[bool] = False
    """Tokens of prompts beyond ``tokens`` are dropped once they have been read, and what is
    generated is kept."""

    of_single_tokens: ClassVar[bool] = False
    """It is known for one new token a request alone: each query reads other keys."""

    gathers_tokens: ClassVar[bool] = False
    """Single tokens are read wherever they lie."""

    def __init__(self, settings: ConfigModel) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Most keys that a query reads."""

    @property
    def rotates_keys(self) -> bool:
        """Keys are turned when they are read, which no bank does."""
        return False

    def requests(self, requests: Sequence[Request]) -> tuple[Request, ...]:
        """Requests with the tokens that are left of them.

        Parameters
        ----------
        requests
            Of the batch.
        """
        if not self.cuts_prompts:
            return tuple(requests)
        return tuple(
            replace(each, prompt_tokens=min(each.prompt_tokens, self.tokens)) for each in requests
        )

    def chooser(self, trace: OperatorTrace) -> OperatorTrace | None:
        """What reads whole prompts before the model reads what is left of them; None: nothing does.

        Parameters
        ----------
        trace
            Of the model.
        """
        return None

    @abstractmethod
    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """The model that reads its cache so.

        Parameters
        ----------
        trace
            Of the model alone.

        Raises
        ------
        InputError
            Where its attention is not of a kind that the view knows.
        """


def load_view(text: str) -> KvView:
    """The view of ``workload.kv_view``.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...``.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    InputError
        Where a module has no view.
    """
    return load_of_text("kv_view", text, KvView)  # type: ignore[type-abstract]
