"""Files and sections that are changed in one place each: what every reader says of it, and what
comes of what is taken, where that is short."""

from __future__ import annotations

import base64
import copy
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cases import values
from pydantic import ValidationError
from values_capture import _architectures
from values_workload import card

GONE = object()
"""In place of a key's value: the key is left out."""


def leaves(value: Any, at: tuple[Any, ...] = (), most: int = 2) -> Iterator[tuple[Any, ...]]:
    """Where the values of a document stand; of a list the first ``most``."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield (*at, key)
            yield from leaves(each, (*at, key), most)
    elif isinstance(value, list) and value:
        for number, each in enumerate(value[:most]):
            yield (*at, number)
            yield from leaves(each, (*at, number), most)


def with_change(whole: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy with one value changed, or left out."""
    found = copy.deepcopy(whole)
    place = found
    for key in at[:-1]:
        place = place[key]
    if value is GONE:
        del place[at[-1]]
    else:
        place[at[-1]] = value
    return found


def others(value: Any) -> list[Any]:
    """What may stand there by mistake."""
    if isinstance(value, bool):
        return [GONE, not value, "x"]
    if isinstance(value, (int, float)):
        return [GONE, 0, -1, 3 * value + 1, 0.5, "x", True]
    if isinstance(value, str):
        return [GONE, "x", "", 7]
    return [GONE, [], "x", None]


def told(work: Callable[[], Any]) -> str:
    """In a line: what is said, or what came of it."""
    try:
        return str(work())
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"] if first["type"] == "value_error" else first["type"]
        return f"{'.'.join(map(str, first['loc']))}: {said}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def walked(whole: Any, read: Callable[[Any], Any], most: int = 2) -> Iterator[str]:
    """Every change of every value."""
    as_is = told(lambda: read(whole))
    yield f"as it is: {as_is}"
    for at in leaves(whole, most=most):
        value = whole
        for key in at:
            value = value[key]
        for other in others(value):
            found = told(lambda w=whole, a=at, o=other: read(with_change(w, a, o)))
            name = ".".join(map(str, at))
            shown = "left out" if other is GONE else f"= {other!r}"
            yield f"{name} {shown}: {'the same' if found == as_is else found}"


@values("leaves/cards")
def _cards() -> Iterator[str]:
    from pimsim.workload.cards import ModelCard

    def read(given: Any) -> str:
        found = ModelCard.model_validate(given)
        return f"{found.parameters} parameters" if hasattr(found, "parameters") else found.name

    for name in ("tiny", "moe", "mla"):
        yield f"=== {name}"
        yield from walked(card(name).model_dump(mode="json", exclude_none=True), read)


@values("leaves/configs-of-models")
def _configs() -> Iterator[str]:
    """The card of every architecture's config, and what its own keys do."""
    from pimsim.capture.hf_card import ARCHITECTURES, card_of_config

    def read(given: Any) -> str:
        found = card_of_config("c", "m", given)
        own = found.card.model_dump(mode="json", exclude_defaults=True)
        return json.dumps([{k: v for k, v in own.items() if k != "source"}, *found.notes])

    sizes, architectures = _architectures()
    seen = set()
    for name, (kind, changes) in architectures.items():
        whole = sizes | changes | {"model_type": kind}
        yield f"=== {name}: {told(lambda w=whole: read(w))}"
        seen.add(kind)
        for at in [(key,) for key in changes if not isinstance(changes[key], list)]:
            for other in others(whole[at[0]]):
                shown = "left out" if other is GONE else f"= {other!r}"
                found = told(lambda w=whole, a=at, o=other: read(with_change(w, a, o)))
                yield f"{at[0]} {shown}: {found}"
    for kind in sorted(set(ARCHITECTURES) - seen):
        yield f"=== {kind}: {told(lambda k=kind: read(sizes | {'model_type': k}))}"
    llama = sizes | {"model_type": "llama"}
    yield "=== llama"
    for more in (
        {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}, {"hidden_act": "tanh"},
        {"hidden_act": None}, {"dtype": "float16"}, {"torch_dtype": "float32"},
        {"torch_dtype": "int7"}, {"attention_bias": True}, {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True}, {"head_dim": 48},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
                          "original_max_position_embeddings": 512}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, {"sliding_window": 33},
        {"num_attention_heads": 3}, {"num_key_value_heads": 3}, {"vocab_size": [3]},
        {"hidden_size": 0}, {"num_hidden_layers": 10**7}, {"model_type": "lama"},
        {"text_config": llama}, {"tie_word_embeddings": False},
        {"quantization_config": {"quant_method": "fp8"}},
    ):  # fmt: skip
        yield f"{more}: {told(lambda m=more: read(llama | m))}"
    for kind, more in (
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}),
        ("qwen2_moe", {"decoder_sparse_step": 2}), ("qwen2_moe", {"mlp_only_layers": [1]}),
        ("opt", {"word_embed_proj_dim": 64}), ("opt", {"do_layer_norm_before": False}),
        ("opt", {"ffn_dim": 256}), ("gpt2", {"n_embd": 128, "n_head": 4, "n_layer": 3}),
        ("gpt2", {"n_inner": 64}), ("deepseek_v3", {"moe_layer_freq": 2}),
        ("phi", {"partial_rotary_factor": 0.25}), ("glm4_moe", {}), ("gpt_oss", {}),
        ("gpt_oss", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("gpt_oss", {"layer_types": ["full_attention"]}),
    ):  # fmt: skip
        yield f"{kind} {more}: {told(lambda k=kind, m=more: read(sizes | m | {'model_type': k}))}"


