"""Text that a diffusion model makes block by block, all masks of a block at once.

Nie et al. 2025 (LLaDA, arXiv 2502.09992; ML-GSAI/LLaDA @b7e6c35, generate.py) and Wu et al. 2025
(Fast-dLLM, arXiv 2505.22618; NVlabs/Fast-dLLM @24cc59e). A pass sees prompt and answer as a whole,
no token hidden from another, and makes some masks of the block final. Without a cache it feeds all
of them; with one the first pass of a block does, and those behind it feed the block and what
follows it (``prefix``) or the block alone (``dual``).
"""

from __future__ import annotations

from math import ceil
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pimsim.config.decoding import DecodingSettings
from pimsim.workload.decoding import DecodingStrategy
from pimsim.workload.requests import Request
from pimsim.workload.step import Mask, StepEntry

__all__ = ["BlockDiffusion", "DiffusionSettings"]


class DiffusionSettings(DecodingSettings):
    """Of the answer, and how it is made."""

    tokens: float | None = Field(default=1.0, ge=1, le=1000)
    """Masks of a block that a pass makes final, on average."""
    length: int = Field(default=256, ge=1, le=1_000_000)
    """Tokens of the answer, those behind the end of text too."""
    block: int = Field(default=32, ge=1, le=1_000_000)
    """Tokens of a block; the next begins when all of them are final."""
    cache: Literal["none", "prefix", "dual"] = "none"
    """What the passes behind a block's first one find in the cache: nothing, what is before the
    block, or all but the block."""
    text: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens of the answer before its end of text, which alone count; 0: all."""

    @model_validator(mode="after")
    def _whole_blocks(self) -> DiffusionSettings:
        if self.tokens is None:
            raise ValueError("drafts and their acceptance are not of diffusion; tokens says it")
        if self.length % self.block:
            raise ValueError(f"length is {self.length}, no multiple of block ({self.block})")
        if self.tokens > self.block:
            raise ValueError(f"tokens is {self.tokens:g}, a block has {self.block}")
        if self.text > self.length:
            raise ValueError(f"text is {self.text}, the answer has {self.length} tokens")
        return self


class BlockDiffusion(DecodingStrategy):
    """Rounds are blocks. See the module."""

    Settings = DiffusionSettings
    settings: DiffusionSettings
    mask: ClassVar[Mask] = Mask.FULL

    @property
    def rows(self) -> int:
        """Tokens that the last pass of a block is fed with what is in the cache; without a cache
        those of the answer: see ``DecodingStrategy``."""
        return self.settings.block if self.settings.cache == "dual" else self.settings.length

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.block - 1

    @property
    def blocks(self) -> int:
        """Blocks that are made."""
        return self.settings.length // self.settings.block

    @property
    def made(self) -> float:
        """Tokens of a block that count."""
        own = self.settings
        return (own.text or own.length) / self.blocks

    @property
    def advances(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.block

    @property
    def block_passes(self) -> int:
        """Passes of a block."""
        assert self.settings.tokens is not None
        return ceil(self.settings.block / self.settings.tokens)

    def passes(self, request: Request, ahead: int, made: int) -> list[StepEntry]:
        """See ``DecodingStrategy``; blocks begin anew behind the last of an answer."""
        own = self.settings
        whole = request.prompt_tokens + own.length
        number = (request.generated_tokens + ahead) // own.block % self.blocks
        rows = {
            "none": whole, "prefix": own.length - number * own.block, "dual": own.block,
        }[own.cache]  # fmt: skip
        fed = [whole, *[rows] * (self.block_passes - 1)]
        return [
            StepEntry(request, each, whole, each, made if at == len(fed) - 1 else 0, self.mask)
            for at, each in enumerate(fed)
        ]
