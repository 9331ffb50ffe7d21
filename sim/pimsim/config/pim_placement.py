"""Whether a PIM design can do what a machine asks of it, where it asks it to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pimsim.config.declared import schedules_with_pim

if TYPE_CHECKING:
    from pimsim.config.pim import PimConfig
    from pimsim.config.run import MachineConfig

__all__ = ["check_pim_placement"]


def check_pim_placement(config: MachineConfig) -> None:
    """Raise where PIM cannot be in its memory, or cannot do what is placed on it.

    Parameters
    ----------
    config
        Of a machine.

    Raises
    ------
    ValueError
        With the key, what was found, and what is allowed.
    """
    _check_pim_memory(config)
    if config.schedule.declared.uses_pim and config.pim is not None:
        config.pim.check_beside(config.memory_of_pim, "pim")
        if config.pim.controller is not None:
            _check_operations(config, config.pim)
    _check_products(config)


def _check_pim_memory(config: MachineConfig) -> None:
    """Raises ``ValueError`` where PIM is to be behind a link, and cannot."""
    schedule, pim = config.schedule, config.pim
    if config.pim_memory is None:
        if config.pim_link is not None:
            raise ValueError(
                "pim_link is the link to a pim_memory, which is missing; without it PIM is in "
                "the device's memory"
            )
        return
    key = f"pim_memory {config.pim_memory.name!r}"
    if config.pim_link is None:
        raise ValueError(f"{key} needs a pim_link with bandwidth_gb_per_s and pj_per_bit")
    if pim is None or not schedule.declared.uses_pim:
        missing = "a pim section" if pim is None else "a schedule.policy that uses PIM"
        which = f": {schedules_with_pim()}" if pim is not None else ""
        raise ValueError(f"{key} needs {missing}{which}")
    if pim.controller is None:
        raise ValueError(
            f"{key}: {pim.name} has no controller of its own: its commands go through the "
            "controller of the device's memory; allowed with it: null"
        )
    if schedule.attention_placement != "pim":
        raise ValueError(
            f"{key} holds the KV cache, so that schedule.attention_placement is 'pim'; found "
            f"{schedule.attention_placement!r}"
        )
    weights = {
        "product_placement": (schedule.product_placement, ("npu",)),
        "expert_placement": (schedule.expert_placement, ("npu", "by-tokens")),
    }
    for name, (found, allowed) in weights.items():
        if found not in allowed:
            raise ValueError(
                f"{key} holds the KV cache and no weights: schedule.{name}: found {found!r}; "
                f"allowed with it: {', '.join(allowed)}"
            )


def _check_operations(config: MachineConfig, pim: PimConfig) -> None:
    """Raises ``ValueError`` where a PIM design with a controller of its own is to do what it
    does not."""
    schedule, does = config.schedule, ", ".join(pim.operations) or "nothing"
    attends = schedule.attention_placement == "pim"
    if attends and {"attention", "gemv"}.isdisjoint(pim.operations):
        raise ValueError(
            f"schedule.attention_placement 'pim': {pim.name} has no attention and no gemv, it does "
            f"{does}; allowed with it: npu"
        )
    if schedule.expert_placement == "pim" and "gemv" not in pim.operations:
        raise ValueError(
            f"schedule.expert_placement 'pim': {pim.name} does {does}, no gemv; allowed with "
            "it: npu, by-tokens"
        )


def _check_products(config: MachineConfig) -> None:
    """Raises ``ValueError`` where products of all tokens are to be on a PIM without any."""
    placement, pim = config.schedule.product_placement, config.pim
    if placement == "npu":
        return
    key = f"schedule.product_placement {placement!r}"
    if not config.schedule.declared.uses_pim or pim is None:
        raise ValueError(
            f"{key} needs a schedule.policy that uses PIM: {schedules_with_pim()}; allowed "
            "without: npu"
        )
    if pim.controller is None:
        raise ValueError(
            f"{key}: {pim.name}, whose commands the memory's controller takes, does attention "
            "and experts; allowed with it: npu"
        )
    if "gemv" not in pim.operations:
        raise ValueError(
            f"{key}: {pim.name} does {', '.join(pim.operations) or 'nothing'}, no gemv; "
            "allowed with it: npu"
        )
