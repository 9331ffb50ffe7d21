"""Processing in memory: what the banks can do and how the controller drives them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.memory import Rule

__all__ = ["PimConfig"]


class PimConfig(ConfigModel):
    """A PIM design on top of a memory (Newton, NeuPIMs)."""

    name: str
    """What messages and reports call it."""
    source: str
    """Where the design and its numbers come from."""
    row_buffers: Literal[1, 2]
    """2: the bank has a second row buffer for PIM, so normal reads go on (NeuPIMs section 5)."""
    composite_gemv: bool
    """COMPS_READRES: one command for n dot products and the read of their result."""
    elements_per_comp: int = Field(ge=1)
    """Multipliers beside each bank: elements of a row that one COMP multiplies."""
    activation_group: Literal["bank_group"] = "bank_group"
    """Banks that one G_ACT opens."""
    gwrite_cycles: str = "(tCCD_S + tCCD_L) * 32"
    """Cycles that GWRITE takes to fill the global buffer, over timing names."""
    comp_pipeline: int = Field(default=6, ge=1)
    """Least dot products' worth of time before a result can be read (adder tree depth)."""
    timings: dict[str, int] = Field(default_factory=dict)
    """Timings of the design, beside those of the memory."""
    rules: list[Rule]
    refresh_avoidance: bool = True
    """Before a header or GWRITE, hold PIM back if its estimate reaches into the next refresh."""
    read_write_slack: int = Field(default=10, ge=0)
    """Normal commands are let in beside waiting PIM commands only with this much slack left."""
    softmax_overlap: bool = True
    """Softmax of a head starts when its logits are read; else when all PIM work is done."""
    artifact_free_comps: bool = False
    """The artifact lets a bank precharge 5 cycles after COMPS_READRES although its dot products
    still run (MECHANISMS B4); without it a precharge waits for them."""
    artifact_shared_issue: bool = False
    """The artifact's npu+pim branch feeds one PIM instruction per cycle for all channels
    together (MECHANISMS 0.4)."""
    artifact_kv_write: bool = False
    """The artifact writes attention outputs only for contexts above one row, appends no KV."""
    artifact_one_operand_row: bool = False
    """The artifact's GWRITE always reads the same row, which so stays open (MECHANISMS 4.1)."""
    artifact_short_pipeline: bool = False
    """The artifact's single-row-buffer branch fills the adder pipeline at one COMP a cycle,
    although a COMP takes a burst's time."""

    @model_validator(mode="before")
    @classmethod
    def _newton_family(cls, values: Any) -> Any:
        if isinstance(values, dict) and "family" in values:
            raise ValueError(
                f"family {values['family']!r}: {values.get('name')} brings a memory and commands "
                "of its own, and a run takes a PIM of the Newton family (see pimsim list pim); "
                "pimsim kernel gemv, attention and pim-trace take this one (--pim)"
            )
        return values

    @model_validator(mode="after")
    def _timed(self) -> PimConfig:
        dot = "GEMV" if self.composite_gemv else "COMP"
        if not any(dot in rule.first for rule in self.rules):
            raise ValueError(
                f"composite_gemv is {self.composite_gemv}, but no rule says what may follow {dot}"
            )
        return self
