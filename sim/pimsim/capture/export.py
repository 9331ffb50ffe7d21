"""A model of ``transformers`` to an operator trace."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from inspect import signature
from itertools import groupby
from typing import Any, Literal

import torch

from pimsim import __version__
from pimsim.capture.attention import TraceCache, traced_attention
from pimsim.capture.drafts import OUTSIDE, Draft, Unplaced, drafts_of_blocks
from pimsim.capture.hf_config import longest_context
from pimsim.capture.loading import LoadedModel
from pimsim.capture.operators import hold_to_parameters, symbolic_block
from pimsim.capture.recorder import OperationRecorder
from pimsim.config.errors import InputError
from pimsim.workload.canonical import block_labels, canonical_block
from pimsim.workload.stored_weights import quantised
from pimsim.workload.symbolic import OperatorMaker
from pimsim.workload.trace import BlockRun, ModelFacts, OperandRole, OperatorTrace, Phase

__all__ = ["Export", "cache_argument", "export_trace"]

PhaseName = Literal["prefill", "decode"]
_PREFILLS = ((1, 7), (1, 11), (2, 5))
"""Requests and prompt tokens of the runs that sizes are found from."""
_DECODES = ((1, 1), (2, 1), (3, 1))
"""The same for decode. Nothing but attention and the cache depends on the context, and these are
seen as a whole, so the cache may be empty."""


@dataclass(frozen=True)
class Export:
    """A trace, and what of the model it does not say."""

    trace: OperatorTrace
    unplaced: tuple[Unplaced, ...]
    """Operations that belong to no operator that we know."""


def export_trace(loaded: LoadedModel) -> Export:
    """Trace prefill and decode of a model on the meta device.

    The whole model is run once, in decode, and blocks that do the same are folded; prefill and the
    runs with other sizes are of one block of each kind.

    Parameters
    ----------
    loaded
        The model, and what format its weights have.

    Returns
    -------
    Export
        The trace, and operations that found no place in it.

    Raises
    ------
    InputError
        For an architecture whose operations cannot be told apart.
    """
    model = loaded.model
    config = model.config.get_text_config()
    layers = _decoder_layers(model, loaded.name)
    unplaced: dict[Unplaced, None] = {}
    element = loaded.element_bytes or next(iter(model.parameters())).element_size()
    make = OperatorMaker(element, element)
    phases: dict[PhaseName, Phase] = {}
    whole = _run(loaded, *_DECODES[0], True, unplaced)
    _windows(whole, config, loaded)
    per_token = _experts_per_token(whole)
    kinds = _kinds(whole)
    outside = {
        name: each.numel() for name, each in model.named_parameters()
        if not name.startswith(f"{layers[0]}.")
    }  # fmt: skip
    chosen = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    _same_parameters(layers[1], kinds, loaded.name)
    names: tuple[PhaseName, ...] = ("prefill", "decode")
    for name in names:
        decode = name == "decode"
        shapes = _DECODES if decode else _PREFILLS
        runs = [{i: whole[at] for i, at in enumerate(chosen)} | _outside(whole)] if decode else []
        with _only(model, layers, chosen):
            runs += [_run(loaded, *shape, decode, unplaced) for shape in shapes[len(runs) :]]
        tokens = [{"T": b if decode else b * s, "B": b} for b, s in shapes]
        phases[name] = _phase(
            runs,
            tokens,
            kinds,
            chosen,
            make,
            layers,
            outside,
            not unplaced,
            per_token,
            decode,
            loaded.name,
        )
    trace = OperatorTrace(
        model=loaded.name,
        source=_source(loaded),
        facts=_facts(model, config, phases, _experts(whole), per_token, element),
        phases=phases,
    )
    if loaded.weights is not None:
        trace = quantised(trace, loaded.weights)
    return Export(trace, tuple(unplaced))


def cache_argument(model: Any) -> str:
    """What this version of ``transformers`` calls the KV cache.

    Parameters
    ----------
    model
        Of ``transformers``.

    Returns
    -------
    str
        Name of an argument of its ``forward``.
    """
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _decoder_layers(model: Any, name: str) -> Any:
    """The model's list of decoder blocks."""
    lists = [
        (path, module) for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and ".layers." not in path
        and path.rsplit(".", 1)[-1] in ("layers", "h", "blocks", "block")
    ]  # fmt: skip
    if len(lists) != 1:
        raise InputError(
            f"model {name}: architecture {type(model).__name__} is not supported: "
            f"{len(lists)} lists of decoder blocks were found, one is expected"
        )
    return lists[0]


