"""What each datapath costs: operators against float64, and the whole model against itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from pimsim.config.errors import InputError
from pimsim.config.run import RunConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.reference.arithmetic import PimDatapath, rounded, softmax
from pimsim.reference.banks import attend_in_banks
from pimsim.reference.datapaths import Datapath, linear, running

__all__ = [
    "BankError",
    "ModelError",
    "OperatorError",
    "bank_errors",
    "model_errors",
    "operator_errors",
]

_ROWS = 32
"""Tokens that operators are held against float64 on."""


@dataclass(frozen=True)
class OperatorError:
    """One matrix product on one datapath."""

    datapath: str
    module: str
    relative_rms: float
    """Against float64 on the same inputs."""
    scaled: float
    """Largest error over |x| |w|."""


@dataclass(frozen=True)
class ModelError:
    """The whole model on one datapath, against float64."""

    datapath: str
    kl_mean: float
    kl_p99: float
    top1_agreement: float
    largest_flip_margin: float
    """Where the best token changed: float64's margin between the two best, the largest of all;
    logits. 0 where none changed."""
    perplexity_change: float
    """Relative."""


@dataclass(frozen=True)
class BankError:
    """Attention of one block through the rows that the timing model maps."""

    block: int
    context: int
    relative_rms: float


def operator_errors(model: Any, ids: Any, paths: Sequence[Datapath]) -> list[OperatorError]:
    """Every matrix product of the first, middle and last block, and the output layer.

    Parameters
    ----------
    model
        Of ``transformers``, with weights.
    ids
        Token ids, shape (1, tokens).
    paths
        Datapaths that are measured.

    Returns
    -------
    list[OperatorError]
        Relative RMS, by product and datapath.
    """
    with torch.no_grad():
        return _operator_errors(_inputs(model, ids[:, :_ROWS]), paths)


def _operator_errors(
    inputs: dict[str, tuple[Any, Any]], paths: Sequence[Datapath]
) -> list[OperatorError]:
    found = []
    for path in paths:
        if path.inputs == "f32":
            continue
        for name, (module, values) in inputs.items():
            weights, x = rounded(module.weight, path.inputs), rounded(values, path.inputs)
            exact = x.double() @ weights.double().T
            got = linear(x, module.weight, None, path).double()
            scale = x.double().norm(dim=1, keepdim=True) * weights.double().norm(dim=1)
            found.append(
                OperatorError(
                    path.name, name, float((got - exact).norm() / exact.norm()),
                    float(((got - exact).abs() / scale.clamp_min(1e-30)).max()),
                )
            )  # fmt: skip
    return found


def _inputs(model: Any, ids: Any) -> dict[str, tuple[Any, Any]]:
    layers = model.config.get_text_config().num_hidden_layers
    wanted = {0, layers // 2, layers - 1}
    kept: dict[str, tuple[Any, Any]] = {}
    handles = []
    for name, module in model.named_modules():
        inside = [int(part) for part in name.split(".") if part.isdigit()]
        if isinstance(module, torch.nn.Linear) and (not inside or inside[0] in wanted):
            handles.append(module.register_forward_pre_hook(_keeper(kept, name)))
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _keeper(kept: dict[str, tuple[Any, Any]], name: str) -> Any:
    def keep(module: Any, arguments: Any) -> None:
        values = arguments[0].detach()
        kept[name] = (module, values.reshape(-1, values.shape[-1])[:_ROWS])

    return keep


def model_errors(
    model: Any, ids: Any, paths: Sequence[Datapath], report: Callable[[str], None]
) -> list[ModelError]:
    """Logits on every datapath against those of the model in float64.

    Parameters
    ----------
    model
        Of ``transformers``, with weights.
    ids
        Token ids, shape (1, tokens).
    paths
        Datapaths that are measured.
    report
        Hears what is being done.

    Returns
    -------
    list[ModelError]
        One for each of ``paths``.

    Raises
    ------
    InputError
        Where activations are no finite numbers.
    """
    report("float64 reference")
    exact = _logits(deepcopy(model).double().eval(), ids).double()
    if not torch.isfinite(exact).all():
        raise InputError("the model's logits are no finite numbers: NaN in its activations")
    log_exact = torch.log_softmax(exact, dim=-1)
    probabilities = log_exact.exp()
    two = exact.topk(2, dim=-1).values
    margin = two[:, 0] - two[:, 1]
    loss = _loss(log_exact, ids)
    found = []
    for path in paths:
        report(path.words)
        with running(model, path) as computed:
            logits = _logits(computed, ids)
        if not torch.isfinite(logits).all():
            raise InputError(f"datapath {path.name}: NaN in its activations")
        log_got = torch.log_softmax(logits.double(), dim=-1)
        divergence = (probabilities * (log_exact - log_got)).sum(dim=-1)
        flipped = logits.argmax(-1) != exact.argmax(-1)
        change = float(torch.exp(_loss(log_got, ids) - loss) - 1)
        found.append(
            ModelError(
                path.name, float(divergence.mean()), float(divergence.quantile(0.99)),
                float((~flipped).double().mean()),
                float(margin[flipped].max()) if flipped.any() else 0.0, change,
            )
        )  # fmt: skip
    return found


def _logits(model: Any, ids: Any) -> Any:
    """Of every position, shape (tokens, vocabulary); float64 stays float64."""
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0]
    return logits if logits.dtype == torch.float64 else logits.float()


def _loss(log_probabilities: Any, ids: Any) -> Any:
    return torch.nn.functional.nll_loss(log_probabilities[:-1], ids[0, 1:])


def bank_errors(
    model: Any, ids: Any, config: RunConfig, contexts: Sequence[int]
) -> list[BankError]:
    """Attention of the last token of each context, through programs and banks, against float64.

    Parameters
    ----------
    model
        Of ``transformers``, with weights.
    ids
        Token ids, shape (1, tokens).
    config
        The machine: its memory and PIM.
    contexts
        Tokens of each.

    Returns
    -------
    list[BankError]
        Relative RMS, by block and context.

    Raises
    ------
    InputError
        For a machine without PIM.
    """
    pim = config.pim
    if pim is None:
        raise InputError(f"{config.name}: it has no PIM whose banks could attend")
    memory = device_memory(config.memory)
    captured = _attention_inputs(model, ids)
    found = []
    for block, (query, key, value, scaling) in captured.items():
        for context in contexts:
            q = rounded(query[:, context - 1] * scaling, "bf16")
            k, v = rounded(key[:, :context], "bf16"), rounded(value[:, :context], "bf16")
            shape = AttentionShape.of(
                q.shape[0], k.shape[0], q.shape[1], memory, pim, 2, v.shape[2]
            )
            path = PimDatapath(lanes=pim.elements_per_comp, output="f32")
            got = attend_in_banks(shape, memory, q, k, v, softmax, path, pim.composite_gemv)
            group = q.shape[0] // k.shape[0]
            keys, values = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
            weights = torch.softmax(torch.einsum("hld,hd->hl", keys.double(), q.double()), dim=-1)
            exact = torch.einsum("hl,hld->hd", weights, values.double())
            error = float((got - exact).norm() / exact.norm())
            found.append(BankError(block, context, error))
    return found


def _attention_inputs(model: Any, ids: Any) -> dict[int, tuple[Any, Any, Any, float]]:
    """Queries, keys and values of the first and last block, shapes (heads, tokens, features)."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    from pimsim.capture.attention import attention

    last = model.config.get_text_config().num_hidden_layers - 1
    kept: dict[int, tuple[Any, Any, Any, float]] = {}

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None,
        sliding_window: Any = None, **_: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if module.layer_idx in (0, last):
            kept[module.layer_idx] = (query[0], key[0], value[0], float(scale))
        return attention(query, key, value, scale, sliding_window).transpose(
            1, 2
        ).contiguous(), None

    AttentionInterface.register("pimsim_keep", attend)
    AttentionMaskInterface.register("pimsim_keep", lambda *_, **__: None)
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation("pimsim_keep")
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        model.set_attn_implementation(before)
    return kept
