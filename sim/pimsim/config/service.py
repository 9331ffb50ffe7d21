"""A service: requests, machines, and how these share them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName
from pimsim.config.prices import Prices
from pimsim.config.run import LinksConfig, MachineConfig
from pimsim.config.settings_text import settings_of_text
from pimsim.config.system import GpuMachineConfig
from pimsim.config.traffic import RequestsConfig
from pimsim.config.units import Bytes, Picoseconds, Share

__all__ = [
    "MOST_BLOCKS", "MOST_RUNNING", "MOST_TOKENS", "CacheConfig", "DecodePoolConfig",
    "LinearConfig", "PoolLinksConfig", "ProfileConfig", "ReplicasConfig",
    "SchedulerSettings", "ServiceConfig", "SloConfig", "SpeculationConfig", "StepTimeConfig",
    "StepsConfig",
]  # fmt: skip

MOST_RUNNING = 65_536
"""Requests that run at once on a replica, at most."""
MOST_TOKENS = 100_000_000
"""Tokens of a request or of a step, at most."""
MOST_DRAFTS = 64
"""Guessed tokens of a request in a step, at most."""
MOST_BLOCKS = 2**26
"""Of a replica's KV cache, at most."""
_MOST_BLOCKS_OF_ALL = 2**27
"""Each block is some 20 bytes of the simulator's memory."""


class SchedulerSettings(ConfigModel):
    """Which requests go into a step."""

    name: Annotated[str, ModuleName("scheduler")]
    """A module of ``pimsim.serving.schedulers``, or a plugin's; the other keys are its own."""


class CacheConfig(ConfigModel):
    """The KV cache of a replica."""

    blocks: int | None = Field(default=None, ge=1, le=MOST_BLOCKS)
    """All of them; ``vllm`` keeps one that no request ever holds. null: as many as the machine
    holds beside the weights."""
    block_tokens: int = Field(default=16, ge=1, le=65_536)
    """Tokens of a block."""


class LinearConfig(ConfigModel):
    """``step_us + token_us T + floor(ctx_ns C / 1000)`` microseconds for a step that feeds T tokens
    of requests that have C in the cache at its end."""

    step_us: int = Field(ge=1, le=10**9)
    """Of each step."""
    token_us: int = Field(ge=0, le=10**6)
    """Of each token that is fed."""
    ctx_ns: int = Field(default=0, ge=0, le=10**6)
    """Of each token of context."""


class ProfileConfig(ConfigModel):
    """Measured layers (docs/serving.md has the tables)."""

    folder: str
    """Of ``dense.csv``, ``per_sequence.csv`` and ``attention.csv``; a relative one is written with
    a slash (``./profile``) and counts from this file."""
    layers: int = Field(ge=1, le=10_000)
    """Blocks of the model; the tables have one."""


class StepTimeConfig(ConfigModel):
    """What a step takes: one of these."""

    linear: LinearConfig | None = None
    """In closed form."""
    profile: ProfileConfig | None = None
    """By a profile of layers."""

    @model_validator(mode="after")
    def _one_of_them(self) -> StepTimeConfig:
        if (self.linear is None) == (self.profile is None):
            raise ValueError("either linear or profile, not both and not none")
        return self


class StepsConfig(ConfigModel):
    """How the machine's steps are timed."""

    interpolated: bool | None = None
    """Most between steps that are simulated; false: every step is simulated. null: where
    ``machine.fidelity`` is ``fast``, and on GPUs, unless drafts are verified (``speculation``):
    their rows lie between no anchors, and were off by 30 % of a step."""
    samples: int = Field(default=20, ge=2, le=10_000)
    """Interpolated steps, drawn at random in proportion to their time, that are simulated to know
    the error."""
    max_error: Share | None = Field(default=None, gt=0, lt=1)
    """Of interpolated steps: where their sample is off by more, the points between which they are
    interpolated are put closer, and the service is run again; null: none is."""


class ReplicasConfig(ConfigModel):
    """Machines that serve the same model, each alone."""

    count: int = Field(default=1, ge=1, le=10_000)
    """How many."""
    router: Annotated[str, ModuleName("router")] = "round_robin"
    """Which one a request goes to: ``round_robin``; ``lor``, the shortest queue;
    ``least_outstanding``, the fewest requests that have not ended; ``prefix_aware``, most of its
    prompt in the cache; or a plugin's."""
    stages: int = Field(default=1, ge=1, le=1024)
    """Of each one's pipeline: as many steps are under way, and each stage takes a step's time."""


