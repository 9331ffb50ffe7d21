"""PIM designs: one module each, found by the ``design`` key of its YAML.

A module offers a function for each operation that its presets list in ``operations``, from the
operation's sizes to the ``CommandStream`` that does it:

- ``gemv(design, outputs, inputs, batch)``: ``batch`` products of one matrix with a vector each
- ``attention(design, heads, kv_heads, head_dim, context)``: decode attention of one request
- ``batch_attention(design, heads, kv_heads, head_dim, contexts)``: the same of several requests, as
  streams that follow one another; a module without it does request after request
- ``elementwise(design, function, elements)``: ``function`` of vectors of ``elements``
- ``trace(design, path)``: host instructions from a file in the design's own format

What the design cannot hold or do it refuses with ``InputError``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pimsim.config.errors import InputError, near_miss
from pimsim.config.pim import PimConfig, PimDesignConfig
from pimsim.config.plugins import load_module, module_names
from pimsim.hardware.pim.stream import CommandStream

__all__ = ["batch_attention", "design_names", "head_places", "mapping_of"]


def design_names() -> list[str]:
    """Names of all designs, plugins' too."""
    return module_names("design")


def mapping_of(design: PimDesignConfig, operation: str) -> Callable[..., CommandStream]:
    """The function that maps ``operation`` to commands of ``design``.

    Parameters
    ----------
    design
        Its key ``design`` names the module.
    operation
        One of its ``operations``.

    Returns
    -------
    Callable
        From the operation's sizes to its ``CommandStream``.

    Raises
    ------
    InputError
        For a design or operation that is unknown, or that the module lacks.
    """
    names = design_names()
    if design.design not in names:
        raise InputError(
            f"{design.name}: no design {design.design!r}{near_miss(design.design, names)}; "
            f"known: {', '.join(names)}"
        )
    if operation not in design.operations:
        raise InputError(
            f"{design.name} has no {operation!r}{near_miss(operation, design.operations)}; "
            f"it does: {', '.join(design.operations)}"
        )
    module = load_module("design", design.design)
    found: Callable[..., CommandStream] | None = getattr(module, operation, None)
    if found is None:
        raise InputError(
            f"{design.name} lists the operation {operation!r}, which {module.__name__} lacks"
        )
    return found


def batch_attention(
    design: PimDesignConfig, heads: int, kv_heads: int, head_dim: int, contexts: Sequence[int]
) -> Sequence[CommandStream]:
    """Streams, one after the other, of one token's attention of requests with ``contexts``.

    Parameters
    ----------
    design
        Which maps it.
    heads
        Of queries.
    kv_heads
        Of keys and values.
    head_dim
        Elements of a head.
    contexts
        Tokens of each request.

    Returns
    -------
    Sequence[CommandStream]
        In the order in which they run; a module may merge requests into one.

    Raises
    ------
    InputError
        Where the design has no attention, or cannot hold this one.
    """
    one = mapping_of(design, "attention")
    of_all: Callable[..., Sequence[CommandStream]] | None = getattr(
        load_module("design", design.design), "batch_attention", None
    )
    if of_all is not None:
        return of_all(design, heads, kv_heads, head_dim, contexts)
    made = {each: one(design, heads, kv_heads, head_dim, each) for each in set(contexts)}
    return [made[each] for each in contexts]


def head_places(design: PimConfig, channels: int) -> int:
    """Groups of channels, each of which attends to other heads at the same time.

    Parameters
    ----------
    design
        With attention of its own, or products in ``channels_per_head`` channels.
    channels
        Of its memory.

    Returns
    -------
    int
        1 where one head, or one request, follows the other.
    """
    if "attention" in design.operations:
        module = load_module("design", design.design)
        return channels if hasattr(module, "batch_attention") else 1
    return channels // (design.channels_per_head or channels)
