"""What a memory and a PIM design mean to the channel kernel: its parameters, one record.

Everything that a config says is turned into numbers of cycles, shifts and tables here, and held
against what the kernel's records (``layout``) have room for.
"""

from __future__ import annotations

import numpy as np

from pimsim.config.delay import evaluate_delay
from pimsim.config.errors import InputError
from pimsim.config.memory import ControllerConfig, MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import (
    INFINITY,
    MAX_BANKS,
    MAX_QUEUE,
    MAX_RANKS,
    MAX_REQUESTS,
    MAX_RULES,
    MAX_SEGMENTS,
    MAX_WINDOW,
    MAX_WINDOWS,
    PARAMETERS,
    Records,
    bounded,
)  # fmt: skip
from pimsim.hardware.dram.peak import column_clocks
from pimsim.hardware.dram.rules import LEVELS, RANK, Command, RuleTables

__all__ = [
    "auto_precharge", "channel_fields", "make_parameters", "put_tables",
    "refresh_interval", "refreshes_overrun",
]  # fmt: skip


def channel_fields(memory: MemoryConfig, text: str) -> dict[str, tuple[int, int]]:
    """Shift and width of each field once the channel's bits are taken out of the index.

    Parameters
    ----------
    memory
        Its organisation has the width of each field.
    text
        Address map: two letters a field, the highest bits first, such as ``rorababgchco``.

    Returns
    -------
    dict of str to (int, int)
        By field but ``ch``: lowest bit and bits.

    References
    ----------
    The notation of DRAMsim3's ``address_mapping``.
    """
    org = memory.organization
    counts = {
        "ro": org.rows,
        "ra": org.ranks,
        "bg": org.bank_groups,
        "ba": org.banks_per_group,
        "co": org.columns,
        "pc": org.pseudo_channels,
    }
    fields: dict[str, tuple[int, int]] = {}
    low = 0
    for name in reversed([text[i : i + 2] for i in range(0, len(text), 2)]):
        if name != "ch":
            fields[name] = (low, counts[name].bit_length() - 1)
            low += fields[name][1]
    return fields


def auto_precharge(controller: ControllerConfig) -> int:
    """From RD to RDA, and from WR to WRA, where every access closes its row; else 0.

    Parameters
    ----------
    controller
        Its ``page_policy`` is read.

    Returns
    -------
    int
        Distance of two ``Command`` numbers.

    References
    ----------
    JEDEC RDA and WRA.
    """
    closing = controller.page_policy == "auto-precharge"
    return Command.RDA - Command.RD if closing else 0


def put_tables(p: Records, tables: RuleTables) -> None:
    """Write compiled rules into kernel parameters, of either controller.

    Parameters
    ----------
    p
        Of ``PARAMETERS``, (1,); changed.
    tables
        At most ``MAX_RULES`` rules and ``MAX_WINDOWS`` windows.

    Raises
    ------
    InputError
        They are more than there is room for.
    """
    p[0]["n_windows"] = bounded(len(tables.windows), MAX_WINDOWS, "window rules")
    for row in tables.windows:
        bounded(int(row[1]), MAX_WINDOW, "a rule's window")
    p[0]["windows"][: len(tables.windows)] = tables.windows
    p[0]["window_adds"][: len(tables.windows)] = tables.window_adds
    p[0]["first"][:] = tables.first
    bounded(len(tables.rules), MAX_RULES, "timing rules")
    p[0]["rules"][: len(tables.rules)] = tables.rules