@contextmanager
def _only(model: Any, layers: tuple[str, Any], chosen: Sequence[int]) -> Iterator[None]:
    """The model with these of its blocks alone."""
    path, blocks = layers
    owner = model.get_submodule(path.rsplit(".", 1)[0]) if "." in path else model
    leaf = path.rsplit(".", 1)[-1]
    config = model.config.get_text_config()
    before = config.num_hidden_layers
    setattr(owner, leaf, torch.nn.ModuleList([blocks[at] for at in chosen]))
    config.num_hidden_layers = len(chosen)
    try:
        yield
    finally:
        setattr(owner, leaf, blocks)
        config.num_hidden_layers = before


def _run(
    loaded: LoadedModel, requests: int, tokens: int, decode: bool, unplaced: dict[Unplaced, None]
) -> dict[int, list[Draft]]:
    """Operators by block of one forward pass."""
    model = loaded.model
    recorder = OperationRecorder()
    cache = TraceCache(recorder)
    device = next(iter(model.parameters())).device
    argument = cache_argument(model)

    ids = torch.zeros((requests, tokens), dtype=torch.long, device=device)
    call: dict[str, Any] = {"input_ids": ids, "use_cache": True, argument: cache}
    if "logits_to_keep" in signature(model.forward).parameters:
        call["logits_to_keep"] = 1
    padding, model.config.pad_token_id = model.config.pad_token_id, None
    try:
        with (
            torch.no_grad(), traced_attention(model, recorder, absorbed=decode),
            recorder.watch(model),
        ):  # fmt: skip
            model(**call)
    except InputError:
        raise
    except Exception as error:  # a model's own code, on a cache and tensors that it may not expect
        said = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"model {loaded.name}: architecture {type(model).__name__} is not supported: it does "
            f"not run with a plain KV cache on the meta device ({type(error).__name__}: {said})"
        ) from error
    finally:
        model.config.pad_token_id = padding
    found, missing = drafts_of_blocks(recorder.events)
    unplaced |= dict.fromkeys(missing)
    return found


def _windows(blocks: Mapping[int, list[Draft]], config: Any, loaded: LoadedModel) -> None:
    """Hold what attention was told to what the config says of each block."""
    kinds = getattr(config, "layer_types", None) or []
    where = f"model {loaded.name}: architecture {type(loaded.model).__name__} is not supported"
    for at in range(config.num_hidden_layers):
        calls = [draft for draft in blocks.get(at, ()) if draft.what == "attention"]
        if not calls or not any(draft.what == "append" for draft in blocks[at]):
            raise InputError(
                f"{where}: block {at} calls no attention with a KV cache that transformers' "
                "interface lets us see (state-space and linear attention layers have none)"
            )
        kind = kinds[at] if at < len(kinds) else None
        if kind is None:
            continue
        window = calls[0].facts["window"]
        expected = {
            "full_attention": (None,),
            "sliding_attention": (getattr(config, "sliding_window", None),),
        }
        if window not in expected.get(kind, ()):
            raise InputError(f"{where}: block {at} has {kind}, with a window of {window} tokens")


def _experts(blocks: Mapping[int, list[Draft]]) -> int:
    """Routed experts of a block, 0 without."""
    found = (d.facts.get("experts", 0) for drafts in blocks.values() for d in drafts)
    return max((int(str(each)) for each in found), default=0)


def _experts_per_token(blocks: Mapping[int, list[Draft]]) -> int:
    """Experts that a token goes to: rows of their products in a run of one token."""
    sizes = {d.size for drafts in blocks.values() for d in drafts if d.group == "expert_fc1"}
    if len(sizes) > 1:
        raise InputError(f"blocks send a token to different numbers of experts: {sorted(sizes)}")
    return next(iter(sizes), 0)


def _outside(blocks: Mapping[int, list[Draft]]) -> dict[int, list[Draft]]:
    return {at: drafts for at, drafts in blocks.items() if at in OUTSIDE.values()}


def _kinds(blocks: Mapping[int, list[Draft]]) -> list[str]:
    """A name for what each block does; blocks with the same operators share it."""
    numbers = sorted(at for at in blocks if at not in OUTSIDE.values())
    classes: list[list[Draft]] = []
    of_block = []
    for number in numbers:
        mine = blocks[number]
        for index, other in enumerate(classes):
            if len(other) == len(mine) and all(
                a.same_but_size(b) and a.size == b.size for a, b in zip(mine, other, strict=True)
            ):
                of_block.append(index)
                break
        else:
            of_block.append(len(classes))
            classes.append(mine)
    labels = block_labels(
        [any(d.group == "expert_fc1" for d in drafts) for drafts in classes],
        [_window(drafts) for drafts in classes],
    )
    return [labels[index] for index in of_block]


