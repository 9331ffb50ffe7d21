"""What ``vllm bench serve --save-result --save-detailed`` writes, a line a run: lengths of all
requests, and when each was sent where the version says so (else all are there at 0)."""

from __future__ import annotations

import numpy as np

from pimsim.config.errors import InputError
from pimsim.workload.json_lines import JsonLines
from pimsim.workload.request_formats import JsonFormat
from pimsim.workload.traffic import Traffic, whole_ps

__all__ = ["FORMAT"]

_PS_PER_S = 10**12


def _read(lines: JsonLines) -> Traffic:
    if len(lines) > 1:
        raise InputError(
            f"{lines.where(1)}: a second run; a request trace is of one, leave one line"
        )
    prompt, output = lines.wholes(0, "input_lens"), lines.wholes(0, "output_lens")
    times = [0.0] * len(prompt)
    if "start_times" in lines.objects[0]:
        times = list(lines.list_of_numbers(0, "start_times"))
    if not len(prompt) == len(output) == len(times) or not prompt:
        raise InputError(
            f"{lines.where(0)}: {len(prompt)} input_lens, {len(output)} output_lens and "
            f"{len(times)} start_times; as many of each are expected, at least one"
        )
    sent = np.array(times)
    return Traffic(
        whole_ps(sent - sent.min(), _PS_PER_S), np.array(prompt),
        np.array(output), place=lambda row: f"{lines.where(0)} ({row + 1}. of input_lens)",
    )  # fmt: skip


FORMAT = JsonFormat((("input_lens", "output_lens"),), _read)