_ACCEPTS = f"allowed: a whole number of 0 to {MOST_DRAFTS}, a probability of 0.0 to 1.0, or mix"


def _accept(value: object) -> object:
    """As it is. Raises ``ValueError`` that names all that is allowed: an error of a union names one
    of its members alone."""
    counted = type(value) is int and 0 <= value <= MOST_DRAFTS
    drawn = isinstance(value, float) and 0 <= value <= 1
    if not (counted or drawn or value == "mix" or value is None):
        raise ValueError(f"found {str(value)[:60]!r}; {_ACCEPTS}")
    return value


class PoolLinksConfig(LinksConfig):
    """Links over which keys and values go: of replicas that feed prompts, from 0 on, then of those
    that decode. A link carries one message after the other."""

    topology: Annotated[str, ModuleName("topology")] = "fully_connected"
    """Which links there are: of each replica to each other one (``fully_connected``), a ``ring``,
    to a ``switch`` that stores each message and sends it on, or those of ``links`` (``given``)."""


class DecodePoolConfig(ConfigModel):
    """Replicas that make all tokens but the first; those of ``replicas`` then feed prompts alone.
    Scheduler and cache are alike."""

    count: int = Field(default=1, ge=1, le=10_000)
    """How many."""
    router: Annotated[str, ModuleName("router")] = "least_outstanding"
    """Which one a request goes on in, as ``replicas.router``."""
    stages: int = Field(default=1, ge=1, le=1024)
    """Of each one's pipeline."""
    step_time: StepTimeConfig | None = None
    """What a step takes there; null: as in the others, whose machine it has, too."""
    token_bytes: Bytes = Field(default=0, ge=0, le=2**30)
    """Keys and values of a token, over all layers."""
    links: PoolLinksConfig | None = None
    """Over which they go; null: they are there at once."""

    @model_validator(mode="after")
    def _something_to_send(self) -> DecodePoolConfig:
        if (self.links is None) != (self.token_bytes == 0):
            raise ValueError("links and token_bytes: both or none of them")
        return self


class SpeculationConfig(ConfigModel):
    """Guessed tokens that the next step verifies."""

    drafts: int | None = Field(default=None, ge=1, le=MOST_DRAFTS)
    """After each step that made a token, of each request; to guess takes no time."""
    accept: Annotated[
        Annotated[int, Field(ge=0, le=MOST_DRAFTS)]
        | Annotated[float, Field(ge=0, le=1)]
        | Literal["mix"]
        | None,
        BeforeValidator(_accept),
    ] = None
    """How many are right: a whole number, so many at most; a number with a point (``1.0``, too),
    with that probability each, up to the first that is not; or ``mix``: ``(7 id + 13 j) mod (drafts
    + 1)`` in a request's j-th verification."""
    strategy: str | None = None
    """In place of both: a decoding strategy whose drafts the host guesses, as
    ``workload.decoding`` of a run has it (``prompt_lookup:drafts=4,tokens=1.6``); each draft is
    right with the probability that makes as many tokens."""

    @model_validator(mode="after")
    def _said_in_one_way(self) -> Self:
        own = [key for key in ("drafts", "accept") if getattr(self, key) is not None]
        if self.strategy is None:
            missing = [key for key in ("drafts", "accept") if key not in own]
            if "accept" in missing and "accept" in self.model_fields_set:
                raise ValueError(f"accept: found None; {_ACCEPTS}")
            if missing:
                raise ValueError(f"{missing[0]} is missing (or strategy, in place of both)")
        else:
            if own:
                raise ValueError(f"strategy says {own[0]}, too: one of them, not both")
            try:
                settings_of_text("decoding", self.strategy)
            except ValueError as error:
                raise ValueError(f"strategy: {error}") from None
        return self


