"""The single-slot controller again, tick by tick and by hand, for reads on hbm2-onnxim's channel.

Independent of the kernel and of the rule tables: the JEDEC rules are written out here.
"""

from __future__ import annotations

from collections.abc import Sequence

HALVES, GROUPS, BANKS, COLUMNS = 2, 4, 4, 16


def place(burst: int) -> tuple[int, int, int, int]:
    """Pseudo channel, bank group, bank and row of a channel's own burst (rorababgpccoch)."""
    row = burst // COLUMNS
    half, row = row % HALVES, row // HALVES
    group, row = row % GROUPS, row // GROUPS
    return half, group, row % BANKS, row // BANKS


def run_reads(bursts: Sequence[int], t: dict[str, int], depth: int) -> tuple[int, int]:
    """Tick at which the last read's data came, and the number of ACTs; one read is offered a
    tick, as soon as there is room."""
    waiting: list[int] = []
    active: list[int] = []
    open_row: dict[tuple[int, ...], int] = {}
    last: dict[tuple[object, ...], int] = {}
    windows: dict[int, list[int]] = {half: [] for half in range(HALVES)}
    offered, left, tick, done, acts = 0, len(bursts), 0, 0, 0

    def since(*key: object) -> int:
        return tick - last.get(key, -(10**6))

    def command(burst: int) -> str:
        half, group, bank, row = place(burst)
        held = open_row.get((half, group, bank))
        return "RD" if held == row else "ACT" if held is None else "PRE"

    def ready(burst: int) -> bool:
        half, group, bank, _ = place(burst)
        b = (half, group, bank)
        what = command(burst)
        if what == "RD":
            return (
                since("ACT", b) >= t["tRCDRD"]
                and since("RD", half) >= max(t["nBL"], t["tCCD_S"])
                and since("RD", half, group) >= t["tCCD_L"]
            )
        if since("ACT") < 2:
            return False
        if what == "PRE":
            return since("ACT", b) >= t["tRAS"] and since("RD", b) >= t["tRTP"]
        window = windows[half]
        return (
            since("PRE", b) >= t["tRP"]
            and since("ACT", b) >= t["tRAS"] + t["tRP"]
            and since("ACT", half) >= t["tRRD_S"]
            and since("ACT", half, group) >= t["tRRD_L"]
            and (len(window) < 4 or tick - window[-4] >= t["tFAW"])
        )

    while left:
        if offered < len(bursts) and len(waiting) < depth:
            waiting.append(bursts[offered])
            offered += 1
        chosen = next((burst for burst in active if ready(burst)), None)
        queue = active
        if chosen is None:
            chosen, queue = next((burst for burst in waiting if ready(burst)), None), waiting
        if chosen is not None:
            half, group, bank, row = place(chosen)
            b, what = (half, group, bank), command(chosen)
            if what == "PRE" and any(place(other)[:3] == b for other in active):
                tick += 1
                continue
            for key in ((what,), (what, half), (what, half, group), (what, b)):
                last[key] = tick
            if what == "PRE":
                del open_row[b]
            elif what == "ACT":
                acts += 1
                open_row[b] = row
                windows[half].append(tick)
                queue.remove(chosen)
                active.append(chosen)
            else:
                queue.remove(chosen)
                left -= 1
                done = tick + t["CL"] + t["nBL"]
        tick += 1
    return done, acts
