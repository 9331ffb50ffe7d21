"""Inference techniques: each a function from an iteration to the one it becomes.

One module holds one technique and is named after it. The module offers a function of its own
name, which takes the technique's parameters as keywords and returns the transform; what is
``pimsim.workload.transforms.kv_quantise`` is asked for as ``load_transform("kv_quantise")``.
Adding a module adds a technique; there is no list to extend.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from pimsim.config.plugins import load_module, module_names
from pimsim.workload.operators import ForwardPass

__all__ = ["Transform", "TransformFactory", "load_transform", "transform_names"]


class Transform(Protocol):
    """What a technique does to an iteration; the argument is left as it is."""

    def __call__(self, forward: ForwardPass, /) -> ForwardPass: ...


class TransformFactory(Protocol):
    """Takes a technique's parameters, raising ``InputError`` where they make no sense."""

    def __call__(self, **parameters: Any) -> Transform: ...


def transform_names() -> list[str]:
    """Names of the techniques that there are, sorted."""
    return module_names("transform")


def load_transform(name: str) -> TransformFactory:
    """The technique of that name.

    Parameters
    ----------
    name
        Of its module.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    return cast(TransformFactory, getattr(load_module("transform", name), name))
