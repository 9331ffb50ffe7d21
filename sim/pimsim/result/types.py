"""What a run says: frozen, exact where the simulator is exact, and ready for JSON.

The keys are those of ``pimsim run --json``. Cycles are integers of the NPU clock. ``from_dict``
refuses unknown and missing keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from itertools import pairwise
from math import fsum
from typing import TYPE_CHECKING, Any, Literal

from pimsim.config.errors import first_fault
from pimsim.result.rows import (
    CYCLE_CAUSES,
    Decoding,
    KvCacheUse,
    OperatorResult,
    RequestResult,
    StageResult,
    StepResult,
    Strict,
)

if TYPE_CHECKING:
    import pandas

__all__ = [
    "CYCLE_CAUSES",
    "VERSION",
    "Decoding",
    "Energy",
    "Experts",
    "Fidelity",
    "KvCacheUse",
    "Latency",
    "OperatorResult",
    "Percentiles",
    "PipelineStage",
    "Provenance",
    "RequestResult",
    "Result",
    "Series",
    "StageResult",
    "StepResult",
    "Utilisation",
    "fidelity_words",
]

VERSION = 4
"""Of ``result.json``. It counts up when a key comes or goes, or means another thing."""
_FIRST_VERSION = 1
"""Of results that do not say."""


@dataclass(frozen=True)
class Utilisation(Strict):
    """Share of the run, 0 to 1."""

    npu: float
    """Multiply-accumulates done, of those that the arrays could do; of a GPU its matrix units."""
    vector: float | None
    """Vector units busy; null: not known, of a GPU."""
    pim: float | None
    """PIM commands under way, over the channels: from the start of a PIM operation to the last
    command of each channel, waits between commands included. What the banks could do at most is
    in ``bound_cycles``. Of PIM beside a GPU: at work; null: the GPU has none."""
    dram_bus: float
    """Data bus busy, over the channels; of a GPU the bytes moved, of those that its
    memory could move."""
    command_bus: float | None
    """C/A bus busy, over the channels; null: of a GPU, whose memory has no commands here."""


@dataclass(frozen=True)
class Percentiles(Strict):
    """Seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Latency(Strict):
    """Of requests, when a run serves them to the end."""

    ttft: Percentiles
    """Time to first token."""
    tpot: Percentiles
    """Time per output token."""
    e2e: Percentiles


@dataclass(frozen=True)
class Energy(Strict):
    """Joule; ``total`` is the sum of the others."""

    dram: float
    pim: float
    npu: float
    sram: float
    link: float
    static: float
    total: float
    host: float = 0.0
    """Of a host that does a GPU's attention: its memory and arithmetic."""

    @classmethod
    def of(
        cls, *, dram: float, pim: float, npu: float, sram: float, link: float, static: float,
        host: float = 0.0,
    ) -> Energy:  # fmt: skip
        """Parts and their sum."""
        total = fsum((dram, pim, npu, sram, link, static, host))
        return cls(dram, pim, npu, sram, link, static, total, host)


@dataclass(frozen=True)
class Experts(Strict):
    """Where the tokens of a mixture of experts went, over the simulated blocks."""

    hit_mean: float
    """Experts of the device with a token, mean over blocks and sub-batches."""
    tokens_mean: float
    """Tokens of an expert that has any."""
    tokens_max: int
    on_pim_share: float
    """Of the pairs of a token and an expert, those that PIM worked on."""
    threshold_max: int
    """Most tokens of an expert on PIM by placement, over blocks and sub-batches."""
    dropped: int
    """Pairs without room, of the whole batch in the simulated blocks."""
    device_imbalance: float
    """Pairs of the fullest group of devices over the mean of all, mean over blocks."""


@dataclass(frozen=True)
class PipelineStage(Strict):
    """One stage of a pipeline and a batch."""

    blocks: int
    """Decoder blocks that it has."""
    time_s: float
    """What it takes for them, and for its part of the work beside them; ``send`` included."""
    busy: float
    """Share of ``iteration_s``; for the rest of it the stage waits."""
    weights_bytes: int
    """On each of its devices."""
    kv_bytes: int
    """On each of its devices: of its blocks, for all batches under way."""
    energy_j: float
    """One of its devices, from one batch to the next, waiting included."""


@dataclass(frozen=True)
class Series(Strict):
    """What one device did over time, in intervals that follow each other from 0 on; of the blocks
    that were simulated."""

    end_ps: tuple[int, ...]
    """End of each interval; the next one's start."""
    dram_bytes: tuple[int, ...]
    """On the data buses: reads, writes and results of PIM, when they hold the bus."""
    pim_bytes: tuple[int, ...]
    """Read in the banks by dot products."""
    npu_macs: tuple[int, ...]
    """Multiply-accumulates of the arrays, evenly while they have a tile."""
    pim_macs: tuple[int, ...]
    """Multiplications beside the banks, when they hold them."""
    link_bytes: tuple[int, ...]
    energy_j: Mapping[str, tuple[float, ...]]
    """By part, as ``Energy`` has them."""
    vector_lane_ops: tuple[int, ...] = ()
    """Operations of the lanes of vector units, when these have them; empty in earlier results."""

    @property
    def lengths_s(self) -> list[float]:
        """Seconds that each interval takes."""
        return [(end - start) * 1e-12 for start, end in pairwise((0, *self.end_ps))]

    def rates(self, amounts: Sequence[float]) -> list[float]:
        """Each interval's amount a second."""
        return [amount / length for amount, length in zip(amounts, self.lengths_s, strict=True)]


