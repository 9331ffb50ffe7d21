"""The peak rate of a memory, from its own rules: column commands, data buses, bytes.

Everything that asks how fast a memory can be at most (bounds, rooflines, tilings, estimates) asks
here, so that there is one answer.
"""

from __future__ import annotations

from fractions import Fraction

from pimsim.config.asked_once import Latest
from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import Action, MemoryConfig

__all__ = ["burst_slot_ps", "column_clocks", "data_buses", "peak_bytes_per_s"]


_CLOCKS: Latest[tuple[MemoryConfig, int]] = Latest(32)
"""By memory, which is frozen and held here so that no other gets its place, and action."""


def column_clocks(memory: MemoryConfig, action: Action = "read") -> int:
    """Least clocks of tCK between two column commands on one data bus, in a long run of them.

    Parameters
    ----------
    memory : MemoryConfig
        Its rules and timings are read; nothing is assumed of its standard.
    action : str
        ``read`` or ``write``.

    Returns
    -------
    int
        At least ``nBL``, for which a burst holds the bus. The run goes over the bank groups in
        turn, and over the ranks where that is faster: rules of a bank group bind every so many
        commands as there are groups.
    """
    known = _CLOCKS.get((id(memory), action))
    if known is None:
        known = memory, _column_clocks(memory, action)
        _CLOCKS.put((id(memory), action), known)
    return known[1]


def _column_clocks(memory: MemoryConfig, action: Action) -> int:
    org = memory.organization
    command = memory.command(action)
    delays: dict[str, int] = {}
    for index, rule in enumerate(memory.rules):
        if rule.window == 1 and command in rule.first and command in rule.then:
            clocks = evaluate_delay(rule.delay, memory.timings, f"memory.rules[{index}]")
            delays[rule.level] = max(delays.get(rule.level, 0), clocks)
    sent = -(-memory.command_bus.ticks(command) // memory.command_bus.ticks_per_clock)
    bus = max(
        memory.timings["nBL"], sent, delays.get("channel", 0), delays.get("pseudo_channel", 0)
    )
    of_bank = max(delays.get("bank", 0), delays.get("row_buffer", 0))

    def in_turn(ranks: int) -> int:
        """In one rank, or in so many that take turns."""
        return max(
            _shared(delays.get("rank", 0), ranks),
            _shared(delays.get("bank_group", 0), ranks * org.bank_groups),
            _shared(of_bank, ranks * org.banks),
        )

    one = in_turn(1)
    if org.ranks > 1:
        one = min(one, max(delays.get("other_ranks", 0), in_turn(org.ranks)))
    return max(bus, one)


def _shared(clocks: int, places: int) -> int:
    """A delay at each of ``places`` that take turns, between neighbours."""
    return -(-clocks // places)


def data_buses(memory: MemoryConfig) -> int:
    """Data buses of the device: one of each channel or, where it has them, pseudo channel.

    Parameters
    ----------
    memory
        Its organisation is read.

    Returns
    -------
    int
        Over all stacks.
    """
    return memory.organization.channels * memory.organization.pseudo_channels


def burst_slot_ps(memory: MemoryConfig) -> Fraction:
    """Picoseconds from one burst to the next on one data bus at the memory's peak.

    Pseudo channels that share one slot for commands a clock (``commands_per_cycle`` 1 of a
    ``channel-queues`` controller) get no more than one burst a clock together.

    Parameters
    ----------
    memory
        Its rules and timings are read; nothing is assumed of its standard.

    Returns
    -------
    Fraction
        At least ``column_clocks`` of tCK.
    """
    slot = Fraction(column_clocks(memory) * memory.tCK)
    halves = memory.organization.pseudo_channels
    if memory.controller.model == "channel-queues" and memory.controller.commands_per_cycle == 1:
        slot = max(slot, Fraction(memory.tCK * halves))
    return slot


def peak_bytes_per_s(memory: MemoryConfig) -> float:
    """Bytes a second over all data buses, every burst slot used.

    Parameters
    ----------
    memory
        Its rules and timings are read; nothing is assumed of its standard.

    Returns
    -------
    float
        Refresh and turnarounds apart.
    """
    slot_s = burst_slot_ps(memory) / 10**12
    return float(data_buses(memory) * memory.organization.burst_bytes / slot_s)
