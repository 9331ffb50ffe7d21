"""Libraries that only some commands need, and what to install for them."""

from __future__ import annotations

from importlib.util import find_spec

from pimsim.config.errors import InputError

__all__ = ["EXTRAS", "hush", "require_extra"]

EXTRAS: dict[str, tuple[str, ...]] = {
    "report": ("bokeh", "jinja2", "perfetto"),
    "explore": ("dask", "distributed", "optuna"),
    "torch": ("torch", "transformers", "gguf", "tokenizers", "safetensors"),
    "grammar": ("llguidance",),
}
"""What each extra of the distribution brings, as it is imported."""

_FIRST = {"torch": "pip install torch==2.13.0, then "}


def require_extra(extra: str, *modules: str) -> None:
    """Raise with what to install where one of ``modules`` is absent; without any of them named, all
    that the extra brings are needed.

    Parameters
    ----------
    extra
        Of pimsim's distribution (``explore``).
    *modules
        Of it, those that are needed.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    missing = [name for name in modules or EXTRAS[extra] if not _is_there(name)]
    if missing:
        named = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise InputError(
            f"this command needs {named}: {_FIRST.get(extra, '')}pip install 'pimsim[{extra}]'"
        )


def hush(library: str) -> None:
    """Have a library log errors alone: that a cache of its own cannot be kept, in a home that
    cannot be written, changes no result.

    Parameters
    ----------
    library
        Name of its logger.
    """
    import logging

    logging.getLogger(library).setLevel(logging.ERROR)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
