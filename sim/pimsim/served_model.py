"""Techniques of a service: the model as its machine's cache and weights lie.

A service's steps mix prompts, pieces of them and single tokens, and its cache is blocks of whole
requests; what a technique asks beyond that is refused, with the reason.
"""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.run import MachineConfig, ParallelConfig, RunConfig
from pimsim.config.settings_text import NONE
from pimsim.config.system import GpuMachineConfig, SystemConfig
from pimsim.result.step_cost import StepCosts, run_of
from pimsim.result.xpu_step_cost import XpuStepCosts, xpu_run_of
from pimsim.serving.step_times import ServedMachine
from pimsim.technique_runs import stored, stored_cache, traced, viewed
from pimsim.workload.batch import load_model
from pimsim.workload.formats import load_format
from pimsim.workload.kv_views import load_view
from pimsim.workload.trace import OperatorTrace

__all__ = ["served_machine"]


def served_machine(machine: MachineConfig | GpuMachineConfig, longest: int) -> ServedMachine:
    """What a service asks for its steps: the machine, and the model as techniques have it.

    Parameters
    ----------
    machine
        Of the service.
    longest
        Tokens of the longest request.

    Raises
    ------
    InputError
        Where a technique does not suit a service, the machine or the model.
    """
    if isinstance(machine, GpuMachineConfig):
        return XpuStepCosts(machine, _model(xpu_run_of(machine), longest)[0])
    asked = run_of(machine)
    model, parallel = _model(asked, longest)
    if model is None:
        return StepCosts(machine)
    return StepCosts(machine.model_copy(update={"parallel": parallel}), model)


def _model(
    config: RunConfig | SystemConfig, longest: int
) -> tuple[OperatorTrace | None, ParallelConfig]:
    """The model with its techniques and the degrees that it is cut by; None: it has none."""
    workload = config.workload
    if {workload.kv_view, workload.weight_format, workload.kv_format} == {NONE}:
        return None, config.parallel
    try:
        model, parallel = traced(config, load_model(workload))
        if workload.weight_format != NONE:
            model = stored(config, model)
        if workload.kv_view != NONE:
            _check_view(workload.kv_view)
            model = viewed(config, model, longest)
        if workload.kv_format != NONE:
            _check_format(workload.kv_format)
            model = stored_cache(config, model)
    except InputError as error:
        said = str(error)
        raise InputError(f"machine.{said}" if said.startswith("workload.") else said) from None
    return model, parallel


def _check_view(text: str) -> None:
    view = load_view(text)
    if view.cuts_prompts:
        raise InputError(
            f"workload.kv_view: {text!r} drops tokens of prompts that have been read, and blocks "
            "of a service's cache hold whole requests"
        )
    if view.of_single_tokens:
        raise InputError(
            f"workload.kv_view: {text!r} chooses keys for each query, and steps of a service feed "
            "prompts beside single tokens, which would read different ones"
        )


def _check_format(text: str) -> None:
    residual = load_format(text).cache().residual
    if residual:
        raise InputError(
            f"workload.kv_format: {text!r}: its last {residual} tokens take more than others, and "
            "blocks of a service's cache hold tokens of one size; allowed: residual=0"
        )
