"""Routing that servers hand out: each layout that vLLM and SGLang have had, and what is wrong."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.routing import load_routing
from pimsim.workload.routing.file import read_routing, write_routing
from pimsim.workload.routing.servers import ImportedRouting, import_routing
from pimsim.workload.routing.shape import MoeShape

Array = NDArray[np.integer]
DENSE_FIRST = MoeShape("moe", layers=4, moe_layers=(1, 2, 3), experts=8, experts_per_token=2)
ALL = MoeShape("moe", layers=3, moe_layers=(0, 1, 2), experts=8, experts_per_token=2)
PROMPT, GENERATED = 5, 4
IDS = list(range(100, 100 + PROMPT + GENERATED))


def routed(tokens: int = PROMPT + GENERATED - 1, seed: int = 0) -> Array:
    """Distinct experts of each token in each of three blocks."""
    random = np.random.default_rng(seed)
    order = random.random((tokens, 3, 8)).argsort(axis=2)
    return order[:, :, :2].astype(np.int64)


def with_dense(experts: Array, fill: int = 0) -> Array:
    """The same over all four blocks, the first of which is dense."""
    dense = np.full((len(experts), 1, experts.shape[2]), fill, dtype=experts.dtype)
    return np.concatenate([dense, experts], axis=1)


def npy(array: Array) -> str:
    """As vLLM's ``numpy2base64`` does."""
    with io.BytesIO() as stream:
        np.save(stream, array, allow_pickle=False)
        return base64.b64encode(stream.getvalue()).decode()


def raw(array: Array, dtype: str = "int32") -> str:
    """As SGLang's detokenizer does."""
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


def imported(tmp_path: Path, value: Any, shape: MoeShape = DENSE_FIRST) -> ImportedRouting:
    path = tmp_path / "answer.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return import_routing([path], shape)


def is_same(found: ImportedRouting, expected: Array) -> bool:
    return np.array_equal(found.trace.chosen, expected.transpose(1, 0, 2))