@dataclass(frozen=True)
class Fidelity(Strict):
    """How exact the run was; errors are relative, of phases simulated in both ways."""

    mode: Literal["command", "fast"]
    sampled_phases: int = 0
    error_mean: float = 0.0
    error_ci95: float = 0.0
    """Half width of the 95 % interval."""

    @property
    def words(self) -> str:
        """How a figure was simulated, of ``fast`` with its error: wherever figures are shown."""
        return fidelity_words(self.mode, self.error_mean, self.error_ci95)


def fidelity_words(mode: str, error_mean: float, error_ci95: float) -> str:
    """``command``, or ``fast`` with its error and the half width of its 95 % interval, both
    relative.

    Parameters
    ----------
    mode
        ``command`` or ``fast``.
    error_mean
        Of phases that were simulated in both ways, relative.
    error_ci95
        Half width of its 95 % interval.
    """
    return mode if mode != "fast" else f"fast, error {error_mean:+.2%} +- {error_ci95:.2%}"


@dataclass(frozen=True)
class Provenance(Strict):
    """Where a result comes from."""

    config_sha256: str
    trace_sha256: str
    version: str
    seed: int
    wall_s: float
    peak_rss_mb: float
    content_sha256: str = ""
    """Of all that the result depends on (``config.content``); empty in results of before."""


