"""When a command may go, and what it bars: the rule tables at work."""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.channel_queues.layout import STRIDE, WINDOW_SLOT
from pimsim.hardware.dram.rules import LEVELS, OTHER_RANKS, RANK, Command

__all__ = [
    "apply_rules",
    "apply_silent_precharge",
    "earliest",
    "earliest_wide",
    "gate_of",
    "on_edge",
]

PRE, PREA, REF = (int(command) for command in (Command.PRE, Command.PREA, Command.REF))


@njit(cache=True, inline="always")
def on_edge(p: Any, command: int, tick: int) -> int:
    """First tick from ``tick`` on at an edge at which ``command`` may start; odd ones rise.

    Parameters
    ----------
    p
        Parameters, a record of ``PARAMETERS``.
    command
        A ``Command``.
    tick
        Of the command bus.

    Returns
    -------
    int
        ``tick`` or the one after it.
    """
    return int(tick + (p.rising_only[command] & (1 - (tick & 1))))


@njit(cache=True, inline="always")
def earliest(ch: Any, p: Any, command: int, bank: int) -> int:
    """First tick at which ``command`` may go to ``bank``, under the rules of every level.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    command
        A ``Command``.
    bank
        Counted over the pseudo channels and ranks of the channel.

    Returns
    -------
    int
        Tick, at any distance in the past if nothing bars the command; at any edge.
    """
    half = (1 + (bank >> p.half_shift)) * STRIDE
    rank = (p.rank_node + (bank >> p.rank_shift)) * STRIDE
    group = (p.group_node + (bank >> p.group_shift)) * STRIDE
    shared = max(ch.ready[command], ch.ready[half + command])
    own = max(ch.ready[group + command], ch.ready[(p.bank_node + bank) * STRIDE + command])
    return int(max(max(shared, ch.ready[rank + command]), own))


@njit(cache=True, inline="always")
def gate_of(p: Any, command: int, bank: int) -> int:
    """Place in ``ready`` of ``command`` at the node that ``bank`` shares with most others.

    Parameters
    ----------
    p
        Parameters, a record of ``PARAMETERS``.
    command
        A ``Command``.
    bank
        Counted over the pseudo channels and ranks of the channel.

    Returns
    -------
    int
        Of a pseudo channel or, where there are none, of a rank.
    """
    return int((p.gate_node + (bank >> p.gate_shift)) * STRIDE + command)


@njit(cache=True)
def earliest_wide(ch: Any, p: Any, command: int, bank: int) -> int:
    """First tick at which a command may go to the whole pseudo channel of ``bank``.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    command
        REF or PREA.
    bank
        Any of the pseudo channel.

    Returns
    -------
    int
        Tick at which the last of its banks allows it.
    """
    first = bank >> p.half_shift << p.half_shift
    when = 0
    for other in range(first, first + (1 << p.half_shift)):
        when = max(when, earliest(ch, p, command, other))
    return when


@njit(cache=True, inline="always")
def _bar(ch: Any, node: int, command: int, tick: int) -> None:
    slot = node * STRIDE + command
    if ch.ready[slot] < tick:
        ch.ready[slot] = tick


@njit(cache=True)
def apply_rules(ch: Any, p: Any, tick: int, command: int, bank: int) -> None:
    """Bar what ``command`` at ``tick`` bars. REF and PREA act on the pseudo channel of ``bank``;
    a rule of theirs at ``rank`` binds each of its ranks.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    tick
        In which ``command`` goes.
    command
        A ``Command``.
    bank
        That it goes to, counted over the pseudo channels and ranks of the channel.
    """
    half = bank >> p.half_shift
    per_half = 1 << (p.half_shift - p.rank_shift)
    rank = bank >> p.rank_shift
    wide = command in (REF, PREA)
    for level in range(LEVELS):
        first, last = p.first[command, level], p.first[command, level + 1]
        if level == OTHER_RANKS or (level == RANK and wide):
            for i in range(first, last):
                for other in range(half * per_half, (half + 1) * per_half):
                    if level == RANK or other != rank:
                        _bar(ch, p.rank_node + other, p.rules[i, 1], tick + p.rules[i, 2])
            continue
        node = p.level_node[level] + (bank >> p.level_shift[level])
        for i in range(first, last):
            _bar(ch, node, p.rules[i, 1], tick + p.rules[i, 2])
    for w in range(p.n_windows):
        if p.windows[w, 0] != command:
            continue
        # a ring of the last commands of the node, its write position in front
        level = p.windows[w, 3]
        unit = bank >> p.level_shift[level]
        node = p.level_node[level] + unit
        base = (w * p.ranks + unit) * WINDOW_SLOT
        place = ch.window[base]
        ch.window[base + 1 + place] = tick
        place = place + 1 if place + 1 < p.windows[w, 1] else 0
        ch.window[base] = place
        _bar(ch, node, command, ch.window[base + 1 + place] + p.windows[w, 2])


@njit(cache=True, inline="always")
def apply_silent_precharge(ch: Any, p: Any, command: int, bank: int) -> None:
    """Bar what the PRE bars that ``bank`` needs none of, since ``command`` closes it.

    It counts from when a PRE could have been sent, which ACT and the access itself put off.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    command
        RDA or WRA, which has been applied as RD or WR.
    bank
        That it goes to, counted over the pseudo channels and ranks of the channel.

    References
    ----------
    JEDEC RDA and WRA: tRAS and tRTP or tWR hold the precharge inside the bank back.
    """
    at = ch.ready[(p.bank_node + bank) * STRIDE + PRE]
    apply_rules(ch, p, at, command, bank)
