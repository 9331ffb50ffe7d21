"""A service's second pool, and step times that are given, from their configs."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

from pimsim.config.service import DecodePoolConfig, StepTimeConfig
from pimsim.hardware.fabric.links import LinkSpec
from pimsim.hardware.fabric.topology import build_topology
from pimsim.serving.pools import DecodePool, Links
from pimsim.serving.routers import load_router
from pimsim.serving.step_times import StepTime
from pimsim.serving.step_times.linear import Linear
from pimsim.serving.step_times.profile import load_profile

__all__ = ["decode_pool", "given_step_time"]


def given_step_time(config: StepTimeConfig) -> StepTime:
    """In closed form, or from a profile.

    Parameters
    ----------
    config
        Of one of the two.

    Raises
    ------
    InputError
        For a profile that cannot be read.
    """
    if config.linear is not None:
        return Linear(**config.linear.model_dump())
    assert config.profile is not None
    return load_profile(config.profile.folder, config.profile.layers)


def decode_pool(config: DecodePoolConfig, first: int, step_time: StepTime) -> DecodePool:
    """The replicas that decode.

    Parameters
    ----------
    config
        Of them.
    first
        Replicas that feed prompts: theirs are the first numbers.
    step_time
        Of those, for these too where they have none of their own.

    Raises
    ------
    InputError
        For links over which one of them cannot be reached.
    """
    return DecodePool(
        step_time if config.step_time is None else given_step_time(config.step_time),
        load_router(config.router), config.count, config.stages, _links(config, first),
        config.token_bytes,
    )  # fmt: skip


def _links(config: DecodePoolConfig, first: int) -> Links:
    """From each of the ``first`` replicas to each of the pool's."""
    pairs = [(one, first + other) for one in range(first) for other in range(config.count)]
    if config.links is None:
        return Links(dict.fromkeys(pairs, ()), 0, None)
    topology = build_topology(config.links.topology, first + config.count, config.links.link_pairs)
    spec = LinkSpec.of(config.links.bandwidth_gb_per_s, config.links.latency_ns)
    numbers: dict[tuple[int, int], int] = {}
    paths = {}
    for pair in pairs:
        nodes = topology.path(*pair)
        paths[pair] = tuple(numbers.setdefault(link, len(numbers)) for link in pairwise(nodes))
    return Links(paths, len(numbers), spec.bytes_per_ps, ceil(spec.latency_ps))