USAGE = {"prompt_tokens": PROMPT, "completion_tokens": GENERATED}
WHOLE = routed()
KNOWN_IDS = {
    "vllm-0.33": {
        "choices": [
            {
                "routed_experts": npy(with_dense(WHOLE).astype(np.uint8)),
                "token_ids": IDS[PROMPT:],
                "prompt_token_ids": IDS[:PROMPT],
            }
        ],
        "usage": USAGE,
    },
    "vllm-0.21": {
        "choices": [{"routed_experts": WHOLE[PROMPT:].tolist(), "token_ids": IDS[PROMPT:]}],
        "prompt_routed_experts": WHOLE[:PROMPT].tolist(),
        "prompt_token_ids": IDS[:PROMPT],
    },
    "vllm-batch-file": {
        "custom_id": "a",
        "response": {
            "status_code": 200,
            "body": {
                "choices": [{"routed_experts": npy(with_dense(WHOLE)), "token_ids": IDS[PROMPT:]}],
                "prompt_token_ids": IDS[:PROMPT],
            },
        },
    },
    "sglang-openai": {
        "choices": [{"index": 0}],
        "sgl_ext": {
            "routed_experts": raw(with_dense(WHOLE)),
            "input_ids": IDS[:PROMPT],
            "output_ids": [IDS[PROMPT:]],
        },
    },
    "sglang-choice": {
        "choices": [
            {"sgl_ext": {"routed_experts": raw(with_dense(WHOLE))}, "token_ids": IDS[PROMPT:]}
        ],
        "prompt_token_ids": IDS[:PROMPT],
    },
    "sglang-generate": [
        {
            "prompt_token_ids": IDS[:PROMPT],
            "output_ids": IDS[PROMPT:],
            "meta_info": {
                "routed_experts": raw(with_dense(WHOLE, -1)), **USAGE
            },
        }
    ],
    "sglang-uint8": {
        "prompt_token_ids": IDS[:PROMPT],
        "output_ids": IDS[PROMPT:],
        "meta_info": {
            "routed_experts": raw(with_dense(WHOLE), "uint8"), "routed_experts_dtype": "uint8"
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", KNOWN_IDS)
def test_each_layout_of_an_answer_gives_the_experts_ids_and_positions(
    layout: str, tmp_path: Path
) -> None:
    found = imported(tmp_path, KNOWN_IDS[layout])
    assert is_same(found, WHOLE)
    assert found.trace.position.tolist() == list(range(8))
    assert found.trace.token.tolist() == IDS[:8]
    assert found.trace.moe_layers == (1, 2, 3)
    assert (found.trace.layers, found.trace.experts, found.trace.experts_per_token) == (4, 8, 2)
    assert not [note for note in found.notes if "ids" in note]


def test_answers_of_several_requests_are_sequences_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [{"choices": [{"routed_experts": npy(routed(count, count))}]} for count in (3, 1, 6)]
    text = "\n".join(json.dumps(line) for line in lines) + "\n"
    found = imported(tmp_path, text, ALL)
    assert found.trace.sequence.tolist() == [0] * 3 + [1] + [2] * 6
    assert is_same(found, np.concatenate([routed(count, count) for count in (3, 1, 6)]))
    assert "ids of 10 of 10 tokens are not known (-1)" in found.notes
    packed = tmp_path / "answers.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert is_same(import_routing([packed], ALL), found.trace.chosen.transpose(1, 0, 2))


def test_rows_that_a_question_left_out_are_those_at_the_front(tmp_path: Path) -> None:
    """vLLM's routed_experts_prompt_start is not repeated in the answer; its usage tells."""
    answer = {
        "choices": [
            {"routed_experts": npy(routed(6)), "prompt_token_ids": IDS[:5], "token_ids": IDS[5:]}
        ],
        "usage": USAGE,
    }
    found = imported(tmp_path, answer, ALL)
    assert found.trace.position.tolist() == [2, 3, 4, 5, 6, 7]
    assert found.trace.token.tolist() == IDS[2:8]
    told = {"meta_info": {"routed_experts": raw(routed(6)), "routed_experts_start_len": 4}}
    assert imported(tmp_path, told, ALL).trace.position.tolist() == [4, 5, 6, 7, 8, 9]


def test_tokens_without_experts_are_left_out_and_counted(tmp_path: Path) -> None:
    experts = routed(6).copy()
    experts[0] = -1
    experts[3] = 0
    found = imported(tmp_path, {"choices": [{"routed_experts": experts.tolist()}]}, ALL)
    assert found.trace.position.tolist() == [1, 2, 4, 5]
    assert any(note.startswith("2 tokens without experts") for note in found.notes)
    narrow = routed(6).astype(np.uint16)
    narrow[0] = 65535
    found = imported(tmp_path, {"choices": [{"routed_experts": npy(narrow)}]}, ALL)
    assert found.trace.tokens == 5


def test_the_largest_expert_of_256_is_no_mark_of_what_is_unknown(tmp_path: Path) -> None:
    shape = MoeShape("wide", 1, (0,), 256, 2)
    experts = np.array([[[255, 3]], [[4, 255]]], dtype=np.uint8)
    found = imported(tmp_path, {"choices": [{"routed_experts": npy(experts)}]}, shape)
    assert is_same(found, experts)


def test_fused_shared_experts_are_no_choices(tmp_path: Path) -> None:
    fused = np.concatenate([routed(4), np.full((4, 3, 1), 8)], axis=2)
    found = imported(tmp_path, {"choices": [{"routed_experts": npy(fused)}]}, ALL)
    assert is_same(found, routed(4))
    assert "1 shared experts that the server routes along are left out" in found.notes


def test_arrays_that_people_keep(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", routed(6))
    assert is_same(import_routing([tmp_path / "one.npy"], ALL), routed(6))
    np.save(tmp_path / "blocks_first.npy", routed(6).transpose(1, 0, 2))
    found = import_routing([tmp_path / "blocks_first.npy"], ALL)
    assert is_same(found, routed(6))
    assert "axes are blocks, tokens, choices" in found.notes
    np.save(tmp_path / "flat.npy", routed(6).reshape(6, -1))
    assert is_same(import_routing([tmp_path / "flat.npy"], ALL), routed(6))
    np.save(tmp_path / "several.npy", np.stack([routed(6), routed(6, 1)]))
    found = import_routing([tmp_path / "several.npy"], ALL)
    assert found.trace.sequence.tolist() == [0] * 6 + [1] * 6
    np.savez(tmp_path / "a.npz", first=routed(2), second=routed(3, 1))
    found = import_routing([tmp_path / "a.npz"], ALL)
    assert found.trace.sequence.tolist() == [0, 0, 1, 1, 1]
    np.savez_compressed(
        tmp_path / "b.npz", prompt_routed_experts=WHOLE[:5], routed_experts=WHOLE[5:], token_ids=IDS
    )
    found = import_routing([tmp_path / "b.npz"], ALL)
    assert is_same(found, WHOLE)
    assert found.trace.token.tolist() == IDS[:8]


def save(path: Path, value: Any) -> Path:
    torch = pytest.importorskip("torch")

    def tensors(each: Any) -> Any:
        if isinstance(each, np.ndarray):
            return torch.from_numpy(each)
        if isinstance(each, dict):
            return {key: tensors(inner) for key, inner in each.items()}
        return [tensors(inner) for inner in each] if isinstance(each, list) else each

    torch.save(tensors(value), path)
    return path


def test_the_recorder_of_tokens(tmp_path: Path) -> None:
    """Two requests of 3 and 2 tokens in a prefill, one decode step; 8 places a token; experts by
    copies, of which 8 and 9 are those of 0 and 5."""
    layers = with_dense(routed(5), -1).transpose(1, 0, 2)
    padded = np.full((4, 5, 8), -1)
    padded[:, :, :2] = np.where(layers == 5, 9, layers)
    step = np.full((4, 2, 8), -1)
    step[1:, :, :2] = routed(2, 7).transpose(1, 0, 2)
    table = np.tile(np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 5]), (4, 1))
    one = {"forward_pass_id": 1, "rank": 0, "gatherer_key": "primary", "misc_objects": []}
    path = save(
        tmp_path / "recorder.pt",
        {
            "records": [
                one
                | {
                    "input_ids": [9, 8, 7, 6, 5], "positions": [0, 1, 2, 4, 5],
                    "extend_seq_lens": [3, 2], "forward_mode": 1,
                    "topk_ids_of_layer": padded.astype(np.int32),
                },
                one
                | {
                    "input_ids": [4, 3], "positions": [3, 6], "extend_seq_lens": None,
                    "forward_mode": 2, "topk_ids_of_layer": step.astype(np.int32),
                },
            ],
            "last_physical_to_logical_map": table,
        },
    )  # fmt: skip
    found = import_routing([path], DENSE_FIRST)
    assert is_same(found, np.concatenate([routed(5), routed(2, 7)]))
    assert found.trace.sequence.tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert found.trace.position.tolist() == [0, 1, 2, 4, 5, 3, 6]
    assert found.trace.token.tolist() == [9, 8, 7, 6, 5, 4, 3]
    assert any("does not tell requests apart" in note for note in found.notes)


def test_a_recorder_may_know_neither_tokens_nor_positions(tmp_path: Path) -> None:
    layers = with_dense(routed(4), -1).transpose(1, 0, 2)
    one = {"forward_pass_id": 1, "rank": 0, "gatherer_key": "primary", "misc_objects": []}
    record = one | {
        "input_ids": None, "positions": None, "extend_seq_lens": [4], "forward_mode": 1,
        "topk_ids_of_layer": layers.astype(np.int32),
    }  # fmt: skip
    table = np.tile(np.arange(8), (4, 1))
    path = save(
        tmp_path / "recorder.pt", {"records": [record], "last_physical_to_logical_map": table}
    )
    assert is_same(import_routing([path], DENSE_FIRST), routed(4))


def test_the_recorder_of_counts_deals_tokens_with_these_counts(tmp_path: Path) -> None:
    counts = np.zeros((2, 4, 8), dtype=np.int32)
    for step, tokens in enumerate((50, 9)):
        for block in range(3):
            chosen = routed(tokens, step)[:, block].ravel()
            counts[step, block + 1] = np.bincount(chosen, minlength=8)
    path = save(tmp_path / "r.pt", {"rank": 0, "logical_count": counts})
    found = import_routing([path], DENSE_FIRST)
    assert found.trace.tokens == 59
    for block in range(3):
        for step in range(2):
            rows = found.trace.chosen[block][found.trace.sequence == step]
            assert np.array_equal(np.bincount(rows.ravel(), minlength=8), counts[step, block + 1])
            assert (rows[:, 0] != rows[:, 1]).all()
    assert any("only counts were recorded" in note for note in found.notes)
    counts[0, 1, 0] += 1
    with pytest.raises(InputError, match="no tokens of 2 choices each"):
        import_routing([save(tmp_path / "r.pt", {"logical_count": counts})], DENSE_FIRST)


OTHER_MODELS = [
    (routed(4), MoeShape("x", 5, tuple(range(5)), 8, 2), "3 blocks", "has 5 blocks"),
    (routed(4), MoeShape("x", 3, (0, 1, 2), 8, 4), "2 experts a token", "takes 4"),
    (np.full((4, 3, 2), 7) - [0, 2], MoeShape("x", 3, (0, 1, 2), 6, 2), "expert 7", "0 to 5"),
    (routed(6)[:, :2], DENSE_FIRST, "2 blocks", "4 blocks (layers), 3 of them with experts"),
    (with_dense(routed(4))[:, [1, 0, 2, 3]], DENSE_FIRST, "block 0 has experts", "it is dense"),
    (np.ones((4, 3, 2), dtype=np.int64), ALL, "token 0", "one expert twice"),
    (routed(4).reshape(4, 6)[:, :5], ALL, "rows of 5 experts", "3 blocks (layers) of 2 choices"),
    (routed(4).ravel()[:5], ALL, "5 numbers are no whole number of tokens", "2 choices"),
    (routed(4), MoeShape("dense", 3, (), 0, 0), "model dense has no experts", ""),
]


@pytest.mark.parametrize(("array", "shape", "first", "second"), OTHER_MODELS)
def test_another_models_array_says_which_number_differs(
    array: Array, shape: MoeShape, first: str, second: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError) as caught:
        import_routing([tmp_path / "a.npy"], shape)
    assert first in str(caught.value)
    assert second in str(caught.value)


WRONG = {
    "no JSON": ("{", "no JSON"),
    "second line": ('{"choices": []}\n{', "no JSON: line 2"),
    "deep": ("[" * 100_000, "nested too deep"),
    "no experts": ('{"choices": [{"text": "a"}]}', "--enable-return-routed-experts"),
    "no base64": ('{"choices": [{"routed_experts": "%%%"}]}', "no base64 text"),
    "cut": (
        json.dumps({"choices": [{"routed_experts": npy(WHOLE)[:120]}]}), "a damaged .npy array"
    ),
    "odd bytes": ('{"meta_info": {"routed_experts": "AAA="}}', "no whole number of int32"),
    "dtype": (
        '{"meta_info": {"routed_experts": "AAAA", "routed_experts_dtype": "f4"}}', "known: int32"
    ),
    "ragged": ('{"choices": [{"routed_experts": [[[1, 2]], [[1]]]}]}', "equally long"),
    "floats": ('{"choices": [{"routed_experts": [[[1.5, 2]]]}]}', "equally long"),
    "huge": ('{"choices": [{"routed_experts": [[[1, 99999999999999999999999]]]}]}', "equally"),
    "number": ('{"choices": [{"routed_experts": 7}]}', "neither lists nor base64"),
    "start": (
        json.dumps(
            {"meta_info": {"routed_experts": raw(WHOLE), "routed_experts_start_len": -1}}
        ),
        "no position",
    ),
    "unwritten": (
        json.dumps({"choices": [{"routed_experts": npy(WHOLE * 0)}]}), "no token has experts"
    ),
    "empty": ("", "no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_is_one_line(kind: str, tmp_path: Path) -> None:
    text, expected = WRONG[kind]
    with pytest.raises(InputError) as caught:
        imported(tmp_path, text, ALL)
    assert expected in str(caught.value)
    assert "answer.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x93NUMPY\x01\x00", "a damaged .npy array"),
        (b"PK\x03\x04rubbish", "a damaged archive"),
        (b"\x1f\x8brubbish", "damaged gzip data"),
        (b"PAR1", "need no import"),
        (b"\xff\xfe\xff", "neither JSON"),
    ],
)
def test_a_damaged_file_is_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        import_routing([tmp_path / "f"], ALL)
    with pytest.raises(InputError, match="no such file"):
        import_routing([tmp_path / "none"], ALL)
    with pytest.raises(InputError, match="is a directory"):
        import_routing([tmp_path], ALL)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        import_routing([tmp_path / "o.npy"], ALL)


def test_a_run_takes_a_servers_file_directly_and_what_was_written_reads_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(KNOWN_IDS["vllm-0.33"]))
    found = import_routing([path], DENSE_FIRST)
    write_routing(found.trace, tmp_path / "t.routing.parquet")
    back = read_routing(tmp_path / "t.routing.parquet")
    assert np.array_equal(back.chosen, found.trace.chosen)
    direct = load_routing(str(path), DENSE_FIRST, seed=3)
    written = load_routing(str(tmp_path / "t.routing.parquet"), DENSE_FIRST, seed=3)
    for layer in (1, 2, 3):
        assert np.array_equal(direct.assignments(layer, 20), written.assignments(layer, 20))


