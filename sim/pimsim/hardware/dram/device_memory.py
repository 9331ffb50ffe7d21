"""A memory as the device's kernel runs it: every pseudo channel a channel of its own.

Pseudo channels share nothing but their channel's command pins. The device's kernel gives each its
own: what is lost is the wait of one half's row command for the other's. Ranks (SIDs) and all rules
stay as they are. A memory without pseudo channels is what it was.
"""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig

__all__ = ["device_memory"]


def _without_halves(memory: MemoryConfig, key: str) -> str:
    """The map with pseudo channel and channel as one field."""
    text: str = getattr(memory, key)
    fields = [text[i : i + 2] for i in range(0, len(text), 2)]
    at = fields.index("pc")
    if "ch" not in fields[max(at - 1, 0) : at + 2]:
        raise InputError(
            f"{memory.name}: {key} {text!r}: on a device pc must stand beside ch, as each pseudo "
            "channel is a channel there"
        )
    return "".join(field for field in fields if field != "pc")


def device_memory(memory: MemoryConfig) -> MemoryConfig:
    """``memory`` with its pseudo channels as channels, under the ``bank-queues`` controller.

    Parameters
    ----------
    memory
        With pseudo channels or without.

    Returns
    -------
    MemoryConfig
        Without pseudo channels; capacity and rules are the same.

    Raises
    ------
    InputError
        An address map does not allow that.
    """
    org = memory.organization
    controller = memory.controller.model_copy(update={"model": "bank-queues"})
    if org.pseudo_channels == 1:
        return memory.model_copy(update={"controller": controller})
    halves = {
        "channels": org.channels * org.pseudo_channels,
        "pseudo_channels": 1,
        "channels_per_stack": org.channels_per_stack * org.pseudo_channels,
    }
    rules = [
        rule.model_copy(update={"level": "channel"}) if rule.level == "pseudo_channel" else rule
        for rule in memory.rules
    ]
    # the interval counts for a channel; the kernel's own default is tREFI over a rank's banks
    timings = {name: cycles for name, cycles in memory.timings.items() if name != "tREFIpb"}
    return memory.model_copy(
        update={
            "organization": org.model_copy(update=halves),
            "controller": controller,
            "rules": rules,
            "timings": timings,
            "address_map": _without_halves(memory, "address_map"),
            "stream_map": _without_halves(memory, "stream_map"),
        }
    )
