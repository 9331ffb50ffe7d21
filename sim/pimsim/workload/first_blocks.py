"""The first blocks of a model, with or without its output layer behind them."""

from __future__ import annotations

from pimsim.workload.trace import BlockRun, OperatorTrace, Phase

__all__ = ["first_blocks"]


def first_blocks(trace: OperatorTrace, blocks: int, *, output: bool) -> OperatorTrace:
    """The model that ends early.

    Parameters
    ----------
    trace
        Of the model.
    blocks
        Of it that are left, fewer than it has.
    output
        Whether its norm and output layer come behind them.
    """
    phases = {key: _first(phase, blocks, output) for key, phase in trace.phases.items()}
    facts = trace.facts.model_copy(update={"layers": blocks})
    return trace.model_copy(update={"phases": phases, "facts": facts})


def _first(phase: Phase, blocks: int, output: bool) -> Phase:
    runs: list[BlockRun] = []
    left = blocks
    for run in phase.layers:
        count = min(run.count, left)
        if count:
            runs.append(run.model_copy(update={"count": count}))
        left -= count
    after = phase.after if output else None
    used = {run.block for run in runs} | {phase.before, after}
    kept = {kind: operators for kind, operators in phase.blocks.items() if kind in used}
    return phase.model_copy(update={"blocks": kept, "layers": tuple(runs), "after": after})
