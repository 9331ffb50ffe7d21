"""A service's figures as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pimsim.result.metrics import METRICS
from pimsim.result.service import ServiceResult
from pimsim.result.service_types import Asked, Cost, Drafts, Spread

__all__ = ["service_lines"]


def service_lines(result: ServiceResult) -> dict[str, str]:
    """Lines of the table, by what they say.

    Parameters
    ----------
    result
        Of a service.
    """
    all_figures = result.to_dict()
    asked, kv, steps = all_figures["requests"], all_figures["kv"], all_figures["steps"]
    links = all_figures["links"]
    latency, good = all_figures["latency_s"], all_figures["goodput"]
    verdict, rate = result.verdict, METRICS["tokens_per_s"]
    return {
        "requests": _requests(asked),
        "simulated": f"{all_figures['time_s']:,.3f} s, {steps['count']:,} steps of "
        f"{steps['mean_requests']:.1f} requests and {steps['mean_tokens']:.1f} tokens",
        "request rate": f"{all_figures['requests_per_s']:,.3f} requests/s",
        rate.words: rate.text(all_figures["tokens_per_s"]),
        "queueing": _times(latency["queue"]),
        "TTFT": _times(latency["ttft"]),
        "TPOT": _times(latency["tpot"]),
        "gap": _times(latency["itl"]),
        "handover": _times(latency["handover"]),
        "latency": _times(latency["e2e"]),
        "SLO": ", ".join(f"{key} {_time(value)}" for key, value in all_figures["slo"].items()),
        "goodput": ""
        if good["share"] is None
        else f"{good['requests_per_s']:,.3f} requests/s, {good['share']:.1%} of those that ended",
        "KV cache": f"{kv['used'] / kv['blocks']:.1%} of {kv['blocks']:,} blocks of "
        f"{kv['block_tokens']} tokens in use, {kv['peak'] / kv['blocks']:.1%} at most",
        "preemptions": f"{kv['preemptions']:,}, {kv['recomputed_tokens']:,} tokens fed again"
        if kv["preemptions"]
        else "",
        "prefix hits": f"{kv['prefix_hits']:.1%} of the prompts' tokens"
        if kv["cached_tokens"]
        else "",
        "links": ""
        if links is None
        else f"{links['bytes'] / 1e9:,.3f} GB over {links['links']:,} links, the busiest "
        f"{links['busy']:.1%} of the time",
        "drafts": _drafts(all_figures["drafts"]),
        "load": "" if verdict is None else verdict.words,
        "step times": _fidelity(all_figures["fidelity"]),
        "energy": ""
        if all_figures["power_w"] is None
        else f"{all_figures['power_w']['total']:,.1f} W on average, "
        f"{all_figures['idle_w']:,.1f} W idle, {_token(all_figures['token_j'])}",
        "cost": _cost(all_figures["cost"]),
        "warnings": "; ".join(all_figures["warnings"]),
    }  # fmt: skip


def _fidelity(said: Mapping[str, Any]) -> str:
    machine = said.get("machine")
    if machine is None:
        return ""
    if said["step_time"] != "interpolated":
        return f"each simulated at {machine}"
    words = f"interpolated between steps at {machine} ({said['simulated']:,} simulated anew)"
    if said["error_interval"] is None:
        return words
    low, high = said["error_interval"]
    return (
        f"{words}; off by {said['error_mean']:+.2%} ({low:+.2%} to {high:+.2%}), "
        f"{said['error_worst']:.2%} at most, in a sample of {said['sampled']:,}"
    )


def _cost(cost: Cost | None) -> str:
    if cost is None:
        return ""
    coin, made = cost["currency"], cost["million_tokens_made"]
    each = "no token" if made is None else f"{made:,.4g} {coin} per million tokens made"
    return f"{cost['total']:,.4g} {coin}, {each}"


def _token(joule: float | None) -> str:
    return "no token" if joule is None else f"{joule:,.3g} J/token"


def _requests(asked: Asked) -> str:
    said = f"{asked['finished']:,} of {asked['asked']:,} ended"
    waiting = asked["arrived"] - asked["finished"]
    return f"{said}, {waiting:,} more had arrived" if waiting else said


def _drafts(drafts: Drafts) -> str:
    if not drafts["verifications"]:
        return ""
    return (
        f"{drafts['accepted']:,} accepted in {drafts['verifications']:,} verifications, "
        f"{drafts['rejected']:,} fed for nothing"
    )


def _times(spread: Spread) -> str:
    if spread["mean"] is None:
        return ""
    return ", ".join(f"{key} {_time(value)}" for key, value in spread.items())


def _time(seconds: Any) -> str:
    return f"{seconds:,.3f} s" if seconds >= 1 else f"{1000 * seconds:,.3f} ms"
