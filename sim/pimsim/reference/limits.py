"""Limits of numeric errors, with their reasons, and what exceeds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.resources import data_dir

if TYPE_CHECKING:  # needs torch, which graphs do not
    from pimsim.reference.graph_products import ProductError
    from pimsim.reference.measure import BankError, ModelError, OperatorError

__all__ = ["Limits", "load_limits", "over_limit", "products_over_limit"]


class Limit(ConfigModel):
    """A number that may not be exceeded, and why."""

    limit: float = Field(gt=0)
    reason: str


class Limits(ConfigModel):
    """Of ``configs/validate/numerics.yaml``."""

    operators: dict[str, Limit]
    """Relative RMS of products by datapath."""
    model: dict[str, Limit]
    """Mean KL divergence of the whole model by datapath, nats."""
    flip_margin: Limit
    """Logits."""
    banks: Limit
    """Relative RMS of attention through the banks."""
    graph_products: dict[str, Limit]
    """Relative RMS of a quantised graph's products by onnxruntime's datapath."""


def products_over_limit(limits: Limits, products: Sequence[ProductError]) -> list[str]:
    """A line for every product of a graph that exceeds its limit.

    Parameters
    ----------
    limits
        Of each datapath.
    products
        What was measured.
    """
    lines = []
    for each in products:
        limit = limits.graph_products[each.datapath]
        if not each.relative_rms <= limit.limit:
            lines.append(
                f"{each.node}: relative RMS {each.relative_rms:.2e}, limit {limit.limit:g} "
                f"({limit.reason})"
            )
    return lines


def load_limits() -> Limits:
    """The shipped limits."""
    return read_document(Limits, data_dir("configs") / "validate" / "numerics.yaml")


def over_limit(
    limits: Limits, operators: Sequence[OperatorError], whole: Sequence[ModelError],
    banks: Sequence[BankError],
) -> list[str]:  # fmt: skip
    """A line for every error that exceeds its limit.

    Parameters
    ----------
    limits
        Of each datapath.
    operators
        Errors of single products.
    whole
        Errors of whole models' logits.
    banks
        Errors of attention in banks.
    """
    lines = []
    for each in operators:
        limit = limits.operators[each.datapath]
        if each.relative_rms > limit.limit:
            lines.append(
                f"{each.datapath}, {each.module}: relative RMS {each.relative_rms:.2e}, "
                f"limit {limit.limit:g} ({limit.reason})"
            )
    for one in whole:
        limit = limits.model[one.datapath]
        if one.kl_mean > limit.limit:
            lines.append(
                f"{one.datapath}: mean KL {one.kl_mean:.2e}, limit {limit.limit:g} ({limit.reason})"
            )
        if one.largest_flip_margin > limits.flip_margin.limit and one.datapath in _EXACT:
            lines.append(
                f"{one.datapath}: a best token changed at a margin of "
                f"{one.largest_flip_margin:.3f} logits, limit {limits.flip_margin.limit:g}"
            )
    for bank in banks:
        if bank.relative_rms > limits.banks.limit:
            lines.append(
                f"banks, block {bank.block}, context {bank.context}: relative RMS "
                f"{bank.relative_rms:.2e}, limit {limits.banks.limit:g}"
            )
    return lines


_EXACT = {"fp32", "bf16-out", "bf16-128", "scores-bf16", "exp-64", "exp-8", "exp-2"}
"""Datapaths whose flips are gated: bf16 accumulators every 16 lanes, int8 and PyTorch's own bf16
move logits by more than the margin."""
