"""Latent caches (MLA) of prompts that are fed in pieces: what was cached is read again from where
it lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.engine.device import Device
from pimsim.hardware.dram.transfers import Rows
from pimsim.mapping.tasks import NpuTask
from pimsim.result.accounts import dram_counts, run_facts
from pimsim.simulate import devices_of, observe, resolve, simulate

HEAD = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"
LATENT = """\
mla:
  kv_lora: 256
  q_lora: 0
  nope_dim: 128
  rope_dim: 64
  v_dim: 128
"""
TOKEN_BYTES = (256 + 64) * 2


@pytest.fixture
def latents(tiny_card: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides for two prompts of a model with latents of 320 elements a token."""

    def given(**workload: object) -> list[str]:
        card, trace = tmp_path / "latents.yaml", tmp_path / "requests.csv"
        card.write_text(tiny_card.read_text().replace("rope: false", "rope: true") + LATENT)
        trace.write_text(f"{HEAD}0,0,256,9,0,256\n1,0,96,9,0,96\n")
        keys = {"model": card, "requests": trace, "layers": 1, **workload}
        return [*(f"workload.{key}={value}" for key, value in keys.items()), "parallel.tp=1"]

    return given


def moved(device: Device, kind: str) -> set[tuple[int, int]]:
    """Channel (-1: all) and burst of what the step's appends write, or its product of latents
    reads of the cache."""
    tasks = [t for t in device.block(0, 0).before if isinstance(t, NpuTask)]
    own = next(t for t in tasks if t.kv_bytes and t.kind == kind)
    parts = [own, *own.steps]
    # in front of the first tile's last are its own loads
    runs = own.streams if kind == "kv_append" else own.steps[0].loads[-1:]
    pages = [run for run in runs if isinstance(run, Rows)] if device.kv[0].shape is None else []
    return {
        (-1, burst)
        for run in pages
        for at, count in zip(run.first_burst.tolist(), run.bursts.tolist(), strict=True)
        for burst in range(at, at + count)
    } | {
        (s.channel, s.first + at * s.stride)
        for part in parts for s in part.scatters for at in range(s.count)
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["npu-only", "neupims"])
def test_pieces_read_the_latents_that_were_written(
    preset: str, latents: Callable[..., list[str]]
) -> None:
    devices, _ = devices_of(
        resolve(preset, latents(chunk=64) + ["schedule.sub_batches=false"] * (preset == "neupims"))
    )
    assert [device.whole.tokens for device in devices] == [128, 64 + 32, 64, 64]
    written: set[tuple[int, int]] = set()
    for number, (device, cached) in enumerate(zip(devices, (0, 128, 128, 192), strict=True)):
        assert device.whole.kv_read_bytes == cached * TOKEN_BYTES
        if number:
            read = moved(device, "gemm")
            assert read <= written
            assert len(read) * device.config.memory.organization.burst_bytes == cached * TOKEN_BYTES
        written |= moved(device, "kv_append")


def test_latents_that_are_read_again_are_needed(latents: Callable[..., list[str]]) -> None:
    """Of 128, 128 and 192 tokens; prompts that have cached nothing read no cache."""
    for chunk, tokens in ((64, 128 + 128 + 192), (256, 0)):
        outcome, _ = observe(resolve("npu-only", latents(chunk=chunk)))
        facts = run_facts(outcome, dram_counts(outcome))
        assert facts.bytes_needed.get("kv", 0) == tokens * TOKEN_BYTES
        assert facts.bytes_moved["kv"] >= tokens * TOKEN_BYTES


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize("preset", ["npu-only", "neupims"])
@pytest.mark.parametrize("where", ["scratchpad", "dram"])
def test_latents_in_pieces_obey_every_law(
    preset: str, fidelity: str, where: str, latents: Callable[..., list[str]]
) -> None:
    """Bytes that the product moves are its weights and what is cached; where activations go to
    memory, the latents are laid there beside the new ones, 512 bytes each without the key's part.
    """
    keys = [f"fidelity={fidelity}", f"npu.scratchpad.activations={where}"]
    keys += ["schedule.sub_batches=false"] * (preset == "neupims")
    pieces, whole = (
        [o for o in simulate(resolve(preset, [*given, *keys])).operators if o.name == "kv_b"]
        for given in (latents(chunk=64), latents(chunk=256))
    )
    cached = (0, 128, 128, 192)
    weights = 4 * (128 + 128) * 256 * 2
    if where == "scratchpad":
        assert [o.bytes for o in whole] == [weights]
        assert [o.bytes - weights for o in pieces] == [at * TOKEN_BYTES for at in cached]
    else:
        least = [(128 + 0) * 512, (96 + 2 * 128) * 512, (64 + 2 * 128) * 512, (64 + 2 * 192) * 512]
        results = [seen * 4 * 256 * 2 for seen in (128, 224, 192, 256)]
        each = zip(pieces, least, cached, results, strict=True)
        for o, inputs, tokens, made in each:
            assert o.bytes >= weights + inputs + tokens * TOKEN_BYTES + made
