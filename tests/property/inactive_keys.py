"""The short list of keys that do nothing on a path, each with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from knobs import Subject, config_of

from pimsim.config.delay import timing_names
from pimsim.mapping.operands import operands

__all__ = ["INACTIVE", "Inactive"]


@dataclass(frozen=True)
class Inactive:
    """Keys that move nothing on a path, when, and why."""

    paths: str
    """Of ``Subject.path``, by spaces."""
    keys: str
    """Regular expression of the whole key."""
    when: Callable[[Any], bool]
    """Of the config of the subject (of a run, or of a memory alone)."""
    why: str
    needs_load: bool = False
    """They may act where the small run happens to load the part; each does on some other path or
    preset."""

    def covers(self, subject: Subject, key: str) -> bool:
        """Whether the key can do nothing here."""
        is_here = subject.path in self.paths.split() and re.fullmatch(self.keys, key)
        return bool(is_here) and self.when(config_of(subject))


def _always(_: Any) -> bool:
    return True


def _has_turns_of_ranks(memory: Any) -> bool:
    """Whether a rule that binds anything here reads tRTRS."""
    several = memory.organization.ranks > 1
    rules = [rule for rule in memory.rules if several or rule.level != "other_ranks"]
    return "tRTRS" in timing_names(rule.delay for rule in rules)


def _plain_queues(run: Any) -> bool:
    """Whether a run's memory is under bank-queues, its own or beside PIM."""
    return run.memory.controller.model == "bank-queues" or run.schedule.declared.uses_pim


def _multiplies_apart(run: Any) -> bool:
    """Whether a run's products are on PIM that has a controller of its own."""
    return run.pim is not None and run.pim.controller is not None


def _goes_by_streams(run: Any) -> bool:
    """Whether ``fast`` goes by rates, and nothing is done in the banks."""
    follows = run.npu.network is not None or operands(run.npu.operand_layout).one_by_one
    return run.schedule.policy == "serial" and not follows


