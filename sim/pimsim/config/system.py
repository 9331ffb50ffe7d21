"""A server of GPUs: devices that share every layer, who does their attention, and what is run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pimsim.config.asked_once import checked_once
from pimsim.config.base import ConfigModel
from pimsim.config.nccl import NcclConfig
from pimsim.config.pim import PimDesignConfig
from pimsim.config.plugins import ModuleName
from pimsim.config.run import AnyModelConfig, LinkConfig, ParallelConfig, StepsConfig
from pimsim.config.xpu import HostConfig, XpuConfig

__all__ = ["GpuMachineConfig", "GpuModelConfig", "StacksConfig", "SystemConfig", "SystemWorkload"]


class StacksConfig(ConfigModel):
    """The PIM stacks beside one device, which hold the KV cache of its heads."""

    sources: dict[str, str]
    """Source of each number, by its key."""
    count: int = Field(ge=1, le=1024)
    """Heads of all requests are dealt to them; the fullest stack sets the time."""
    transfer_gb_per_s: float = Field(ge=0.001, le=1e6)
    """The link between a device and its stacks, one direction."""
    bandwidth_gb_per_s: float = Field(ge=0.001, le=1e6)
    """One stack's, at its pins; read by ``ffn_read_multiple`` and by cost rules."""
    ffn_read_multiple: float | None = Field(default=None, ge=0.001, le=1000)
    """The FFN on PIM reads at this multiple of the pins' bandwidth, whatever the PIM's commands
    allow; null: at the rate of its MAC commands."""


class GpuModelConfig(AnyModelConfig):
    """What GPUs run, whoever asks for it."""

    layers: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] | None = "auto"
    """Decoder blocks simulated on the device; None: as many as the fullest pipeline stage has, the
    model's where ``pp`` is 1. ``auto``: 2; of a model with experts 10. What the others take is
    worked out all the same, so that only rows and sums of the simulated blocks depend on it."""


class SystemWorkload(GpuModelConfig, StepsConfig):
    """What GPUs run, unless a file or an option says otherwise."""

    model: str = "gpt3-175b"
    """A card's name (``models/``) or a YAML path."""
    requests: str = "equal:2048+1"
    """A request trace's name (``traces/``) or a CSV path, or ``equal:PROMPT+GENERATED``: requests
    of so many tokens of prompt and, unless 0, generated ones."""


class GpuMachineConfig(ConfigModel):
    """Devices under tensor parallelism, and the unit that holds the KV cache."""

    name: str
    """What reports call it."""
    description: str = ""
    """One line for ``pimsim list``."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Source of each number of this file, by its key."""
    xpu: Annotated[XpuConfig, checked_once()]
    devices: int = Field(ge=1, le=1024)
    """All of them share the model: each layer, unless ``parallel`` cuts it into stages."""
    parallel: ParallelConfig = ParallelConfig()
    """How they do; ``tp`` is ``devices`` over ``pp``, and ``pp`` is 1, where they are not given."""
    link: LinkConfig
    """Between the devices: the rate and latency of a ring step."""
    nccl: NcclConfig | None = None
    """All-reduces and all-gathers between the devices of a stage as NCCL does them; null: as
    ``link`` says."""
    link_pj_per_bit: float = Field(ge=0, le=1e6)
    """Between devices, and between a device and the host or its stacks."""
    attention: Literal["xpu", "host", "pim"]
    """Who holds the KV cache and does attention."""
    host: HostConfig | None = None
    pim: Annotated[PimDesignConfig | None, checked_once()] = None
    stacks: StacksConfig | None = None
    fused_gate: bool = True
    """Gate and up projections of a gated FFN are one product, else two."""
    overlap: Literal["none", "transfers", "projections"] = "none"
    """What goes on during PIM attention, head by head: nothing, transfers of queries and results,
    or these and the QKV and output projections (AttAcc section 6)."""
    ffn_split: bool = False
    """The FFN's weights lie on devices and PIM in proportion to how fast each passes them."""
    cost_rules: list[Annotated[str, ModuleName("cost_rule")]] = Field(default_factory=list)
    """What is counted otherwise, each as the module of that name says."""
    attention_contexts: int | None = Field(default=None, ge=2, le=4096)
    """Steps of a run whose attention on PIM is simulated, spread evenly from the first to the last;
    what lies between is interpolated. None: all."""
    workload: GpuModelConfig
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seeds all that is drawn: the experts of tokens."""

    @property
    def pp(self) -> int:
        """Pipeline stages."""
        return self.parallel.pp or 1

    @property
    def tp(self) -> int:
        """Devices of a stage, which share each of its layers."""
        return self.devices // self.pp

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pim is not None and self.pim.controller is None:
            raise ValueError(
                f"pim.controller: {self.pim.name} has none: its commands go through a run's "
                "memory; a design with a controller of its own is expected (such as attacc-bank)"
            )
        if self.attention == "host" and self.host is None:
            raise ValueError("attention on host needs a host section")
        if self.attention == "pim" and (self.pim is None or self.stacks is None):
            missing = "pim" if self.pim is None else "stacks"
            raise ValueError(f"attention on pim needs a {missing} section")
        if self.devices % self.pp:
            raise ValueError(f"parallel.pp is {self.pp}; it must divide the {self.devices} devices")
        if self.parallel.tp not in (None, self.tp):
            raise ValueError(
                f"parallel.tp is {self.parallel.tp}; the {self.devices} devices are {self.tp} of "
                f"{self.pp} stage{'s' * (self.pp > 1)}: it is devices over parallel.pp"
            )
        if self.attention != "pim":
            if self.attention_contexts is not None:
                raise ValueError(
                    f"attention_contexts is {self.attention_contexts}, but attention is not on pim"
                )
            if self.overlap != "none":
                raise ValueError(f"overlap is {self.overlap!r}, but attention is not on pim")
            if self.ffn_split:
                raise ValueError("ffn_split is true, but attention is not on pim")
        if len(set(self.cost_rules)) < len(self.cost_rules):
            raise ValueError(f"cost_rules names a rule twice: {', '.join(self.cost_rules)}")
        return self


class SystemConfig(GpuMachineConfig):
    """The same with what a run asks of it."""

    workload: SystemWorkload = SystemWorkload()
