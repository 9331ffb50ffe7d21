"""Request groups: which requests a task works for, in the result's tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.result.run_rows import id_ranges
from pimsim.simulate import resolve, simulate


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], ""), ([3], "3"), ([3, 4], "3-4"), ([0, 1, 2, 7, 9, 10], "0-2, 7, 9-10"),
        (list(range(0, 400, 2)), ", ".join(str(at) for at in range(0, 400, 2))),
        (list(range(0, 402, 2)), ", ".join(str(at) for at in range(0, 400, 2)) + ", ..."),
    ],
)  # fmt: skip
def test_ids_are_named_in_ranges(ids: list[int], words: str) -> None:
    assert id_ranges(ids) == words


@pytest.mark.parametrize("halves", [False, True])
def test_groups_are_of_a_sub_batch_and_named_by_the_request(halves: bool, tmp_path: Path) -> None:
    """Of twelve requests, 10 to 21, four feed a prompt beside the others, which decode."""
    prompts, decodes = {10, 11, 14, 15}, {12, 13, 16, 17, 18, 19, 20, 21}
    trace = tmp_path / "requests.csv"
    fed = {each: 20 if each in prompts else 1 for each in sorted(prompts | decodes)}
    rows = [f"{each},0,{60 + each},9,1,{new}" for each, new in fed.items()]
    head = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens"
    trace.write_text("\n".join([head, *rows]) + "\n")
    keys = [
        f"workload.requests={trace}", "workload.model=smollm2-135m", "workload.layers=1",
        "parallel.tp=3", f"schedule.sub_batches={halves}".lower(), "fidelity=fast",
        "memory.organization.channels=4",
    ]  # fmt: skip
    result = simulate(resolve("neupims", keys))

    def named(kind: str) -> dict[int, str]:
        """By (sub-)batch."""
        return {o.part: o.requests for o in result.operators if o.kind == kind}

    tiled, banks = named("attention"), named("attention_score")
    if not halves:
        assert tiled == {0: "10-11, 14-15"} and banks == {0: "12-13, 16-21"}
    else:
        both = set(tiled) & set(banks)
        assert len(both) == 2, "each half has prompts and decodes"
        assert all(tiled[part] and banks[part] for part in both)
        assert ids(tiled) == sorted(prompts) and ids(banks) == sorted(decodes)
    frame = result.table("operators")
    assert list(frame["requests"]) == [o.requests for o in result.operators]
    assert set(named("gemm").values()) == {""}


def ids(groups: dict[int, str]) -> list[int]:
    """All that groups name."""
    found = []
    for words in groups.values():
        for part in words.split(", "):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return sorted(found)
