"""Finds the data that ships with pimsim, in a checkout or installed in a wheel."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

from pimsim.config.errors import InputError, near_miss
from pimsim.config.paths import given_path
from pimsim.config.plugins import plugins

__all__ = [
    "KINDS",
    "all_presets",
    "data_dir",
    "display_path",
    "find_source",
    "is_preset",
    "looks_like_path",
    "preset_names",
    "preset_path",
]

_FOLDERS = ("configs", "models", "traces", "analysis", "tests/data")

KINDS: dict[str, tuple[str, str]] = {
    "hardware": ("configs/hardware", ".yaml"),
    "memory": ("configs/memory", ".yaml"),
    "pim": ("configs/pim", ".yaml"),
    "energy": ("configs/energy", ".yaml"),
    "xpu": ("configs/xpu", ".yaml"),
    "area": ("configs/area", ".yaml"),
    "nccl": ("configs/nccl", ".yaml"),
    "system": ("configs/system", ".yaml"),
    "service": ("configs/service", ".yaml"),
    "model": ("models", ".yaml"),
    "trace": ("traces", ".csv"),
    "operators": ("traces", ".json"),
    "routing": ("traces", ".routing.parquet"),
    "sparsity": ("traces", ".sparsity.parquet"),
    "acceptance": ("configs/acceptance", ".csv"),
}
"""Kinds of preset: the folder below the data root and the suffix of a preset's file."""

_MAX_NAME = 60
"""Letters of a preset's name."""
_PATH_SUFFIXES = {
    ".yaml", ".yml", ".csv", ".ini", ".json", ".jsonl", ".parquet", ".npy", ".npz", ".pt", ".gz",
}  # fmt: skip


@cache
def _root() -> Path:
    """The folder that holds configs/, models/ and traces/."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "data", package.parents[1]):
        if (root / "configs").is_dir():
            return root
    raise InputError(
        f"pimsim's data (configs, models, traces) is neither in {package} nor beside it"
    )


def _roots() -> list[Path]:
    """The same of ours, then of each plugin."""
    return [_root(), *(plugin.folder for plugin in plugins())]


def data_dir(kind: str) -> Path:
    """The shipped folder ``configs``, ``models``, ``traces``, ``analysis`` or ``tests/data``.

    Parameters
    ----------
    kind
        Its name.

    Raises
    ------
    InputError
        Where neither a checkout nor an installed package has it.
    """
    if kind not in _FOLDERS:
        raise InputError(f"no data folder {kind!r}; allowed: {', '.join(_FOLDERS)}")
    return _root() / kind


def _check_kind(kind: str) -> tuple[str, str]:
    if kind not in KINDS:
        raise InputError(
            f"unknown kind of preset {kind!r}{near_miss(kind, KINDS)}; allowed: {', '.join(KINDS)}"
        )
    return KINDS[kind]


def preset_names(kind: str) -> list[str]:
    """Names of the presets of a kind, sorted: what ships, and what plugins add.

    Parameters
    ----------
    kind
        Of ``KINDS``.
    """
    folder, suffix = _check_kind(kind)
    files = [path for root in _roots() for path in (root / folder).glob(f"*{suffix}")]
    return sorted(path.name.removesuffix(suffix) for path in files)


def all_presets() -> dict[str, list[str]]:
    """Names of all presets, by kind."""
    return {kind: preset_names(kind) for kind in KINDS}


def preset_path(kind: str, name: str) -> Path:
    """The file of a preset.

    Parameters
    ----------
    kind
        Of ``KINDS``.
    name
        Of the preset.

    Raises
    ------
    InputError
        With the near miss where there is none, or when a plugin brings one that is there already.
    """
    found = _preset_files(kind, name)
    if not found:
        names = preset_names(kind)
        known = ", ".join(names) or "none"
        shown = ascii(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}...")
        raise InputError(f"unknown {kind} {shown}{near_miss(name, names)}; known: {known}")
    if len(found) > 1:
        raise InputError(f"{kind} {name!r} is there twice: {found[0]} and a plugin's {found[1]}")
    return found[0]


def is_preset(kind: str, name: str) -> bool:
    """Whether a preset of that kind has the name.

    Parameters
    ----------
    kind
        Of ``KINDS``.
    name
        Of the preset.
    """
    return bool(_preset_files(kind, name))


def _preset_files(kind: str, name: str) -> list[Path]:
    """Files of the presets of that name: one, unless a plugin brings another."""
    folder, suffix = _check_kind(kind)
    # a name that no file can have would be an error of the system's
    if looks_like_path(name) or not name.isprintable() or len(name) > _MAX_NAME:
        return []
    files = (root / folder / f"{name}{suffix}" for root in _roots())
    return [path for path in files if path.is_file()]


@lru_cache(maxsize=1024)
def looks_like_path(text: str) -> bool:
    """Whether ``text`` names a file rather than a preset: a separator or a known suffix.

    Parameters
    ----------
    text
        As it was given.
    """
    return "/" in text or "\\" in text or Path(text).suffix.lower() in _PATH_SUFFIXES


def find_source(kind: str, name_or_path: str, folder: Path | None = None) -> Path:
    """The file meant by a preset's name or by a path (relative ones from ``folder``).

    Parameters
    ----------
    kind
        Of ``KINDS``.
    name_or_path
        As it was given.
    folder
        That relative paths count from; None: the current one.

    Raises
    ------
    InputError
        With the near miss where there is no such preset.
    """
    if not looks_like_path(name_or_path):
        return preset_path(kind, name_or_path)
    path = given_path(name_or_path)
    return path if folder is None or path.is_absolute() else folder / path


@lru_cache(maxsize=1024)
def display_path(path: Path) -> str:
    """The path as messages show it: shipped files relative to the data root.

    Parameters
    ----------
    path
        Of a file that was read or is to be written.
    """
    root = _root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
