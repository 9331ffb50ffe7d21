"""Servers of GPUs, with PIM or without: decoding and prefill in closed forms, from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pimsim.simulate import PathLike

if TYPE_CHECKING:
    from pimsim.engine.xpu_prefill import Prefilling
    from pimsim.engine.xpu_system import Decoding
    from pimsim.workload.cards import ModelCard
    from pimsim.workload.trace import OperatorTrace

__all__ = ["decode_system", "prefill_system"]


def decode_system(
    name_or_path: PathLike, *, model: PathLike = "gpt3-175b", batch: int = 1,
    input_tokens: int = 2048, output_tokens: int = 128, overrides: Sequence[str] = (),
    trace: PathLike | None = None,
) -> Decoding:  # fmt: skip
    """Decode requests of the same lengths on a server of GPUs.

    Parameters
    ----------
    name_or_path
        A system preset (``dgx-a100a``, ``dgx-attacc-bank``) or its YAML.
    model
        Name or path of a card.
    batch
        Requests.
    input_tokens
        Of each prompt.
    output_tokens
        That each request makes.
    overrides
        Values, as ``key.of.it=value``.
    trace
        Name or path of an operator trace, in place of the card.

    Raises
    ------
    InputError
        One line, for wrong input.
    """
    from pimsim.config.loader import load_system
    from pimsim.engine.xpu_system import decode

    config = load_system(os.fspath(name_or_path), overrides).config
    return decode(config, _source(model, trace), batch, input_tokens, output_tokens)


def prefill_system(
    name_or_path: PathLike, *, model: PathLike = "gpt3-175b", batch: int = 1,
    input_tokens: int = 2048, chunk: int | None = None, overrides: Sequence[str] = (),
    trace: PathLike | None = None,
) -> Prefilling:  # fmt: skip
    """Feed prompts of the same length on a server of GPUs, up to their first tokens.

    Parameters
    ----------
    name_or_path
        A system preset or its YAML.
    model
        Name or path of a card.
    batch
        Prompts.
    input_tokens
        Of each.
    chunk
        Most new tokens of a request in a step; None: the whole prompt.
    overrides
        Values, as ``key.of.it=value``.
    trace
        Name or path of an operator trace, in place of the card.

    Raises
    ------
    InputError
        One line, for wrong input.
    """
    from pimsim.config.loader import load_system
    from pimsim.engine.xpu_prefill import prefill

    config = load_system(os.fspath(name_or_path), overrides).config
    return prefill(config, _source(model, trace), batch, input_tokens, chunk)


def _source(model: PathLike, trace: PathLike | None) -> ModelCard | OperatorTrace:
    from pimsim.config.resources import find_source
    from pimsim.workload.cards import load_card
    from pimsim.workload.trace import load_trace

    if trace is not None:
        return load_trace(find_source("operators", os.fspath(trace)))
    return load_card(os.fspath(model))