def _window(drafts: Sequence[Draft]) -> int | None:
    found = next((d.facts["window"] for d in drafts if d.what == "attention"), None)
    return None if found is None else int(str(found))


def _phase(
    runs: Sequence[Mapping[int, list[Draft]]], tokens: Sequence[Mapping[str, int]],
    kinds: Sequence[str], chosen: Sequence[int], make: OperatorMaker, layers: tuple[str, Any],
    outside: Mapping[str, int], whole: bool, per_token: int, decode: bool, model: str,
) -> Phase:  # fmt: skip
    blocks, prefix = {}, layers[0]
    for index, at in enumerate(chosen):
        drafts = [run[index] for run in runs]
        where = f"model {model}, block {at}"
        parameters = _parameters(layers[1][at], f"{prefix}.{{layer}}", drafts[0])
        operators = symbolic_block(drafts, tokens, make, parameters, per_token, decode, where)
        if whole:
            hold_to_parameters(operators, drafts[0], parameters, make.dtype_bytes, where)
        blocks[kinds[at]] = canonical_block(operators)
    outer: dict[str, str | None] = {"before": None, "after": None}
    for side, (place, label) in {"before": (-1, "embed"), "after": (10**9, "head")}.items():
        if all(run.get(place) for run in runs):
            where = f"model {model}, {side} the blocks"
            blocks[label] = canonical_block(
                symbolic_block(
                    [run[place] for run in runs], tokens, make, outside, 0, decode, where
                )
            )
            outer[side] = label
    read = {n for place in OUTSIDE.values() for d in runs[0].get(place, ()) for n in d.weights}
    unread = [name for name in outside if name not in read]
    if unread and whole:
        raise InputError(f"model {model}: no operator reads {unread[0]}; it is not supported")
    order = [BlockRun(block=kind, count=len(list(same))) for kind, same in groupby(kinds)]
    return Phase(blocks=blocks, layers=tuple(order), before=outer["before"], after=outer["after"])


def _same_parameters(blocks: Any, kinds: Sequence[str], model: str) -> None:
    """Blocks of a kind have parameters of the same names and shapes."""
    shapes: dict[str, dict[str, Any]] = {}
    for at, (block, kind) in enumerate(zip(blocks, kinds, strict=True)):
        mine = {name: each.shape for name, each in block.named_parameters()}
        first = shapes.setdefault(kind, mine)
        for name in [*mine, *first]:
            if mine.get(name) != first.get(name):
                raise InputError(
                    f"model {model}, block {at}: its parameter {name} is not that of other blocks "
                    "that do the same; this architecture is not supported"
                )


def _parameters(block: Any, prefix: str, drafts: Sequence[Draft]) -> dict[str, int]:
    """Elements of a block's parameters, and of the buffers in its checkpoint that it reads."""
    read = {name for draft in drafts for name in draft.weights}
    found = {f"{prefix}.{name}": each.numel() for name, each in block.named_parameters()}
    for name, each in block.state_dict().items():
        if f"{prefix}.{name}" in read:
            found[f"{prefix}.{name}"] = each.numel()
    return found


def _facts(
    model: Any, config: Any, phases: Mapping[PhaseName, Phase], experts: int, per_token: int,
    element: int,
) -> ModelFacts:  # fmt: skip
    parameters = sum(p.numel() for p in model.parameters())
    decode = phases["decode"]
    cached = sum(
        operator.bytes_of(OperandRole.KV, write=True).get("T", 0)
        for kind in decode.sequence() for operator in decode.blocks[kind]
    )  # fmt: skip
    longest, _ = longest_context(config)
    return ModelFacts(
        architecture=type(model).__name__, layers=sum(run.count for run in decode.layers),
        hidden=config.hidden_size, heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        vocab=config.vocab_size, max_context=longest, experts=experts,
        experts_per_token=per_token, parameters=parameters,
        parameter_bytes=parameters * element, kv_bytes_per_token=cached, dtype_bytes=element,
        kv_dtype_bytes=element,
    )  # fmt: skip


def _format(loaded: LoadedModel) -> str:
    return "" if loaded.weights is None else f" with products in {loaded.weights.words}"


def _source(loaded: LoadedModel) -> str:
    import transformers

    values = loaded.model.config.to_dict()
    values.pop("transformers_version", None)
    config = sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return (
        f"pimsim {__version__} export {loaded.name}: {type(loaded.model).__name__} from "
        f"{loaded.origin} (config sha256 {config}){_format(loaded)}, traced on the meta device "
        f"with torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}"
    )
