"""More of a resource never slows a run beyond a tolerance, on every hardware and system preset.

Not exactly never: work that moves by a few cycles may meet a refresh that it was done before, and
with other channels, lanes or arrays the same requests come to DRAM in another order. So a run may
be slower by ``TOLERANCE`` and the time of ``REFRESHES``, without refresh by ``TOLERANCE`` alone; a
system, whose model has neither, not at all.

A resource is what work is shared over, or a rate. These keys are none of that, and a larger value
may rightly slow a run:

- ``npu.systolic.rows`` and ``cols``: a larger array takes longer to fill and to drain.
- ``npu.cores``: streams of more cores take turns in the same banks and close each other's rows, and
  a tile that was shared over the arrays of one core is cut for more of them.
- ``memory.controller``, its queues and requests: they decide the order in which banks are served.
- ``npu.network.ports_per_core``: likewise, the order in which requests leave a core.
- ``memory.organization`` but its channels: ranks take turns on one bus (tRTRS), and rows, columns
  and banks are where an address lies.
- latencies, which are the less the better.

Each batch is drawn; ``PIMSIM_FUZZ=120`` (12 where it is not set) has ten of them in place of one.
"""

from __future__ import annotations

from typing import Any

import pytest
from cards import small_card
from fuzzing import CASES, seeds

from pimsim.config.loader import CONFIG_MODELS, load_preset
from pimsim.config.resources import preset_names
from pimsim.config.schema import marks_at, quantity_at
from pimsim.simulate import resolve, simulate
from pimsim.validate.gpu_steps import decoding
from pimsim.workload.cards import load_card

TOLERANCE = 0.01
"""Of a run's time; docs/limits.md states it."""
REFRESHES = 2
"""Times tRFC that refreshes which a run meets anew may cost; 1.5 were seen in 18 batches."""
BATCHES = max(1, CASES // 12)
OF_RUNS = {
    "memory.organization.channels": 2,
    "npu.frequency": 1.25,
    "npu.network.frequency": 2,
    "npu.scratchpad.accumulator": 2,
    "npu.scratchpad.capacity": 2,
    "npu.systolic.arrays": 2,
    "npu.vector.lanes": 2,
    "npu.vector.units": 2,
    "link.bandwidth_gb_per_s": 2,
}
"""Resources of a device, and how many times as much of each is tried."""
OF_SYSTEMS = {
    "xpu.peak_tflops": 2,
    "xpu.memory_bandwidth_gb_per_s": 2,
    "xpu.compute_utilisation": 1.05,
    "xpu.memory_utilisation": 1.05,
    "xpu.activation.bandwidth_share": 2,
    "xpu.add_norm.bandwidth_share": 2,
    "link.bandwidth_gb_per_s": 2,
    "host.sockets": 2,
    "host.peak_tflops": 2,
    "host.memory_bandwidth_gb_per_s": 2,
    "host.transfer_gb_per_s": 2,
    "stacks.count": 2,
    "stacks.transfer_gb_per_s": 2,
    "stacks.bandwidth_gb_per_s": 2,
}
CARD = small_card(hidden=256, head_dim=64)


def _more(kind: str, preset: str, key: str, times: float, own: tuple[str, ...]) -> str | None:
    """The override that gives ``times`` as much of a resource, or the most that its key takes; None
    where there is none of it, or no more."""
    value: Any = load_preset(kind, preset, own).config
    for part in key.split("."):
        value = getattr(value, part)
        if value is None:
            return None
    path = tuple(key.split("."))
    most = [mark.le for mark in marks_at(CONFIG_MODELS[kind], path) if hasattr(mark, "le")]
    more = type(value)(min(value * times, *most))
    if more == value:
        return None
    quantity = quantity_at(CONFIG_MODELS[kind], path)
    unit = quantity.units[0][0] if quantity else ""
    return f"{key}={more}{unit}"


def _small(preset: str) -> tuple[str, ...]:
    """Little enough of each resource for a small model to need it, so that twice as much acts."""
    config = load_preset("hardware", preset).config
    channels = config.memory.organization.channels
    fewer = [
        f"memory.organization.channels={min(8, channels)}",
        "npu.vector.lanes=8",
        "npu.vector.units=4",
        "link.bandwidth_gb_per_s=5",
    ]
    if config.npu.tiling != "gemmini":  # whose tiles have a least size
        fewer.append(f"npu.scratchpad.capacity={min(2**18, config.npu.scratchpad.capacity)}B")
    return tuple(fewer)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, ...]]:
    """The small model and a batch, as overrides, once for each batch."""
    folder = tmp_path_factory.mktemp("more")
    (folder / "card.yaml").write_text(CARD)
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"
    found = []
    for number in range(BATCHES):
        draw = next(seeds(f"more {number}"))
        contexts = [draw.randint(1, 1500) for _ in range(draw.randint(6, 24))]
        lines = [f"{i},0.0,{context},10,0" for i, context in enumerate(contexts)]
        path = folder / f"requests{number}.csv"
        path.write_text("\n".join([header, *lines, ""]))
        found.append((
            f"workload.model={folder / 'card.yaml'}", f"workload.requests={path}",
            "workload.layers=1",
        ))  # fmt: skip
    return found


@pytest.mark.parametrize(("fidelity", "refresh"), [("command", True), ("fast", False)])
@pytest.mark.parametrize("preset", preset_names("hardware"))
def test_more_of_a_devices_resource_is_not_slower(
    preset: str, fidelity: str, refresh: bool, inputs: list[tuple[str, ...]]
) -> None:
    own = (*_small(preset), f"fidelity={fidelity}")
    memory = load_preset("hardware", preset).config.memory
    refresh_s = REFRESHES * memory.timings["tRFC"] * memory.tCK * 1e-12
    if not refresh:
        own, refresh_s = (*own, "memory.controller.refresh=none"), 0.0
    slower: dict[str, float] = {}
    tried = set()
    for batch in inputs:
        before = simulate(resolve(preset, [*batch, *own])).time_s
        for key, times in OF_RUNS.items():
            more = _more("hardware", preset, key, times, own)
            if more is None:
                continue
            tried.add(key)
            after = simulate(resolve(preset, [*batch, *own, more])).time_s
            if after > (1 + TOLERANCE) * before + refresh_s:
                slower[more] = after / before - 1
    assert len(tried) >= len(OF_RUNS) - 2  # not all have a network, and an accumulator of its own
    assert slower == {}


@pytest.mark.parametrize("preset", preset_names("system"))
def test_more_of_a_systems_resource_is_not_slower(preset: str) -> None:
    card = load_card("llama-3-8b")

    def step_s(batch: int, context: int, *overrides: str) -> float:
        config = load_preset("system", preset, overrides).config
        return decoding(config, card, batch, context, 3).step_s

    slower, tried = {}, 0
    for draw in (next(seeds(f"more {number}")) for number in range(BATCHES)):
        batch, context = draw.randint(1, 300), draw.randint(1, 1000)
        before = step_s(batch, context)
        for key, times in OF_SYSTEMS.items():
            more = _more("system", preset, key, times, ())
            if more is None:
                continue
            tried += 1
            after = step_s(batch, context, more)
            if after > before * (1 + 1e-12):
                slower[more] = after / before - 1
    assert tried >= 7 * BATCHES
    assert slower == {}