def test_choices_of_one_answer_have_their_own_experts_and_ids(tmp_path: Path) -> None:
    """SGLang's extension of the answer is the first choice's, its ids are listed by choice; usage
    counts both choices, so it tells no position."""
    answer = {
        "choices": [{"index": 0}, {"index": 1, "sgl_ext": {"routed_experts": raw(routed(7, 1))}}],
        "sgl_ext": {
            "routed_experts": raw(routed(6)), "input_ids": IDS[:PROMPT],
            "output_ids": [[1, 2], [3, 4, 5]],
        },
        "usage": {"prompt_tokens": PROMPT, "completion_tokens": 5},
    }  # fmt: skip
    found = imported(tmp_path, answer, ALL)
    assert is_same(found, np.concatenate([routed(6), routed(7, 1)]))
    assert found.trace.sequence.tolist() == [0] * 6 + [1] * 7
    assert found.trace.position.tolist() == [*range(6), *range(7)]
    assert found.trace.token.tolist() == [*IDS[:PROMPT], 1, *IDS[:PROMPT], 3, 4]
    del answer["choices"][1]["sgl_ext"]  # type: ignore[attr-defined]
    assert is_same(imported(tmp_path, answer, ALL), routed(6))


def test_a_flat_buffer_that_both_numbers_of_blocks_divide_has_all_blocks(tmp_path: Path) -> None:
    """Three tokens of four blocks are as many numbers as four of the three with experts."""
    answer = {"meta_info": {"routed_experts": raw(with_dense(routed(3)))}}
    assert is_same(imported(tmp_path, answer), routed(3))