INACTIVE = [
    Inactive(
        "replay",
        "controller.(requests_per_cycle|fabric_latency|requests_in_flight)",
        _always,
        "of a device's units: a replay hands requests to the controller itself",
    ),
    Inactive(
        "replay",
        "stream_map",
        _always,
        "where a device's streams lie; a trace's addresses go by address_map",
    ),
    Inactive(
        "replay",
        "organization.channels_per_stack",
        _always,
        "what a PIM design's power cap is of; test_power_limits.py",
    ),
    Inactive(
        "replay",
        "power_ceiling_pj_per_bit",
        _always,
        "a limit of a run; test_power_laws.py holds replays of all presets to it",
    ),
    Inactive(
        "replay",
        "timings.tRTRS",
        lambda m: not _has_turns_of_ranks(m),
        "rules of PIM designs read it, of its own only those between ranks, if any",
    ),
    Inactive(
        "replay",
        "controller.refresh_pseudo_channels",
        lambda m: (
            m.organization.pseudo_channels < 2
            or m.controller.model == "bank-queues"
            or "tRFCpb" not in m.timings
        ),
        "there is one pseudo channel to go round, or no refresh bank by bank, or the kernel sees "
        "each as a channel",
    ),
    Inactive(
        "replay",
        "timings.(tCCD_S|tWTR_S)",
        lambda m: m.organization.bank_groups == 1,
        "of other bank groups, and there is one",
    ),
    Inactive(
        "replay",
        "currents.IDD5PB",
        lambda m: "tRFCpb" not in m.timings,
        "of refreshes bank by bank, which the memory does not have",
    ),
    Inactive(
        "replay",
        "timings.tRFC|timings.tREFI|currents.IDD5AB",
        lambda m: m.controller.refresh == "none" and "tRFCpb" not in m.timings,
        "the preset is not refreshed",
    ),
    Inactive(
        "replay",
        "command_bus.ticks_per_clock",
        lambda m: m.controller.model == "bank-queues" and not m.command_bus.duration,
        "every command takes one clock",
    ),
    Inactive(
        "command fast",
        "schedule.attention_pim_tokens",
        lambda r: r.workload.phase == "decode",
        "a decode step feeds each request one token; test_run_steps.py",
    ),
    Inactive(
        "command fast",
        "memory.command_bus.ticks_per_clock",
        lambda r: _plain_queues(r) and not r.memory.command_bus.duration,
        "every command takes one clock",
    ),
    Inactive(
        "command fast",
        "memory.address_map",
        lambda r: not operands(r.npu.operand_layout).one_by_one,
        "of a trace's addresses; where a device's streams lie is stream_map",
    ),
    Inactive(
        "command fast",
        "memory.organization.channels_per_stack",
        lambda r: (
            r.memory.organization.stacks == 1
            and (not _multiplies_apart(r) or r.pim_memory is not None or not r.pim.power_cap_w)
        ),
        "what a power cap is of, and watts of a stack; the two channels of the walk are in one",
    ),
    Inactive(
        "command fast",
        "memory.timings.(tRFCpb|tREFIpb|tRREFD)|memory.currents.IDD5PB",
        lambda r: r.memory.controller.refresh != "per-bank",
        "of refreshes bank by bank; test_dead_knobs.py",
    ),
    Inactive(
        "command fast",
        "memory.controller.refresh_pseudo_channels",
        lambda r: _plain_queues(r) or r.memory.controller.refresh != "per-bank",
        "of channel-queues, which refreshes bank by bank",
    ),
    Inactive(
        "command fast",
        "schedule.expert_(placement|objective)",
        _always,
        "the model has no experts; test_models_on_device.py",
    ),
    Inactive(
        "command fast",
        "memory.timings.(tRFC|tREFI)|memory.currents.IDD5AB",
        lambda r: r.memory.controller.refresh == "none",
        "the preset is not refreshed",
    ),
    Inactive(
        "command fast",
        "npu.vector.gelu_latency|link.(latency_ns|topology|congestion|timing)|"
        "energy.link_pj_per_bit",
        lambda r: r.npu.vector.timing == "neupims_free" or r.link.collectives == "neupims_none",
        "the artifact's vector work and links are free",
    ),
    Inactive(
        "command fast",
        "npu.prefetch_weights",
        lambda r: not r.npu.model_copy(update={"prefetch_weights": True}).prefetches,
        "weights come by themselves only where activations stay on chip and operands lie in tiles",
    ),
    Inactive(
        "command fast",
        "schedule.split",
        lambda r: not r.schedule.sub_batches,
        "of sub-batches",
    ),
    Inactive(
        "command fast",
        "schedule.channel_assignment|energy.pim_.*",
        lambda r: not r.schedule.declared.uses_pim,
        "nothing is done in the banks",
    ),
    Inactive(
        "command fast",
        "energy.dram_(activate_pj_per_bit|column_pj_per_bit|refresh_pj|background.*)",
        lambda r: r.energy.dram_model == "currents",
        "of the model pj_per_bit",
    ),
    Inactive(
        "command fast",
        "npu.scratchpad.double_buffered|memory.timings.tWTR_S"
        "|memory.controller.(row_hit_cap|(read|write)_queue_depth|write_drain_low)"
        "|pim.(read_write_slack|operand_rows|windowed_activations)",
        _always,
        "the small model fills no scratchpad and few queues; test_dead_knobs.py",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        r"pim\.commands\.(?!WRGB|WRMAC16|MAC16|RDMAC16|ACT16|PRE).*"
        r"|pim\.timings\.nRCD(RDCP|WRCP|RDAF|EWMUL)|pim\.capacities\.activation_tables"
        r"|pim\.energy_pj\.(write_all|copy_(read|write)|multiply|table)",
        _multiplies_apart,
        "a product sends no such command; test_aim.py",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        r"pim\.commands\..*\.(bus|latency|queue|mode|effect)"
        r"|pim\.controller\.(queue_depth|(commands|instructions)_per_cycle|row_lookahead)",
        _multiplies_apart,
        "one product by itself waits for nothing but its rows and its own commands, and leaves "
        "none behind; test_aim.py, test_pim_stream.py",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        r"energy\.pim_.*|pim\.static_w_per_channel",
        _multiplies_apart,
        "of PIM that shares the memory's controller, or of stacks apart: this one's energy is its "
        "design's, at rest that of the device's memory and of its multipliers",
    ),
    Inactive(
        "command fast",
        r"pim\.(timings|commands|controller|capacities|attention|gemv)\..*|pim_memory\..*",
        lambda r: r.pim_memory is not None,
        "two tokens' attention is few commands, in a memory that does nothing else; "
        "test_stream_dead_knobs.py, test_pim_memory.py",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        "memory.controller.model",
        lambda r: r.schedule.declared.uses_pim and r.pim_memory is None,
        "only bank-queues sends PIM's commands, whatever the memory has; test_controller_model.py",
    ),
    Inactive(
        "command fast",
        "pim.channels_per_head",
        lambda r: _multiplies_apart(r) and r.schedule.attention_placement == "npu",
        "of attention by products on PIM; test_pim_designs_in_run.py",
    ),
    Inactive(
        "command fast",
        r"pim\.dtype",
        _multiplies_apart,
        "of kernels; the elements of a run are its trace's",
    ),
    Inactive(
        "command fast",
        r"pim\.element_bytes",
        _multiplies_apart,
        "of kernels; of a run it is the width that its units' peak is of, which bounds tell",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        r"memory\.(currents\.IDD4W|timings\.(CWL|tRCDWR|tWR|tWTR_L))",
        lambda r: r.pim_memory is not None,
        "keys and values, which alone are written, go to the other memory",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        r"npu\.vector\.exp_latency",
        lambda r: r.pim_memory is not None and "attention" in r.pim.operations,
        "softmax is PIM's",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        r"pim\.(banks_per_unit|elements_per_comp|capacities\..*|commands\..*\.drives"
        r"|controller\.refresh\.interval|energy_pj\.refresh|timings\..*)|memory\.timings\.nRTPS",
        lambda r: _multiplies_apart(r) and r.schedule.product_placement == "npu",
        "two tokens' attention is few commands; test_stream_dead_knobs.py, test_logic_die.py",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        "npu.(tiling|operand_layout|prefetch_weights|core_assignment|systolic.fetch_cycles)"
        "|schedule.(channel_assignment|request_order)|memory.controller.write_drain_high",
        _multiplies_apart,
        "one request, and its products are on PIM",
        needs_load=True,
    ),
    Inactive(
        "command fast",
        "parallel.batches",
        lambda r: r.parallel.pp in (None, 1),
        "the small model has one stage, which has one batch; more are refused",
    ),
    Inactive(
        "command fast", "npu.core_assignment", lambda r: r.npu.cores == 1, "there is one core"
    ),
    Inactive("command", "seed", _always, "nothing is drawn; test_fast.py, test_routing.py"),
    Inactive(
        "fast",
        "seed",
        _always,
        "of the phases that are tried, and the small run has few; test_fast.py",
        needs_load=True,
    ),
    Inactive(
        "fast",
        "memory.timings.tWTR_L|memory.controller.write_drain_high",
        _goes_by_streams,
        "rates are those of streams that read or write alone; docs/limits.md",
    ),
    Inactive(
        "fast",
        "memory.timings.(tRTRS|tWTR_L)",
        _multiplies_apart,
        "two tokens write too little to turn a bus; npu-duplex at command",
        needs_load=True,
    ),
    Inactive(
        "energy",
        "dram_(activate_pj_per_bit|column_pj_per_bit|refresh_pj|background.*)",
        lambda e: e.dram_model == "currents",
        "of the model pj_per_bit",
    ),
    Inactive(
        "system",
        "stacks.bandwidth_gb_per_s",
        lambda s: s.stacks.ffn_read_multiple is None and not s.cost_rules,
        "only AttAcc's simulator goes by the pins' bandwidth",
    ),
    Inactive(
        "system",
        "xpu.exponential_tops",
        lambda s: s.xpu.silicon is not None and s.xpu.silicon.flash.softmax_cost == 0,
        "softmax holds nothing back there, as its cost was calibrated to 0",
    ),
    Inactive(
        "system",
        "seed",
        lambda s: s.xpu.silicon is None or s.xpu.silicon.experts is None,
        "of models with experts, which such a GPU does not run",
    ),
    Inactive(
        "system",
        "parallel.tp",
        _always,
        "it follows from devices and parallel.pp, and another one is refused; test_gpu_runs.py",
    ),
]
"""The short list. What it covers must do nothing, so that a key that begins to act leaves it."""
