"""What a point is known by: everything that its result depends on, by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pimsim.config.content import digest, run_content
from pimsim.config.loader import ResolvedAny
from pimsim.config.run import WorkloadConfig
from pimsim.config.system import SystemWorkload
from pimsim.workload.batch import input_hashes

__all__ = ["Contents", "kin_of", "point_id", "result_key"]

_FILES = ("requests", "batch", "model", "trace", "routing", "sparsity")
"""Keys of ``workload`` that say which files are read, and how."""


class Contents:
    """Hashes of the files that runs read, each read once: during a sweep they are taken not to
    change."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Mapping[str, str]] = {}

    def of(self, workload: WorkloadConfig | SystemWorkload) -> Mapping[str, str]:
        """Of all that a workload names, by key. Raises ``InputError`` where one cannot be read."""
        names = tuple(getattr(workload, key, None) for key in _FILES)
        if names not in self._known:
            self._known[names] = input_hashes(workload)
        return self._known[names]


def point_id(base: str, overrides: Sequence[str]) -> str:
    """Of a point of a sweep: its base's name and its values.

    Parameters
    ----------
    base
        A preset's name or a path.
    overrides
        Values, as ``--set`` takes them.

    Returns
    -------
    str
        The same for the same values, in any process.
    """
    return digest(base, sorted(overrides))[:32]


def result_key(resolved: ResolvedAny, contents: Contents) -> str:
    """Of a result: all that it depends on. Raises ``InputError`` where a file cannot be read.

    Parameters
    ----------
    resolved
        Config of the point, complete.
    contents
        Hashes of files that were read before.

    Returns
    -------
    str
        Equal for points whose results are equal.

    Raises
    ------
    InputError
        Where a file cannot be read.
    """
    return run_content(resolved, contents.of(resolved.config.workload))[:32]


def kin_of(overrides: Sequence[str]) -> str:
    """Equal for points whose channels have the same programs on the same memory, as far as what
    they set tells.

    Parameters
    ----------
    overrides
        Values, as ``--set`` takes them.
    """
    programs = ("memory", "pim", "workload", "parallel")
    return "\n".join(sorted(text for text in overrides if text.startswith(programs)))