def test_a_token_that_one_block_does_not_know_is_left_out(tmp_path: Path) -> None:
    experts = routed(4).copy()
    experts[1, 2] = -1
    found = imported(tmp_path, {"choices": [{"routed_experts": experts.tolist()}]}, ALL)
    assert is_same(found, routed(4)[[0, 2, 3]])
    assert found.trace.position.tolist() == [0, 2, 3]


def test_the_largest_value_is_a_mark_where_it_is_no_expert(tmp_path: Path) -> None:
    """Of 255 experts the last one is 254."""
    experts = np.array([[[254, 3]], [[255, 255]], [[4, 254]]], dtype=np.uint8)
    answer = {"choices": [{"routed_experts": npy(experts)}]}
    found = imported(tmp_path, answer, MoeShape("wide", 1, (0,), 255, 2))
    assert is_same(found, experts[[0, 2]])


def test_one_choice_of_expert_0_everywhere_is_known(tmp_path: Path) -> None:
    """Zeros are a buffer's first state only where a token takes two experts or more."""
    answer = {"choices": [{"routed_experts": [[[0], [0]], [[0], [3]]]}]}
    found = imported(tmp_path, answer, MoeShape("top 1", 2, (0, 1), 8, 1))
    assert found.trace.chosen.tolist() == [[[0], [0]], [[0], [3]]]


