"""The steps of a run, by hand: what each request is fed in which step, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pimsim.config.errors import InputError
from pimsim.simulate import resolve
from pimsim.workload.requests import Request, load_requests
from pimsim.workload.run_steps import run_steps, step_at_end
from pimsim.workload.step import Step

REQUESTS = (
    Request(0, 0.0, 5, 20, 2),
    Request(1, 0.0, 3, 20, 0, new_tokens=3),
    Request(2, 0.0, 8, 20, 1, new_tokens=4),
)


def steps(*requests: Request, **workload: Any) -> tuple[Step, ...]:
    config = resolve(
        "npu-only", [f"workload.{key}={value}" for key, value in workload.items()]
    ).config.workload  # fmt: skip
    return run_steps(requests or REQUESTS, config)


def shown(found: tuple[Step, ...]) -> list[list[tuple[int, int, int, int]]]:
    """By step and entry: request, new tokens, context, rows of logits."""
    return [[(e.request.id, e.new_tokens, e.context, e.logits) for e in s.entries] for s in found]


def test_a_run_is_a_decode_step_unless_asked_otherwise() -> None:
    decode = REQUESTS[:1]
    assert steps(*decode) == (Step.decode(decode),)


def test_a_column_of_new_tokens_says_it_by_request() -> None:
    assert shown(steps()) == [[(0, 1, 7, 1), (1, 3, 3, 1), (2, 4, 9, 1)]]


def test_prompts_are_fed_whole_or_in_pieces() -> None:
    requests = (Request(0, 0.0, 5, 20, 2), Request(1, 0.0, 3, 20, 0))
    assert steps(*requests, phase="prefill") == (Step.prefill(requests),)
    assert shown(steps(*requests, phase="prefill", chunk=2)) == [
        [(0, 2, 2, 0), (1, 2, 2, 0)],
        [(0, 2, 4, 0), (1, 1, 3, 1)],
        [(0, 1, 5, 1)],
    ]


def test_with_steps_a_request_that_is_fed_goes_on() -> None:
    assert shown(steps(chunk=3, steps=3)) == [
        [(0, 1, 7, 1), (1, 3, 3, 1), (2, 3, 8, 0)],
        [(0, 1, 8, 1), (1, 1, 4, 1), (2, 1, 9, 1)],
        [(0, 1, 9, 1), (1, 1, 5, 1), (2, 1, 10, 1)],
    ]


def test_fewer_steps_than_a_prompt_takes_feed_a_part_of_it() -> None:
    request = Request(0, 0.0, 9, 20, 0)
    found = steps(request, phase="prefill", chunk=4, steps=2)
    assert shown(found) == [[(0, 4, 4, 0)], [(0, 4, 8, 0)]]
    assert sum(step.made for step in found) == 0


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 13])
def test_pieces_add_up_to_the_prompt(chunk: int) -> None:
    request = Request(0, 0.0, 13, 20, 0)
    found = steps(request, phase="prefill", chunk=chunk)
    assert len(found) == -(-13 // chunk)
    assert sum(step.tokens for step in found) == 13
    assert [step.made for step in found] == [0] * (len(found) - 1) + [1]
    assert found[-1].contexts == (13,)


def test_memory_must_hold_the_longest_context_of_each_request() -> None:
    held = step_at_end(steps(chunk=3, steps=3))
    assert held.contexts == (9, 5, 10)
    assert held.new_tokens == (1, 1, 1)


def test_new_tokens_are_read_from_a_request_file(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    head = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"
    file.write_text(f"{head}0,0,8,4,1,9\n1,0,8,4,1,\n")
    assert [r.new_tokens for r in load_requests(file).requests] == [9, None]
    for cell, said in (
        ("10", r"r.csv:2: new_tokens is '10'; at most prompt_tokens \+ generated_tokens \(9\)"),
        ("0", r"r.csv:2: new_tokens is '0'; an integer from 1"),
        ("x", r"r.csv:2: new_tokens is 'x'"),
    ):
        file.write_text(f"{head}0,0,8,4,1,{cell}\n")
        with pytest.raises(InputError, match=said):
            load_requests(file)


@pytest.mark.parametrize("key", ["chunk", "steps"])
def test_none_of_something_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"workload.{key}"):
        resolve("npu-only", [f"workload.{key}=0"])
