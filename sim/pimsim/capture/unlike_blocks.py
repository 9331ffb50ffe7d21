"""Decoders whose blocks differ in heads and widths, told in the terms of one that can be built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pimsim.capture.config_values import MOST_LAYERS, MOST_SIZE, positive, shown
from pimsim.config.errors import InputError

__all__ = ["TRANSLATED", "Blocks", "by_block"]

Values = dict[str, Any]
Blocks = tuple[Mapping[str, int], ...]


_BY_BLOCK = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def by_block(where: str, values: Values) -> tuple[Values, Blocks]:
    """Lists of heads and widths, one value a block, as sizes of blocks and the most of each.

    Parameters
    ----------
    where
        The file, for messages.
    values
        Of the config.

    Returns
    -------
    values : Values
        With the most of each list in its place.
    blocks : Blocks
        Sizes of each block; empty where all are alike. 0 heads: a block without attention.

    Raises
    ------
    InputError
        For a list of another length, or with what is no size.
    """
    lists = [key for key in _BY_BLOCK if isinstance(values.get(key), list)]
    if not lists:
        return values, ()
    layers = _count(where, values, "num_hidden_layers", MOST_LAYERS)
    values = {"num_key_value_heads": values.get("num_attention_heads")} | values
    columns = {key: _listed(where, values, key, layers) for key in _BY_BLOCK}
    blocks = tuple({key: columns[key][at] for key in _BY_BLOCK} for at in range(layers))
    alike = all(block == blocks[0] for block in blocks)
    return values | _largest(blocks), () if alike else _checked(where, blocks)


def _listed(where: str, values: Values, key: str, count: int) -> list[int]:
    found = values.get(key)
    listed: list[Any] = found if isinstance(found, list) else [found] * count
    if len(listed) != count or not all(positive(each) for each in listed):
        raise InputError(
            f"{where}: {key} is {shown(found)}; a whole number, or one for each of {count} "
            "blocks, is expected"
        )
    return listed


def _count(where: str, values: Values, key: str, most: int = MOST_SIZE) -> int:
    value = values.get(key)
    if value is None or not positive(value) or value > most:
        raise InputError(
            f"{where}: {key} is {shown(value)}; a whole number of 1 to {most:,} is expected"
        )
    return int(value)


def _rounded(value: float, to: int) -> int:
    """The nearest multiple, not more than a tenth below (``make_divisible`` of MobileNet)."""
    nearest = max(to, int(value + to / 2) // to * to)
    return nearest + to if nearest < 0.9 * value else nearest


def _openelm(where: str, values: Values) -> tuple[str, Values, Blocks]:
    """OpenELM (arXiv 2404.14619): heads and widths by block; norms of queries and keys, gated FFN,
    as Qwen 3 has them. Read: ``configuration_openelm.py`` of apple/OpenELM-270M."""
    layers = _count(where, values, "num_transformer_layers", MOST_LAYERS)
    hidden, width = _count(where, values, "model_dim"), _count(where, values, "head_dim", 10**6)
    if values.get("ffn_with_glu", True) is not True:
        raise InputError(f"{where}: ffn_with_glu is false, which is not supported")
    if values.get("normalize_qk_projections", True) is not True:
        raise InputError(f"{where}: normalize_qk_projections is false, which is not supported")
    queries = _listed(where, values, "num_query_heads", layers)
    keys = _listed(where, values, "num_kv_heads", layers)
    factors, to = values.get("ffn_multipliers"), _count(where, values, "ffn_dim_divisor")
    if (
        not isinstance(factors, list)
        or len(factors) != layers
        or not all(
            isinstance(each, (int, float)) and not isinstance(each, bool) and 0 < each < 1000
            for each in factors
        )
    ):
        raise InputError(f"{where}: ffn_multipliers must hold a factor for each of {layers} blocks")
    blocks = tuple(
        {
            "num_attention_heads": q, "num_key_value_heads": k,
            "intermediate_size": _rounded(factor * hidden, to),
        }
        for q, k, factor in zip(queries, keys, factors, strict=True)
    )  # fmt: skip
    common = {
        "hidden_size": hidden, "head_dim": width, "num_hidden_layers": layers,
        "vocab_size": _count(where, values, "vocab_size"),
        "max_position_embeddings": _count(where, values, "max_context_length", 2**40),
        "tie_word_embeddings": values.get("share_input_output_layers", True),
        "torch_dtype": values.get("torch_dtype", "bfloat16"),
    }  # fmt: skip
    return "qwen3", common | _largest(blocks), _checked(where, blocks)


def _deci(where: str, values: Values) -> tuple[str, Values, Blocks]:
    """DeciLM (``num_key_value_heads_per_layer``) and Nemotron's neural architecture search
    (``block_configs``; arXiv 2411.19146): Llama with heads and widths by block."""
    layers = _count(where, values, "num_hidden_layers", MOST_LAYERS)
    hidden = _count(where, values, "hidden_size")
    heads = _count(where, values, "num_attention_heads", 100_000)
    listed = values.get("block_configs")
    if listed is None:
        keys = _listed(where, values, "num_key_value_heads_per_layer", layers)
        width = _count(where, values, "intermediate_size")
        blocks: Blocks = tuple({"num_key_value_heads": k, "intermediate_size": width} for k in keys)
    else:
        if not isinstance(listed, list) or len(listed) != layers:
            raise InputError(f"{where}: block_configs must hold one entry for each of {layers}")
        blocks = tuple(
            _deci_block(where, at, each, hidden, heads) for at, each in enumerate(listed)
        )
    common = {
        key: value for key, value in values.items()
        if key not in ("block_configs", "num_key_value_heads_per_layer", "layer_types")
    }  # fmt: skip
    return (
        "llama",
        common | _largest(blocks),
        _checked(where, tuple({"num_attention_heads": heads} | dict(each) for each in blocks)),
    )


def _deci_block(where: str, at: int, block: Any, hidden: int, heads: int) -> Mapping[str, int]:
    parts = block if isinstance(block, Mapping) else {}
    attention, network = parts.get("attention"), parts.get("ffn")
    if not isinstance(attention, Mapping) or not isinstance(network, Mapping):
        raise InputError(f"{where}: block_configs[{at}] must have attention and ffn")
    for name, part in (("attention", attention), ("feed-forward network", network)):
        if part.get("no_op") or part.get("replace_with_linear"):
            what = "no" if part.get("no_op") else "a single product in place of its"
            raise InputError(
                f"{where}: block_configs[{at}]: a block with {what} {name} is not supported"
            )
    group, factor = attention.get("n_heads_in_group"), network.get("ffn_mult")
    if not positive(group) or heads % int(group or 1):
        raise InputError(
            f"{where}: block_configs[{at}].attention.n_heads_in_group is {shown(group)}; a "
            f"divisor of {heads} heads is expected"
        )
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1000:
        raise InputError(f"{where}: block_configs[{at}].ffn.ffn_mult is {shown(factor)}")
    size = int(2 * factor * hidden / 3)
    return {
        "num_key_value_heads": heads // int(group or 1),
        "intermediate_size": -(-size // 256) * 256,
    }


def _largest(blocks: Blocks) -> Values:
    """For the config's own keys: the most of any block."""
    return {key: max(block[key] for block in blocks) for key in blocks[0]}


def _checked(where: str, blocks: Blocks) -> Blocks:
    for at, block in enumerate(blocks):
        heads, keys = block["num_attention_heads"], block["num_key_value_heads"]
        if heads % keys:
            raise InputError(
                f"{where}: block {at}: {heads} heads are no multiple of {keys} key heads"
            )
    return blocks


TRANSLATED: dict[str, Callable[[str, Values], tuple[str, Values, Blocks]]] = {
    "openelm": _openelm, "deci": _deci, "nemotron-nas": _deci,
}  # fmt: skip
"""Types that transformers cannot build, told in the terms of one that it can."""
