"""Work that a device and its PIM do together: head by head, or each a part of the weights."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["device_share", "exposed"]


def exposed(attention_s: float, others_s: Sequence[float], heads: int) -> list[float]:
    """The time that each of ``others_s`` adds to the attention it is pipelined with, head by head.

    Of a pipeline of stages in ``heads`` steps, the longest runs all the time and each other stage
    is seen for one step: longest + (sum of the others) / heads. Attention counts in full, so when
    another stage is the longest, that one adds what attention, but for one step, cannot hide.

    Parameters
    ----------
    attention_s
        Seconds of all heads.
    others_s
        Seconds of each other stage, of all heads.
    heads
        Steps of the pipeline.

    Returns
    -------
    list[float]
        Seconds, by stage.

    References
    ----------
    AttAcc, ASPLOS 2024: head-level pipelining.
    """
    longest = max([attention_s, *others_s])
    added = [time_s / heads for time_s in others_s]
    if longest > attention_s:
        index = list(others_s).index(longest)
        added[index] = longest - attention_s * (1 - 1 / heads)
    return added


def device_share(device_s: float, pim_s: float) -> float:
    """Part of a product that the device keeps: shares in proportion to how fast each passes it.

    Parameters
    ----------
    device_s
        Seconds that the device would need for all of it.
    pim_s
        Seconds that PIM would.

    Returns
    -------
    float
        0 to 1.
    """
    return pim_s / (device_s + pim_s)
