"""vLLM V1's scheduling rules in plain Python lists, as the reference README restates them.

Whole scenarios, one replica, ample prefix cache (nothing is evicted): what the compiled scheduler
must do, written without looking at it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Rules:
    block: int
    blocks: int
    seqs: int
    tokens: int
    threshold: int = 0
    priority: bool = False
    chunked: bool = True
    caching: bool = False
    full_isl: bool = False
    early: bool = False
    drafts: int = 0
    accept: Any = 0
    step_us: int = 8000
    token_us: int = 20
    ctx_ns: int = 0
    model_len: int = 10**9


@dataclass
class One:
    id: int
    arrival: int
    prompt: int
    output: int
    priority: int = 0
    ids: list[int] = field(default_factory=list)
    made: int = 0
    computed: int = 0
    drafts: int = 0
    held: list[Any] = field(default_factory=list)
    said: dict[str, int] = field(default_factory=dict)

    @property
    def known(self) -> int:
        return self.prompt + self.made


def run(requests: list[One], r: Rules) -> list[tuple[Any, ...]]:
    """Serve all; answers every step: start, end, tokens, entries, running and waiting after
    scheduling, free blocks, ids preempted. What is said of a request is in its ``said``."""
    arrivals = sorted(requests, key=lambda one: one.arrival)
    waiting: list[One] = []
    running: list[One] = []
    holders: dict[Any, int] = {}
    cached: set[int] = set()
    steps: list[tuple[Any, ...]] = []
    now = 0

    def order(one: One) -> tuple[int, int, int]:
        return (one.priority, one.arrival, one.id)

    def wait(one: One, front: bool) -> None:
        waiting.insert(0 if front else len(waiting), one)
        if r.priority:
            waiting.sort(key=order)

    def free() -> int:
        return r.blocks - 1 - len(holders)

    def take(one: One, tokens: int) -> bool:
        more = -(-tokens // r.block) - len(one.held)
        if more > free():
            return False
        for _ in range(max(more, 0)):
            name = ("own", one.id, len(one.held), len(steps), one.said["preemptions"])
            holders[name] = 1
            one.held.append(name)
        if r.caching:
            for at in range(min(tokens // r.block, len(one.ids))):
                if one.held[at] != one.ids[at] and one.ids[at] not in cached:
                    cached.add(one.ids[at])
                    holders[one.ids[at]] = holders.pop(one.held[at])
                    one.held[at] = one.ids[at]
        return True

    def drop(one: One) -> None:
        for name in one.held:
            holders[name] -= 1
            if not holders[name]:
                del holders[name]
        one.held = []

    for one in requests:
        one.said = {"preemptions": 0, "verifications": 0, "accepted": 0, "cached": 0}
    while arrivals or waiting or running:
        if not waiting and not running:
            now = max(now, arrivals[0].arrival)
        while arrivals and arrivals[0].arrival <= now:
            wait(arrivals.pop(0), front=False)
        budget, batch, gone = r.tokens, {}, []
        crowd = r.early or len(waiting) + len(running) > 1
        at = 0
        while at < len(running) and budget > 0:
            one = running[at]
            n = one.known + one.drafts - one.computed
            if 0 < r.threshold < n and crowd:
                n = r.threshold
            n = min(n, budget, r.model_len - 1 - one.computed)
            lost = False
            while not take(one, one.computed + n):
                if r.priority:
                    victim = max(running, key=lambda each: (each.priority, each.arrival))
                else:
                    victim = running[-1]
                where = running.index(victim)
                running.remove(victim)
                if victim.id in batch:
                    budget += batch.pop(victim.id)
                    at -= where < at
                drop(victim)
                victim.computed = victim.drafts = 0
                victim.said["preemptions"] += 1
                gone.append(victim.id)
                wait(victim, front=True)
                if victim is one:
                    lost = True
                    break
            if lost:
                if not r.priority or r.early:
                    break
                continue
            batch[one.id] = n
            budget -= n
            at += 1
        while not gone and waiting and budget > 0 and len(running) < r.seqs:
            one = waiting[0]
            hits = 0
            if r.caching:
                most = min((one.known - 1) // r.block, len(one.ids))
                while hits < most and one.ids[hits] in cached:
                    hits += 1
            n = one.known - hits * r.block
            if 0 < r.threshold < n and crowd:
                n = r.threshold
            if not r.chunked and n > budget:
                break
            n = min(n, budget)
            idle = sum(name not in holders for name in one.ids[:hits])
            need = -(-(hits * r.block + n) // r.block) - hits + idle
            whole = -(-one.known // r.block) - hits + idle
            if need > free() or (r.full_isl and whole > free()):
                break
            waiting.pop(0)
            running.append(one)
            for name in one.ids[:hits]:
                holders[name] = holders.get(name, 0) + 1
                one.held.append(name)
            one.computed = hits * r.block
            if not one.said["preemptions"]:
                one.said["cached"] = one.computed
            assert take(one, one.computed + n)
            batch[one.id] = n
            budget -= n
        entries = [one for one in running if one.id in batch]
        tokens = sum(batch.values())
        if not tokens:
            assert gone
            continue
        context = sum(one.computed + batch[one.id] for one in entries)
        end = now + r.step_us + r.token_us * tokens + r.ctx_ns * context // 1000
        number = len(steps) + 1
        steps.append(
            (now, end, tokens, len(entries), len(running), len(waiting), free(), tuple(gone))
        )
        for one in entries:
            one.said.setdefault("first_scheduled", now)
            verified = max(one.computed + batch[one.id] - one.known, 0)
            one.computed += batch[one.id]
            one.drafts = 0
            if one.computed - verified < one.known:
                continue
            accepted = 0
            if verified:
                one.said["verifications"] += 1
                j = one.said["verifications"]
                wanted = (7 * one.id + 13 * j) % (r.drafts + 1) if r.accept == "mix" else r.accept
                accepted = min(verified, wanted)
                one.said["accepted"] += accepted
                one.computed -= verified - accepted
            one.made = min(one.made + accepted + 1, one.output)
            one.drafts = r.drafts
            one.said.setdefault("first_token", end)
            if one.made == one.output:
                one.said["finish"], one.said["finish_step"] = end, number
                drop(one)
                running.remove(one)
        now = end
    return steps
