"""What a point is known by: everything that its result depends on, by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property

from pimsim import __version__
from pimsim.config.loader import ResolvedRun
from pimsim.config.plugins import plugin_versions
from pimsim.config.run import WorkloadConfig
from pimsim.workload.batch import inputs_sha256
from pimsim.workload.cards import card_sha256
from pimsim.workload.requests import load_requests

__all__ = ["Contents", "kin_of", "point_id", "result_key"]


class Contents:
    """Hashes of the files that runs read, each read once: during a sweep they are taken not to
    change."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}

    def sha256(self, workload: WorkloadConfig) -> str:
        """Of all that a workload names: requests, the model's card or trace, routing, sparsity.
        Raises ``InputError`` where one cannot be read."""
        names = (
            workload.requests, str(workload.batch), workload.model, str(workload.trace),
            workload.routing, workload.sparsity,
        )  # fmt: skip
        if names not in self._known:
            requests = load_requests(workload.requests, workload.batch).sha256
            traces = inputs_sha256(workload, requests)
            card = "" if workload.trace is not None else card_sha256(workload.model)
            self._known[names] = hashlib.sha256(f"{traces} {card}".encode()).hexdigest()
        return self._known[names]

    @cached_property
    def version(self) -> str:
        """Of pimsim and its plugins."""
        return " ".join((__version__, *plugin_versions()))


def point_id(base: str, overrides: Sequence[str]) -> str:
    """Of a point of a sweep: its base's name and its values."""
    return _short(base, sorted(overrides))


def result_key(resolved: ResolvedRun, contents: Contents) -> str:
    """Of a result: the resolved config, the content of all files that it names, the version.
    Raises ``InputError`` where one of them cannot be read."""
    found = contents.sha256(resolved.config.workload)
    return _short(resolved.sha256, found, contents.version)


def kin_of(overrides: Sequence[str]) -> str:
    """Equal for points whose channels have the same programs on the same memory, as far as what
    they set tells."""
    programs = ("memory", "pim", "workload", "parallel")
    return "\n".join(sorted(text for text in overrides if text.startswith(programs)))


def _short(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