def test_copies_of_experts_are_those_of_their_block(tmp_path: Path) -> None:
    """In block b, 8 and 9 are copies of experts b - 1 and b; what is beyond the choices is padding
    and no shared expert."""
    table = np.stack([[*range(8), block - 1, block] for block in range(4)])
    chosen = np.full((4, 2, 8), -1)
    chosen[1:, :, :2] = [[[8, 7], [9, 6]]] * 3
    one = {
        "input_ids": [5, 6], "positions": [0, 1], "extend_seq_lens": [2],
        "topk_ids_of_layer": chosen.astype(np.int32),
    }  # fmt: skip
    path = save(
        tmp_path / "r.pt", {"records": [one], "last_physical_to_logical_map": table.clip(0)}
    )
    found = import_routing([path], DENSE_FIRST)
    assert found.trace.chosen.tolist() == [
        [[0, 7], [1, 6]], [[1, 7], [2, 6]], [[2, 7], [3, 6]],
    ]  # fmt: skip
    assert not [note for note in found.notes if "shared" in note]


@pytest.mark.parametrize(
    ("said", "places"),
    [
        ({"tokens_fed": 7}, [3, 4, 5, 6]),
        ({"tokens_fed": 3}, [0, 1, 2, 3]),
        ({"first_position": 2, "tokens_fed": 7}, [2, 3, 4, 5]),
        ({"first_position": 6}, [6, 7, 8, 9]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_rows_of_a_record_are_of_the_last_tokens_that_were_fed(
    said: dict[str, int], places: list[int]
) -> None:
    """Four rows; ids 10 to 17 are known of positions 0 to 7."""
    from types import SimpleNamespace

    from pimsim.workload.routing.servers.recorded import _places

    nothing = {"positions": None, "first_position": None, "tokens_fed": None}
    record: Any = SimpleNamespace(tokens=np.arange(10, 18), **nothing | said)
    found, ids = _places(record, 4)
    assert found.tolist() == places
    assert ids.tolist() == [10 + at if at < 8 else -1 for at in places]
