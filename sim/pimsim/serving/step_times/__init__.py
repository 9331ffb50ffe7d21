"""What a step takes: one module for each way to know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from pimsim.serving.schedulers import Batch
from pimsim.workload.step import Step

__all__ = ["ON_CHANNELS", "Dealing", "MachineSteps", "ServedMachine", "StepCost", "StepTime"]


class StepTime(Protocol):
    """Says how long steps take."""

    def duration_ps(self, batch: Batch) -> int:
        """Picoseconds of a step; each stage of a pipeline takes so long. At least 1.

        Parameters
        ----------
        batch
            Its entries as columns (``new_tokens``, ``contexts``) and their sums (``tokens``,
            ``context``, ``requests``).
        """


class StepCost(NamedTuple):
    """What a step takes on a machine."""

    time_ps: int
    joule: NDArray[np.float64]
    """Of all devices, by part."""


class Dealing(NamedTuple):
    """How the heads of a step's requests are dealt to what attends at once, anew in each step."""

    places: int
    """0: none are; each request attends where its cache lies."""
    heads: int
    """Of a request and token, all alike."""
    longest_first: bool
    """The largest first, each to the place with the least; else one place after the other."""


ON_CHANNELS = Dealing(0, 1, False)
"""Each request attends on the channel that it was given."""


class MachineSteps(Protocol):
    """A machine that can be asked what steps take; how it knows is its own affair."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What energy is told by."""

    @property
    def pim_tokens(self) -> int:
        """New tokens of a request that attends where its cache lies, on its channel, at most; 0:
        none does."""

    @property
    def dealing(self) -> Dealing:
        """What attends at once, where that is not the channels of the requests."""

    @property
    def channels(self) -> int:
        """Among which the caches of requests are dealt out."""

    @property
    def least_loaded(self) -> bool:
        """Whether a new request goes to the channel with the least work; else to one after the
        other."""

    @property
    def sub_batches(self) -> int:
        """Parts of a step, of which one attends while another one is multiplied, at most."""

    @property
    def max_context(self) -> int:
        """Tokens of the longest context."""

    @property
    def work(self) -> NDArray[np.int64]:
        """By context from 0 to ``max_context``: what a token's attention to it is worth."""

    @property
    def idle_w(self) -> NDArray[np.float64]:
        """Watt of all devices that nobody asks for anything, by part."""

    def cost(self, step: Step) -> StepCost:
        """Of a step whose requests name their channels."""


class ServedMachine(MachineSteps, Protocol):
    """One that a service is given: what it holds, too, and what it is told by."""

    @property
    def config(self) -> BaseModel:
        """Of its steps; what they take depends on nothing else but the model's files."""

    @property
    def fidelity(self) -> str:
        """How its steps are known."""

    @property
    def model(self) -> str:
        """What the model is called."""

    @property
    def stages(self) -> int:
        """Of the pipeline."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how its devices share the model, a line each."""

    @property
    def more(self) -> str:
        """The key of a service that gives it more memory."""

    def priced_figures(self) -> Mapping[str, float]:
        """How many devices it has, and how much silicon as far as that is known, by the names in
        ``result.json``."""

    def tokens(self, size: int) -> int:
        """Of KV cache that it holds beside the weights, in blocks of ``size``.

        Parameters
        ----------
        size
            Tokens of a block.
        """