def refresh_interval(memory: MemoryConfig) -> int:
    """Cycles from one refresh of a channel to the next: ranks, or all banks, take turns.

    Parameters
    ----------
    memory
        Its tREFI or, refreshed by banks, tREFIpb of a rank.

    Returns
    -------
    int
        Cycles of tCK; ``INFINITY``: it is not refreshed.

    References
    ----------
    JEDEC tREFI and, of one bank, tREFIpb.
    """
    org, timings = memory.organization, memory.timings
    if memory.controller.refresh == "none":
        return INFINITY
    of_rank = timings["tREFI"]
    if memory.controller.refresh == "per-bank":
        of_rank = timings.get("tREFIpb", of_rank // org.banks)
    return max(of_rank // org.ranks, 1)


def refreshes_overrun(memory: MemoryConfig) -> InputError:
    """What to raise where refreshes leave no time for anything else.

    Parameters
    ----------
    memory
        For the message.

    Returns
    -------
    InputError
        The caller raises it.
    """
    return InputError(
        f"memory {memory.name}: refreshes ({memory.controller.refresh}) fall due faster than "
        "they can be done beside requests; tREFI or tREFIpb is too short for tRFC or tRFCpb"
    )


def _check_room_for_pim(memory: MemoryConfig, pim: PimConfig, tables: RuleTables) -> None:
    """Raises ``InputError`` where refreshes never leave all banks of a channel open at once, as
    dot products need: one refresh is hardly over, and its rank opened again, when the next is due.
    """
    org, t = memory.organization, memory.timings
    interval = refresh_interval(memory)
    opening = 0
    first, last = tables.first[Command.G_ACT, 0], tables.first[Command.G_ACT, LEVELS]
    for rule in range(first, last):
        shared = rule < tables.first[Command.G_ACT, RANK + 1]  # by all groups of the rank
        if shared and tables.rules[rule, 1] == Command.G_ACT:
            opening = max(opening, int(tables.rules[rule, 2]))
    for then, size, delay, _, _, room in tables.windows.tolist():
        if then == Command.G_ACT and 2 * room > size:
            opening = max(opening, delay)
    closed = org.banks + t["tRP"]  # one PRE a cycle
    needed = closed + t["tRFC"] + (org.bank_groups - 1) * opening + t["tRCDRD"]
    if interval <= needed:
        raise InputError(
            f"memory {memory.name}, pim {pim.name}: a rank is refreshed every {interval} cycles, "
            f"and closing, refreshing and opening one takes {needed}: never are all banks of a "
            "channel open at once, as dot products need; lower tRFC or organization.ranks, or "
            "raise tREFI"
        )


def make_parameters(
    memory: MemoryConfig, pim: PimConfig | None, tables: RuleTables, merge: int = 0
) -> Records:
    """What a memory and a PIM design mean to the kernel.

    Parameters
    ----------
    memory
        Under the ``bank-queues`` controller, without pseudo channels.
    pim
        None: the memory has none.
    tables
        Rules of both, of ``rules.compile_rules``.
    merge
        Watch for requests to one burst: 1 answers them together, as trace replay does, 2 lets no
        write overtake a read; 0: do not.

    Returns
    -------
    Records
        Of ``PARAMETERS``, (1,); times in cycles of tCK.

    Raises
    ------
    InputError
        The memory is larger than the kernel's records, is of another controller, or refreshes leave
        PIM no time.
    """
    org, t, controller = memory.organization, memory.timings, memory.controller
    if controller.model != "bank-queues" or org.pseudo_channels > 1:
        raise InputError(
            f"{memory.name}: this kernel runs bank-queues and channels without halves; "
            f"found {controller.model} and {org.pseudo_channels} pseudo channels"
        )
    p = np.zeros(1, dtype=PARAMETERS)
    queued = org.ranks * org.banks * controller.bank_queue_depth
    bounded(queued, MAX_REQUESTS - 2 * MAX_QUEUE, "places in the bank queues of a channel")
    per_bank = controller.refresh == "per-bank"
    if per_bank and pim is not None:
        raise InputError(
            f"memory.controller.refresh: per-bank, but PIM design {pim.name} computes in all banks "
            "of a channel at once; allowed with PIM: all-bank, none"
        )
    values = {
        "ranks": bounded(org.ranks, MAX_RANKS, "memory.organization.ranks"),
        "rank_shift": org.banks.bit_length() - 1,
        "group_shift": org.banks_per_group.bit_length() - 1,
        "banks": bounded(org.ranks * org.banks, MAX_BANKS, "banks of a channel"),
        "group_node": 1 + org.ranks,
        "bank_node": 1 + org.ranks + org.ranks * org.bank_groups,
        "read_delay": t["CL"] + t["nBL"],
        "nbl": t["nBL"],
        "hit_cap": controller.row_hit_cap,
        "bank_depth": controller.bank_queue_depth,
        "read_depth": bounded(controller.read_queue_depth, MAX_QUEUE, "read_queue_depth"),
        "write_depth": bounded(controller.write_queue_depth, MAX_QUEUE, "write_queue_depth"),
        "drain_low": controller.write_drain_low,
        "drain_high": controller.drain_at,
        "fcfs": int(controller.scheduler == "fcfs"),
        "closed_page": int(controller.page_policy == "closed"),
        "auto_precharge": auto_precharge(controller),
        "feed": controller.requests_per_cycle,
        "in_flight": controller.requests_in_flight or INFINITY,
        "dual_command": int(controller.commands_per_cycle == 2),
        "ref_interval": refresh_interval(memory),
        "ref_units": org.ranks * org.banks if per_bank else org.ranks,
        "ref_per_bank": int(per_bank),
        "ref_command": int(Command.REFpb if per_bank else Command.REF),
        "merge": int(merge),
        "row_buffers": 1,
        "trp": t["tRP"],
        "trcd": t["tRCDRD"],
        "trcdwr": t["tRCDWR"],
        "tfaw": t.get("tFAW", 0),
        "trtp": t.get("tRTP", 0),
        "tccd_s": column_clocks(memory),
        "tccd_l": max(t["nBL"], t.get("tCCD_L", 1)),
        "sources": 1,
        "ports": 1,
        "room": MAX_SEGMENTS // org.channels,
        "channel_width": org.channels.bit_length() - 1,
    }
    if pim is not None:
        _check_room_for_pim(memory, pim, tables)
        names = {**t, **pim.timings}
        values |= {
            "has_pim": 1,
            "row_buffers": pim.row_buffers,
            "gwrite": evaluate_delay(pim.gwrite_cycles, names, "pim.gwrite_cycles"),
            "comp_pipeline": pim.comp_pipeline,
            "holds_opening": int((tables.windows[:, 0] == int(Command.G_ACT)).any()),
            "shared_window": int((tables.windows[:, 3] != RANK).any()),
            "comp_gap": pim.comp_pipeline
            * (t.get("tCCD_S", 1) if pim.pipeline_fill == "tCCD_S" else values["tccd_s"]),
            "result_slope": values["tccd_s"] if pim.timed_comps else 0,
            "avoid_refresh": int(pim.refresh_avoidance),
            "slack": pim.read_write_slack,
        }
    for name, value in values.items():
        p[0][name] = value
    fields = channel_fields(memory, memory.stream_map)
    for at, name in enumerate(("ro", "ra", "bg", "ba", "co")):
        p[0]["field"][at] = fields[name]
    put_tables(p, tables)
    return p
