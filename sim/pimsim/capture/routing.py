"""Routing of a real run: which experts each token of a text goes to, in every block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pimsim.capture.loading import LoadedModel
from pimsim.capture.placing import layer_of
from pimsim.config.errors import InputError
from pimsim.workload.routing.file import RoutingTrace

__all__ = ["capture_routing"]


def capture_routing(
    loaded: LoadedModel, ids: list[int], width: int, text_name: str
) -> RoutingTrace:
    """Run a text and note every router's choice.

    Parameters
    ----------
    loaded
        A model with weights.
    ids
        Tokens of the text.
    width
        Tokens of a sequence; what is left over is not run.
    text_name
        Of the text, for the trace's source.

    Returns
    -------
    RoutingTrace
        Choices in the order of their weight, largest first.

    Raises
    ------
    InputError
        For a model without routers, or NaN in its activations.
    """
    config = loaded.model.config.get_text_config()
    per_token = int(
        getattr(config, "num_experts_per_tok", None) or getattr(config, "top_k", None) or 0
    )
    routers = {
        layer: module
        for name, module in loaded.model.named_modules()
        if (layer := layer_of(name)[0]) is not None and _is_router(name, module)
    }
    if not routers or not per_token:
        raise InputError(f"model {loaded.name}: it has no router of tokens to experts")
    seen: dict[int, list[Any]] = {layer: [] for layer in routers}
    handles = [
        module.register_forward_hook(_noter(seen[layer], per_token))
        for layer, module in routers.items()
    ]
    sequences = torch.tensor(ids[: len(ids) // width * width]).view(-1, width)
    try:
        with torch.no_grad():
            for row in sequences:
                out = loaded.model(input_ids=row.unsqueeze(0), use_cache=False)
                if not torch.isfinite(out.logits).all():
                    raise InputError(f"model {loaded.name}: NaN in its activations")
    finally:
        for handle in handles:
            handle.remove()
    layers = sorted(routers)
    for layer in layers:
        if not seen[layer]:
            raise InputError(
                f"model {loaded.name}: the router of block {layer} gives no choice of "
                f"{per_token} experts"
            )
    chosen = np.stack([torch.cat(seen[layer]).numpy() for layer in layers]).astype(np.int64)
    experts = 0
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        experts = experts or int(getattr(config, name, None) or 0)
    count = sequences.numel()
    return RoutingTrace(
        model=loaded.name,
        source=f"{loaded.origin}; {count} tokens of {text_name} in sequences of {width}",
        layers=config.num_hidden_layers, experts=experts, experts_per_token=per_token,
        sequence=np.repeat(np.arange(len(sequences)), width),
        position=np.tile(np.arange(width), len(sequences)),
        token=sequences.flatten().numpy().astype(np.int64), moe_layers=tuple(layers),
        chosen=chosen,
    )  # fmt: skip


def _is_router(name: str, module: Any) -> bool:
    leaf = name.rsplit(".", 1)[-1]
    return leaf in ("gate", "router") and "MLP" not in type(module).__name__


def _noter(into: list[Any], per_token: int) -> Any:
    def note(module: Any, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        whole = [p for p in parts if isinstance(p, torch.Tensor) and not p.is_floating_point()]
        for tensor in whole:
            if tensor.shape[-1] == per_token:
                into.append(_by_weight(tensor.reshape(-1, per_token), parts))
                return

    return note


def _by_weight(chosen: Any, parts: Any) -> Any:
    """The largest weight first, where weights of the same shape come along."""
    for part in parts:
        if isinstance(part, torch.Tensor) and part.is_floating_point():
            weights = part.reshape(-1, part.shape[-1])
            if weights.shape == chosen.shape:
                order = weights.argsort(dim=-1, descending=True, stable=True)
                return chosen.gather(1, order)
    return chosen