@dataclass(frozen=True, repr=False)
class Result(Strict):
    """What happened in one run."""

    cycles: int
    """Whole run, in cycles of the NPU's clock, or the GPU's."""
    time_s: float
    """The same in seconds."""
    tokens_per_s: float
    """``tokens`` over ``iteration_s``; under a decoding strategy ``decoding.made``, which is not
    what is fed, over it."""
    iterations: int
    """Steps."""
    stages: tuple[StageResult, ...]
    operators: tuple[OperatorResult, ...]
    utilisation: Utilisation
    energy_j: Energy
    """One device, for the blocks that were simulated and all work beside blocks."""
    tokens_per_j: float
    """Tokens of a batch over the energy of all devices for all blocks of the model; stages of a
    pipeline that wait draw what a device with nothing to do draws."""
    cycle_stack: Mapping[str, Mapping[str, int]]
    """Cycles by unit and cause; each unit's add up to ``cycles``."""
    bound_cycles: Mapping[str, int]
    """Least cycles that each unit needs for all of the run's work."""
    fidelity: Fidelity
    provenance: Provenance
    latency_s: Latency | None = None
    name: str = ""
    """Name of the run's config."""
    model: str = ""
    tokens: int = 0
    """Tokens that are fed in all steps: of a decode step as many as it makes, unless a decoding
    strategy guesses some."""
    steps: tuple[StepResult, ...] = ()
    """The forward passes, one after the other; empty in results of before."""
    requests: tuple[RequestResult, ...] = ()
    """Of all steps; empty in results of before."""
    layers_simulated: int = 0
    layers_model: int = 0
    """Decoder blocks that the model has on each device; of a pipeline, of the slowest stage."""
    iteration_s: float = 0.0
    """All steps, of ``layers_model`` blocks each, on a device: ``time_s`` and, for each block that
    was not simulated, the time of a block in the steady state. Of a pipeline: from one batch to the
    next, which is what the slowest stage takes."""
    tokens_per_s_interval: tuple[float, float] | None = None
    """95 % interval of ``tokens_per_s``: where all blocks, simulated by commands, would lie. Both
    ends equal it where that was done; null: blocks differ and too few were simulated to know how
    much. Of ``fast``, half a width of ``fidelity`` to each side is in it."""
    block_spread: float | None = None
    """Standard deviation of the times of blocks of one kind over their mean, where they differ and
    are extrapolated."""
    devices: int = 1
    """Devices that share the model, ``tp`` x ``pp``."""
    pipeline: tuple[PipelineStage, ...] = ()
    """Its stages in their order, where there are several."""
    power_w: Mapping[str, float] = field(default_factory=dict)
    """Mean power of one device over the blocks that were simulated: the parts of ``energy_j``, and
    ``total``. Empty: not known."""
    static_w: Mapping[str, float] = field(default_factory=dict)
    """Static power of one device: ``arrays``, ``vector``, ``sram``, ``memory`` (controllers and
    PHYs), ``link``, ``pim``, ``rest`` and ``total``; all the time."""
    idle_w: float = 0.0
    """One device with nothing to do: static power, standby and refresh of its DRAM."""
    tdp_w: float | None = None
    """The most that a device draws (``npu.tdp_w``); None: not known."""
    token_j: Mapping[str, float] = field(default_factory=dict)
    """Joule of a token by part, all devices and all blocks of the model; ``total`` is one over
    ``tokens_per_j``."""
    power_sources: Mapping[str, str] = field(default_factory=dict)
    """By part of ``static_w``, and of ``energy_j``: what it is worked out from."""
    peaks: Mapping[str, float] = field(default_factory=dict)
    """What one device could do at most, a second: ``npu_flop_per_s``, ``dram_bytes_per_s`` and
    ``npu_bytes_per_s`` (through a network), and of what the run puts on PIM ``pim_flop_per_s``,
    ``pim_kv_bytes_per_s``, ``pim_weight_bytes_per_s``. Empty in results of before."""
    series: Series | None = None
    """The run over time; None in results of before."""
    experts: Experts | None = None
    """None: the model has none."""
    kv_cache: KvCacheUse | None = None
    """None: nothing is kept; in results of before too."""
    area_mm2: Mapping[str, float] = field(default_factory=dict)
    """Silicon of all devices by part, the sums ``dram_dies`` and ``logic_dies``, and ``total``
    (``configs/area``); empty: not known."""
    memory_bytes: int = 0
    """DRAM of all devices, of a host too where it holds their KV cache; 0 in results of before."""
    stacks: int = 0
    """Stacks, packages or modules of DRAM on one device; 0: not known."""

    decoding: Decoding | None = None
    """Of a run with a decoding strategy, whose passes of the model the other figures are of, but
    for rates, ``iteration_s`` and energy of a token; None: a token a step."""
    warnings: tuple[str, ...] = field(default=())
    """What a reader of the numbers must know."""

    @property
    def stack_w(self) -> float | None:
        """Mean power of the DRAM and the PIM of one stack; None: not known."""
        if not self.stacks or not self.power_w:
            return None
        return (self.power_w["dram"] + self.power_w["pim"]) / self.stacks

    def __repr__(self) -> str:
        """A line for a notebook; ``to_dict`` and ``table`` have the rest."""
        from pimsim.result.metrics import METRICS

        rate = METRICS["tokens_per_s"]
        return (
            f"Result({self.name!r}, {self.model!r}: {self.cycles} cycles, "
            f"{rate.text(rate.of(self))}, {self.fidelity.words})"
        )

    def _repr_html_(self) -> str:
        """For a notebook: the headline, where the cycles went, and what holds the run back."""
        tables = import_module("pimsim.result.tables")  # it is made of results
        return str(import_module("pimsim.result.notebook").html_of(*tables.summary_view(self)))

    def table(self, name: str = "operators") -> pandas.DataFrame:
        """One of the run's tables (``pimsim.result.frames``).

        Parameters
        ----------
        name
            ``steps``, ``requests``, ``stages``, ``operators``: a row each, in the order of the
            run; ``cycle_stack``: a row a unit and cause; ``series``: a row an interval of time.

        Returns
        -------
        pandas.DataFrame
            Columns say where a row belongs (``device``, ``step``, ``part``: the sub-batch,
            ``block``: its number in the model, ``unit``) and carry units: ``*_cycles`` of the NPU
            clock, ``*_bytes``, ``*_macs``, ``*_s``, ``*_ps``, ``*_j``. At fast fidelity the last
            column, ``fidelity``, has the error of them all.

        Raises
        ------
        InputError
            For another name.
        """
        from pimsim.result.frames import frame

        return frame(self, name)

    @property
    def plot(self) -> Any:
        """Matplotlib figures: ``plot.cycle_stack()``, ``plot.roofline(run)``, ... (see
        ``pimsim.report.plots.RunPlots``)."""
        # Drawing is above results in the layers: named, not imported, and loaded on first use, as
        # the facade ``pimsim`` does, so that results stay free of report and matplotlib.
        return import_module("pimsim.report.plots").RunPlots(self)

    def to_dict(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, as JSON takes them; of all fields, with the
        ``version`` of the format, or of the fields ``names`` alone."""
        if names is None:
            return {"version": VERSION, **self.to_dict(each.name for each in fields(self))}
        return {name: _plain(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of ``to_dict``; what an earlier version did not have is left empty.

        Raises
        ------
        ValueError
            Where a key is unknown, missing or of the wrong type, which it names, or where the
            version is a later one.
        """
        from pydantic import TypeAdapter, ValidationError

        content = dict(data)
        version = content.pop("version", _FIRST_VERSION)
        if type(version) is not int or not _FIRST_VERSION <= version <= VERSION:
            raise ValueError(
                f"version: {version!r} of a result; this pimsim reads {_FIRST_VERSION} to {VERSION}"
            )
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            raise ValueError(first_fault(error)) from error


def _plain(value: Any) -> Any:
    """Dataclasses and mappings to dicts, tuples to lists, so that to_dict equals what JSON gives
    back."""
    if value is None or isinstance(value, (int, float, str)):
        return value
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