class SloConfig(ConfigModel):
    """What a request must keep to count as served well; goodput counts those."""

    ttft: Picoseconds | None = Field(default=None, gt=0)
    """Arrival to first token."""
    tpot: Picoseconds | None = Field(default=None, gt=0)
    """First token to last, by the tokens behind the first; a request of one token has none."""
    itl: Picoseconds | None = Field(default=None, gt=0)
    """The longest gap between two tokens of a request."""
    e2e: Picoseconds | None = Field(default=None, gt=0)
    """Arrival to last token."""


class ServiceConfig(ConfigModel):
    """Everything that a service depends on."""

    name: str
    """What results call it."""
    description: str = ""
    """One line for ``pimsim list``."""
    model: str | None = None
    """A card's name (``models/``) or YAML path, whose longest context bounds requests; None:
    nothing does but the cache."""
    requests: RequestsConfig
    scheduler: SchedulerSettings
    cache: CacheConfig = CacheConfig()
    step_time: StepTimeConfig | None = None
    machine: MachineConfig | GpuMachineConfig | None = None
    """In place of ``step_time``: steps take what they take on this machine, an NPU or GPUs; a
    hardware or system preset's name, a run's YAML, or its keys. What a run asks
    (``workload.requests``, ``batch``, ``phase``, ``chunk``, ``steps``) the service asks itself."""
    steps: StepsConfig = StepsConfig()
    replicas: ReplicasConfig = ReplicasConfig()
    decode: DecodePoolConfig | None = None
    """A pool of its own for all tokens but the first; null: each replica makes all."""
    speculation: SpeculationConfig | None = None
    slo: SloConfig = SloConfig()
    prices: Prices | None = None
    """Of machines and energy (``--prices`` of a run); null: no cost is told."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Of all that is drawn: lengths, arrivals, drafts that are right."""

    @property
    def interpolated(self) -> bool:
        """Whether steps of the machine are interpolated."""
        if self.machine is None:
            return False
        chosen = self.steps.interpolated
        if chosen is not None:
            return chosen
        if self.speculation is not None:  # rows that verify drafts lie between no anchors
            return False
        return isinstance(self.machine, GpuMachineConfig) or self.machine.fidelity == "fast"

    @model_validator(mode="after")
    def _timed_in_one_way(self) -> ServiceConfig:
        if (self.step_time is None) == (self.machine is None):
            raise ValueError("either step_time or machine, not both and not none")
        if self.machine is None:
            if self.cache.blocks is None:
                raise ValueError("cache.blocks is missing; without a machine nothing else says it")
            if self.steps != StepsConfig():
                raise ValueError("steps are those of a machine, which this service has not")
        elif self.decode is not None and self.decode.step_time is not None:
            raise ValueError("decode.step_time: where there is a machine, both pools have it")
        elif self.model is not None:
            raise ValueError("model is machine.workload.model where the service has a machine")
        elif not self.interpolated and self.steps.max_error is not None:
            raise ValueError("steps.max_error is of interpolated steps; these are simulated")
        elif self.machine.parallel.batches is not None:
            raise ValueError(
                "machine.parallel.batches is of a run; here the scheduler says what is under way"
            )
        return self

    @model_validator(mode="after")
    def _prices_of_what_is_known(self) -> ServiceConfig:
        if self.prices is None:
            return self
        if self.prices.kwh is not None and self.machine is None:
            raise ValueError(
                "prices.kwh needs a machine; where steps are given energy is not known"
            )
        if self.prices.of_parts and self.machine is None:
            raise ValueError(
                "prices.replica_hour is missing; where steps are given nothing is known of a "
                "machine's parts"
            )
        if not self.prices.of_time:
            raise ValueError("prices.hours is missing; what a service costs is that of its time")
        if self.prices.decode_replica_hour is not None and self.decode is None:
            raise ValueError("prices.decode_replica_hour is of decode, which this service has not")
        return self

    @model_validator(mode="after")
    def _not_too_many_blocks(self) -> ServiceConfig:
        if self.cache.blocks is None:
            return self
        count = self.replicas.count + (0 if self.decode is None else self.decode.count)
        blocks = self.cache.blocks * count
        if blocks > _MOST_BLOCKS_OF_ALL:
            raise ValueError(
                f"cache.blocks: {self.cache.blocks:,} of {count:,} replicas are "
                f"{blocks:,}, more than {_MOST_BLOCKS_OF_ALL:,} in all"
            )
        return self