@values("leaves/unlike-blocks")
def _unlike() -> Iterator[str]:
    from pimsim.capture.hf_config import decoder_config

    openelm = {
        "model_type": "openelm", "num_transformer_layers": 3, "model_dim": 128, "head_dim": 32,
        "num_query_heads": [4, 4, 8], "num_kv_heads": [1, 2, 2], "ffn_dim_divisor": 64,
        "ffn_multipliers": [0.5, 1.7, 4.0], "vocab_size": 320, "max_context_length": 512,
        "share_input_output_layers": True, "ffn_with_glu": True, "normalize_qk_projections": True,
    }  # fmt: skip
    common = {
        "num_hidden_layers": 2, "hidden_size": 96, "num_attention_heads": 6, "vocab_size": 320,
        "max_position_embeddings": 512, "intermediate_size": 200, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    listed = common | {"model_type": "deci", "num_key_value_heads_per_layer": [3, 6]}
    searched = common | {
        "model_type": "nemotron-nas",
        "block_configs": [
            {"attention": {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": False},
             "ffn": {"ffn_mult": 2.1, "no_op": False, "replace_with_linear": False}},
            {"attention": {"n_heads_in_group": 3}, "ffn": {"ffn_mult": 4}},
        ],
    }  # fmt: skip
    lists = common | {
        "model_type": "llama", "num_attention_heads": [4, 6], "num_key_value_heads": [2, 3],
        "intermediate_size": [128, 256],
    }  # fmt: skip

    def read(given: Any) -> str:
        found = decoder_config("c", given)
        return f"{found.kind} {found.blocks} {sorted(found.values.items())} {list(found.notes)}"

    for whole in (openelm, listed, searched, lists):
        yield f"=== {whole['model_type']}"
        yield from walked(whole, read)


@values("leaves/weight-formats")
def _weights() -> Iterator[str]:
    from pimsim.capture.weight_formats import weight_format

    sections: tuple[dict[str, Any], ...] = (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True,
         "modules_to_not_convert": ["lm_head"]},
        {"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True, "desc_act": True,
         "lm_head": False, "dynamic": None},
        {"quant_method": "gptq", "w_bit": 3, "q_group_size": 32, "sym": False},
        {"quant_method": "fp8", "weight_block_size": [128, 64]},
        {"quant_method": "fp8"},
        {"quant_method": "mxfp4", "modules_to_not_convert": ["a", "b"]},
        {"quant_method": "gptq", "bits": 4, "dynamic": {"a": 1}},
    )  # fmt: skip
    for section in sections:
        yield f"=== {section}"
        yield from walked(section, lambda given: weight_format("c", given))
    for other in (None, 3, [], {}):
        yield f"{other!r}: {told(lambda o=other: weight_format('c', o))}"


@values("leaves/operator-traces")
def _traces() -> Iterator[str]:
    """Of operators of each kind one."""
    from pimsim.workload.card_trace import card_trace
    from pimsim.workload.trace import OperatorTrace

    seen = set()
    for name in ("moe", "mla"):
        whole = card_trace(card(name)).model_dump(mode="json", exclude_defaults=True)
        whole["source"] = "here"
        del whole["phases"]["prefill"]
        phase = whole["phases"]["decode"]

        def read(given: Any) -> str:
            found = OperatorTrace.model_validate_json(json.dumps(given))
            return f"{found.facts.parameters} parameters"

        yield f"=== {name}"
        for at in leaves(whole):
            if "blocks" in at and len(at) > 4:
                continue
            value = whole
            for key in at:
                value = value[key]
            for other in others(value)[:4]:
                shown = "left out" if other is GONE else f"= {other!r}"
                found = told(lambda w=whole, a=at, o=other: read(with_change(w, a, o)))
                yield f"{'.'.join(map(str, at))} {shown}: {found}"
        for kind, operators in phase["blocks"].items():
            for number, one in enumerate(operators):
                if one["kind"] in seen:
                    continue
                seen.add(one["kind"])
                yield f"--- {one['name']}, {one['kind']}"
                for at in leaves(one, most=1):
                    value = one
                    for key in at:
                        value = value[key]
                    for other in (GONE, 0, "x", {"R": 1}):
                        shown = "left out" if other is GONE else f"= {other!r}"
                        place = ("phases", "decode", "blocks", kind, number, *at)
                        found = told(lambda w=whole, a=place, o=other: read(with_change(w, a, o)))
                        yield f"{'.'.join(map(str, at))} {shown}: {found}"


SERVICE = """\
requests:
  count: 30
  arrivals: {process: poisson, rate_per_s: 40}
  prompt: {mean: 60, cv: 1, least: 3, most: 300}
  output: {low: 1, high: 20}
scheduler: {name: vllm, max_num_seqs: 8, max_num_batched_tokens: 256}
cache: {blocks: 60, block_tokens: 16}
step_time: {linear: {step_us: 5000, token_us: 30, ctx_ns: 100}}
slo: {ttft: 50ms, tpot: 8ms}
replicas: {count: 2, router: lor, stages: 1}
speculation: {drafts: 2, accept: 0.5}
decode:
  count: 3
  token_bytes: 128KiB
  links: {bandwidth_gb_per_s: 2, latency_ns: 2000, topology: switch}
  step_time: {linear: {step_us: 6000, token_us: 30, ctx_ns: 100}}
prices: {replica_hour: 2.5, decode_replica_hour: 1.5}
seed: 3
"""
MORE_OF_SERVICES = (
    "prices: {kwh: 0.2}", "machine: {extends: npu-pim}", "cache: {block_tokens: 16}", "cache: {}",
    "model: llama-3-8b", "step_time: {}", "speculation: {drafts: 0, accept: mix}",
    "speculation: {drafts: 3, accept: mix}", "speculation: {drafts: 3, accept: 4}",
    "requests: {count: 0}", "requests: {file: none.csv}", "requests: {count: 3}",
    "step_time: {linear: {step_us: 1}, profile: {folder: p, layers: 2}}",
    "requests: {count: 3, prompt: {fixed: 3, mean: 4}, output: {fixed: 2}}",
    "requests: {count: 3, prompt: {low: 3}, output: {fixed: 2}}",
    "requests: {count: 3, prompt: {high: 3}, output: {fixed: 2}}",
    "requests: {count: 3, prompt: {low: 9, high: 3}, output: {fixed: 2}}",
    "requests: {count: 3, prompt: {mean: 9, least: 10, most: 3}, output: {fixed: 2}}",
    "scheduler: {name: vllm, max_num_seqs: 8, max_num_batched_tokens: 256, policy: priority}",
)  # fmt: skip


@values("leaves/services")
def _services() -> Iterator[str]:
    from pimsim.config.service import ServiceConfig

    whole = yaml.safe_load(SERVICE)

    def read(given: Any) -> str:
        ServiceConfig.model_validate(given)
        return "taken"

    yield from walked(whole, read)
    base = {key: each for key, each in whole.items() if key not in ("decode", "speculation")}
    base["prices"] = {"replica_hour": 1}
    for more in MORE_OF_SERVICES:
        changed = base | yaml.safe_load(more)
        yield f"{more}: {told(lambda c=changed: read(c))}"
        without = {key: each for key, each in changed.items() if key != "step_time"}
        yield f"{more}, without times: {told(lambda c=without: read(c))}"


def _from_file(suffix: str, text: str, read: Callable[[Path], Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f{suffix}"
        path.write_text(text)
        return told(lambda: read(path)).replace(folder, "<folder>")


@values("leaves/requests")
def _requests() -> Iterator[str]:
    """Requests of each format, an object or a cell changed."""
    from pimsim.workload.request_formats import read_traffic

    def read(path: Path) -> str:
        found = read_traffic(path)
        parts = {name: getattr(found.traffic, name) for name in found.traffic.__dataclass_fields__}
        kept = {name: each for name, each in parts.items() if name != "place" and each is not None}
        return f"{found.format} " + "; ".join(
            f"{name} {each.tolist() if isinstance(each, np.ndarray) else each}"
            for name, each in kept.items()
        )

    objects: tuple[Any, ...] = (
        {"session_id": "a", "arrival_time_ns": 1000, "sub_requests": [
            {"input_toks": 30, "output_toks": 4, "tool_duration_ns": 5},
            {"input_toks": 60, "output_toks": 2}]},
        {"timestamp": 30, "input_length": 1100, "output_length": 4, "hash_ids": [1, 2, 3]},
        {"input_lens": [30, 20], "output_lens": [3, 2], "start_times": [10.25, 10.5]},
    )  # fmt: skip
    for one in objects:
        yield f"=== {sorted(one)}"
        yield from walked(one, lambda each: _from_file(".jsonl", json.dumps(each) + "\n", read))
        two = json.dumps(one) + "\n"
        for text in (two + "\n" + two, two + "[]\n", two + "{", two[:-3], "3\n", ""):
            yield f"{len(text)} characters: {_from_file('.jsonl', text, read)}"
    tables = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,37,4\n"
        "2023-11-16 18:17:04.5,96,9\n",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,47,8,55,Conversation log\n6,GPT-4,20,10,30,API log\n",
        "request_id,arrival_s,prompt_tokens,output_tokens,priority\n7,0.25,20,4,0\n8,0.5,40,5,1\n",
        "arrival_us,prompt,output,priority\n0,100,3,1\n1000,200,1,0\n",
    )
    cells = ("", "x", "-1", "0", "1.5", "1e3", "99999999999999999999", "2023-11-16 18:17:03")
    for table in tables:
        rows = [line.split(",") for line in table.splitlines()]
        yield f"=== {rows[0]}: {_from_file('.csv', table, read)}"
        for number, cell in ((n, c) for n in range(len(rows[0])) for c in cells):
            changed = [list(row) for row in rows]
            changed[2][number] = cell
            text = "\n".join(",".join(row) for row in changed) + "\n"
            yield f"{rows[0][number]} {cell!r}: {_from_file('.csv', text, read)}"
        for at in range(len(rows[0])):
            text = "\n".join(",".join(row[:at] + row[at + 1 :]) for row in rows) + "\n"
            yield f"without {rows[0][at]}: {_from_file('.csv', text, read)}"
        for text in (rows[0][0], ",".join(rows[0]) + "\n", table + "1,2\n", table + "\n", ""):
            yield f"{len(text)} characters: {_from_file('.csv', text, read)}"


def _npy(array: Any) -> bytes:
    with io.BytesIO() as stream:
        np.save(stream, array)
        return stream.getvalue()


@values("leaves/answers-of-servers")
def _answers() -> Iterator[str]:
    """Routing in each form that servers have had, and every value of it changed."""
    from pimsim.workload.routing.servers import import_routing
    from pimsim.workload.routing.shape import MoeShape

    shape = MoeShape("moe", layers=4, moe_layers=(1, 2, 3), experts=8, experts_per_token=2)
    tokens = np.arange(6)
    own = np.stack([(tokens[:, None] + 3 * np.arange(3)) % 8, (tokens[:, None] + 5) % 8 + 0 *
                    np.arange(3)], axis=2)  # fmt: skip
    own[..., 1] = np.where(own[..., 0] == own[..., 1], (own[..., 1] + 1) % 8, own[..., 1])
    whole = np.concatenate([np.zeros((6, 1, 2), own.dtype), own], axis=1)

    def told_of(found: Any) -> str:
        trace = found.trace
        return (
            f"sequence {trace.sequence.tolist()}, position {trace.position.tolist()}, token "
            f"{trace.token.tolist()}, chosen {trace.chosen.tolist()}; {list(found.notes)}"
        )

    def read(data: bytes | str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answer"
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
            return told(lambda: told_of(import_routing([path], shape))).replace(folder, "")

    text = base64.b64encode
    answers: dict[str, Any] = {
        "vllm 0.33": {
            "choices": [{"routed_experts": text(_npy(whole.astype(np.uint8))).decode(),
                         "token_ids": [7, 8], "prompt_token_ids": [1, 2, 3, 4, 5]}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        },
        "vllm 0.21": {
            "choices": [{"routed_experts": own[4:].tolist(), "token_ids": [7, 8]}],
            "prompt_routed_experts": own[:4].tolist(), "prompt_token_ids": [1, 2, 3, 4],
        },
        "sglang": {
            "meta_info": {"routed_experts": text(whole.astype("<i4").tobytes()).decode(),
                          "routed_experts_start_len": 1, "prompt_tokens": 5,
                          "completion_tokens": 3},
            "output_ids": [9, 10, 11],
        },
        "sglang of openai": {
            "choices": [{"text": "a"}, {"text": "b"}],
            "sgl_ext": {"routed_experts": text(whole.astype("<u2").tobytes()).decode(),
                        "routed_experts_dtype": "uint16", "input_ids": [1, 2, 3],
                        "output_ids": [[4, 5, 6, 7], [8]]},
        },
        "batch": [{"response": {"body": {"prompt_routed_experts": own.tolist(), "choices": [{}]}}}],
    }  # fmt: skip
    for name, answer in answers.items():
        yield f"=== {name}"
        yield from walked(answer, lambda each: read(json.dumps(each)), most=1)
    first, second = (json.dumps(answers[name]) for name in ("vllm 0.21", "sglang"))
    for name, lines in {"two": f"{first}\n\n{second}\n", "cut off": first[:-4]}.items():
        yield f"{name}: {read(lines)}"
    many = np.stack([own, own[::-1]])
    arrays: dict[str, Any] = {
        "of tokens": own, "of all blocks": whole, "blocks first": own.transpose(1, 0, 2),
        "all blocks first": whole.transpose(1, 0, 2), "requests": many,
        "requests, blocks first": many.transpose(0, 2, 1, 3), "flat": own.reshape(-1),
        "two axes": own.reshape(6, -1), "floats": own * 1.0, "of another model": own + 1,
        "twice": own * 0 + 1, "unknown": np.where(own == 3, -1, own), "none": own[:0],
        "all unknown": own * 0 - 1, "three choices": np.concatenate([own, own[..., :1]], axis=2),
        "square": own[:3], "square of all": whole[:4], "unsigned": np.where(own == 3, 255, own)
        .astype(np.uint8), "objects": np.array([None, 3]),
    }  # fmt: skip
    for name, array in arrays.items():
        yield f"npy {name}: {read(_npy(array))}"
    yield f"npy cut off: {read(_npy(own)[:-9])}"
    yield f"npy of a head: {read(_npy(own)[:20])}"
    for name, held in {
        "one": {"a": own}, "one with ids": {"a": own, "token_ids": tokens + 50},
        "two": {"a": own, "b": own[::-1]}, "requests": {"a": many}, "nothing": {},
        "prompt and rest": {"prompt_routed_experts": own[:2], "routed_experts": own[2:]},
        "prompt and another": {"prompt_routed_experts": own[:2], "routed_experts": whole},
        "prompt alone": {"prompt_routed_experts": own},
    }.items():  # fmt: skip
        with io.BytesIO() as stream:
            np.savez(stream, **held)
            yield f"npz {name}: {read(stream.getvalue())}"
    for name, data in {
        "empty": b"", "parquet": b"PAR1", "zip": b"PK\x03\x04aaaa", "gzip": b"\x1f\x8b\x08abc",
        "bytes": b"\xff\xfe\xfd", "a number": b"3", "a text": b'"x"', "a list": b"[]",
    }.items():  # fmt: skip
        yield f"{name}: {read(data)}"


@values("leaves/recorders", "torch")
def _recorders() -> Iterator[str]:
    """Files of SGLang's recorder."""
    import torch

    from pimsim.workload.routing.servers import import_routing
    from pimsim.workload.routing.shape import MoeShape

    shape = MoeShape("moe", layers=3, moe_layers=(1, 2), experts=4, experts_per_token=2)
    chosen = [[[-1] * 8] * 4, *([[a, b, *[-1] * 6] for a, b in rows] for rows in (
        ((0, 1), (2, 3), (1, 3), (3, 0)), ((1, 2), (0, 3), (2, 0), (2, 1))))]  # fmt: skip
    one = {
        "topk_ids_of_layer": chosen, "input_ids": [11, 12, 13, 14], "positions": [0, 1, 2, 0],
        "extend_seq_lens": [3, 1],
    }  # fmt: skip
    counts = [[[0] * 4, [2, 1, 2, 1], [1, 2, 2, 1]], [[0] * 4] * 3, [[0] * 4, [1, 1, 0, 0]] * 1]
    wholes: tuple[Any, ...] = (
        {"records": [one, one | {"extend_seq_lens": None}]},
        {"records": [one], "last_physical_to_logical_map": [[0, 1, 2, 3, 0]] * 3},
        {"logical_count": counts[:2]}, {"logical_count": [[[2, 1, 2, 1], [1, 2, 2, 1]]]},
    )  # fmt: skip

    def read(given: Any) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "r.pt"
            torch.save(given, path)

            def work() -> str:
                found = import_routing([path], shape)
                trace = found.trace
                return (
                    f"{trace.sequence.tolist()} {trace.position.tolist()} {trace.token.tolist()} "
                    f"{trace.chosen.tolist()} {list(found.notes)}"
                )

            return told(work).replace(folder, "")

    for whole in wholes:
        yield f"=== {sorted(whole)}"
        yield from walked(whole, read, most=1)
    for other in (3, [], {}, {"records": [3]}, {"logical_count": [[[1, 0, 0, 0]] * 2]}):
        yield f"{other!r}: {read(other)}"


@values("leaves/parquet")
def _parquet() -> Iterator[str]:
    """Routing and sparsity traces: a column or the metadata changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pimsim.workload.routing.file import RoutingTrace, read_routing, write_routing
    from pimsim.workload.sparsity.file import SparsityTrace, read_sparsity, write_sparsity

    at = np.arange(3)
    routing = RoutingTrace(
        "m", "s", 4, 6, 2, at * 0, at, at + 7, (1, 3),
        np.stack([np.stack([at, at + 2], axis=1), np.stack([at + 3, at], axis=1)]),
    )  # fmt: skip
    masks = np.array([[[n % 3 == k for n in range(11)] for k in range(3)]] * 2)
    sparsity = SparsityTrace("m", "s", 11, at + 5, masks, {"a": 1})

    def shown(found: Any) -> str:
        parts = [getattr(found, name) for name in found.__dataclass_fields__]
        return str([each.astype(int).tolist() if isinstance(each, np.ndarray) else each
                    for each in parts])  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        for name, trace, write, read in (
            ("routing", routing, write_routing, read_routing),
            ("sparsity", sparsity, write_sparsity, read_sparsity),
        ):
            write(trace, path)
            table = pq.read_table(path)
            meta = json.loads(table.schema.metadata[b"pimsim"])

            def tried(changed: Any, read: Any = read) -> str:
                pq.write_table(changed, path)
                return told(lambda: shown(read(path))).replace(folder, "")

            yield f"=== {name}: {tried(table)}"
            for key in meta:
                for other in others(meta[key]):
                    text = json.dumps(with_change(meta, (key,), other))
                    changed = table.replace_schema_metadata({"pimsim": text})
                    yield f"{key} {'left out' if other is GONE else other!r}: {tried(changed)}"
            newer = json.dumps(meta | {"version": 9})
            for said in ({"pimsim": newer}, {"pimsim": "{"}, {}):
                yield f"{said}: {tried(table.replace_schema_metadata(said))}"
            rows = len(table)
            for number, column in enumerate(table.column_names):
                yield f"without {column}: {tried(table.drop_columns([column]))}"
                for label, other in {
                    "texts": pa.array(["x"] * rows), "floats": pa.array([0.5] * rows),
                    "nulls": pa.array([None] * rows, pa.int32()), "zeros": pa.array([0] * rows),
                    "nines": pa.array([9] * rows), "less": pa.array([-2] * rows),
                    "lists": pa.array([[0, 9]] * rows), "short lists": pa.array([[0]] * rows),
                    "lists of less": pa.array([[-2, 0]] * rows),
                }.items():  # fmt: skip
                    changed = table.set_column(number, column, other)
                    yield f"{column} of {label}: {tried(changed)}"
            yield f"fewer rows: {tried(table.slice(0, rows - 1))}"
            yield f"no rows: {tried(table.slice(0, 0))}"
            yield f"backwards: {tried(table.take(list(range(rows))[::-1]))}"
            path.write_bytes(b"PAR1 and more")
            yield f"damaged: {told(lambda r=read: r(path)).replace(folder, '').split(':')[1:2]}"


@values("leaves/strategies")
def _strategies() -> Iterator[str]:
    """Settings of decoding, views and formats: each number changed, and models that do not fit."""
    from pimsim.simulate import devices_of, resolve

    tried = {
        "decoding": (
            "draft_model:model=smollm2-135m,drafts=2,acceptance=0.5", "draft_model", "mtp",
            "eagle:tokens=2,depth=2,top_k=2,nodes=5", "eagle:tokens=2,vocab=99",
            "eagle:tokens=2,vocab=999999", "eagle:tokens=9,depth=2", "eagle:nodes=3,acceptance=0.5",
            "mtp:acceptance=0", "mtp:drafts=3,tokens=2.5", "mtp:drafts=2,tokens=4",
            "medusa:heads=2,tokens=2", "medusa:heads=0", "medusa:measured=spec-bench/vicuna-8b",
            "medusa:measured=none", "prompt_lookup:drafts=2,acceptance=2",
            "prompt_lookup:drafts=4,acceptance=0.25", "trigram:tokens=2", "trigram:half=2,seen=3",
            "constrained", "constrained:states=300", "constrained:tokens=2",
            "draft_model:drafts=2,tokens=2,acceptance=1",
        ),
        "kv_view": (
            "quest:page=16,budget=64", "quest:page=16,budget=40,dense=0", "snapkv:budget=64",
            "streaming_llm:window=8", "streaming_llm:window=60,sinks=0", "gemfilter:budget=50",
            "gemfilter:blocks=1,budget=50", "lambda_mask:window=8,rotation=keys", "quest:page=0",
            "deepseek_sparse", "deepseek_sparse:budget=64,heads=2,dim=32", "snapkv",
            "streaming_llm:window=0", "streaming_llm:window=99999", "lambda_mask:window=336",
        ),
        "kv_format": (
            "int4", "kivi:bits=2", "kivi:bits=5", "fp8", "mxfp4", "int8", "int3:group=32",
        ),
        "weight_format": (
            "int4:group=7", "semi_structured:keeps=3,of=2", "unstructured:zeros=0.75", "nvfp4",
            "semi_structured:keeps=1,of=4", "unstructured:zeros=1", "int3:group=64", "fp8",
            "mxfp4", "int8", "int8:group=0",
        ),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for model in ("gqa", "moe", "mla"):
            path = Path(folder) / f"{model}.yaml"
            path.write_text(yaml.safe_dump(card(model).model_dump(mode="json", exclude_none=True)))
            for key, texts in tried.items():
                for text in texts:
                    sets = [f"workload.{key}={text}", f"workload.model={path}", "parallel.tp=1",
                            "workload.layers=1", "workload.batch=2",
                            "workload.outside=true"]  # fmt: skip

                    def work(sets: list[str] = sets) -> str:
                        devices, _ = devices_of(resolve("npu-only", sets))
                        found = devices[0].whole
                        moved = {
                            what: sum(getattr(o, what) for b in found.blocks for o in b.operators)
                            for what in ("weight_bytes", "input_bytes", "output_bytes")
                        }
                        made = f"{len(devices)} steps, {found.tokens} tokens"
                        return f"{made}, {found.flops} FLOPs, {moved}"

                    yield f"{model} {key} {text}: {told(work)}".replace(folder, "")
