"""Services by hand: small cases of each scheduler, router, pipeline and step time; gaps, SLOs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.config.service import SloConfig
from pimsim.result.service import build_service_result
from pimsim.serving.ending import Speculation, accepted_drafts
from pimsim.serving.gaps import gap_percentile, mean_gap_ps, new_gaps, note_gap
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import Batch, Scheduler, load_scheduler
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_log import INTERVALS, StepLog
from pimsim.serving.step_times.linear import Linear
from pimsim.serving.step_times.profile import load_profile
from pimsim.workload.traffic import NOBODY, PrefixBlocks, Traffic

PS_PER_US = 10**6
Shape = tuple[int, int, int]
"""Arrival in microseconds, prompt, output."""


class Steps:
    """Entries of each step as ``{request: new tokens}``."""

    def __init__(self) -> None:
        self.found: list[dict[int, int]] = []
        self.times: list[tuple[int, int, int]] = []

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        rows = batch.entries[: batch.requests]
        self.found.append(dict(zip(rows["request"].tolist(), rows["new"].tolist(), strict=True)))
        self.times.append((replica, batch.start_ps // PS_PER_US, batch.end_ps // PS_PER_US))


def serve(
    name: str, asked: list[Shape], blocks: int = 1000, block_tokens: int = 4, replicas: int = 1,
    stages: int = 1, router: str = "round_robin", speculation: Speculation | None = None,
    prefixes: list[list[int]] | None = None, follows: dict[int, tuple[int, int]] | None = None,
    priority: list[int] | None = None, step: Any = None, until_us: int | None = None,
    **settings: Any,
) -> tuple[Service, Steps]:  # fmt: skip
    """Serve requests; a step takes 10 us and 1 us a token unless ``step`` says otherwise."""
    kind = load_scheduler(name)
    columns = np.array(asked, dtype=np.int64)
    more: dict[str, Any] = {}
    if prefixes is not None:
        counts = np.array([len(each) for each in prefixes])
        numbers = np.array([one for each in prefixes for one in each], dtype=np.int32)
        more["prefixes"] = PrefixBlocks(block_tokens, numbers, np.cumsum(counts) - counts, counts)
    if follows is not None:
        pairs = [follows.get(row, (NOBODY, 0)) for row in range(len(asked))]
        more["follows"] = np.array([before for before, _ in pairs])
        more["pause_ps"] = np.array([pause * PS_PER_US for _, pause in pairs])
    if priority is not None:
        more["priority"] = np.array(priority)
    traffic = Traffic(columns[:, 0] * PS_PER_US, columns[:, 1], columns[:, 2], **more)
    fleet = Fleet(
        kind, kind.Settings(name=name, **settings), step or Linear(10, 1), blocks, block_tokens,
        load_router(router), replicas, stages, speculation or Speculation(),
    )  # fmt: skip
    service, steps = Service(traffic, fleet), Steps()
    service.run([steps], None if until_us is None else until_us * PS_PER_US)
    return service, steps


def times(service: Service, column: str) -> list[int]:
    return (service.requests[column] // PS_PER_US).tolist()


def test_vllm_feeds_decodes_first_and_prompts_in_pieces_beside_them() -> None:
    _, steps = serve("vllm", [(0, 6, 3), (1, 20, 2)], max_num_batched_tokens=8)
    assert steps.found == [{0: 6}, {0: 1, 1: 7}, {0: 1, 1: 7}, {1: 6}, {1: 1}]


def test_vllm_puts_the_last_out_and_lets_him_in_first_again() -> None:
    """Ten usable blocks of four: both prompts take four, the first needs the tenth at 28 tokens."""
    service, steps = serve("vllm", [(0, 16, 20), (0, 16, 20)], blocks=11, max_num_batched_tokens=64)
    assert service.requests["preemptions"].tolist() == [0, 1]
    # each has 20 tokens in five blocks when the first asks for a sixth
    assert service.requests["recomputed"].tolist() == [0, 20]
    again = next(at for at, step in enumerate(steps.found) if at > 0 and step.get(1, 0) > 1)
    assert steps.found[again][1] == 16 + 5  # all that it knows, of which the last was never fed


def test_vllm_shares_the_blocks_that_prompts_begin_with() -> None:
    service, steps = serve(
        "vllm", [(0, 10, 1), (100, 10, 1), (200, 8, 1)], prefixes=[[0, 1], [0, 1], [0, 1]],
        prefix_caching=True,
    )  # fmt: skip
    # two full blocks of ten tokens; of eight, one, since a token is always fed
    assert service.requests["cached"].tolist() == [0, 8, 4]
    assert steps.found == [{0: 10}, {1: 2}, {2: 4}]


def test_blocks_that_are_taken_anew_are_found_no_longer() -> None:
    """Six usable blocks: the first prompt's two are free but known until the second takes all."""
    asked = [(0, 8, 1), (100, 24, 1), (200, 9, 1)]
    service, _ = serve("vllm", asked, blocks=7, prefixes=[[0, 1], [], [0, 1]], prefix_caching=True)
    assert service.requests["cached"].tolist() == [0, 0, 0]
    service, _ = serve(
        "vllm", asked, blocks=9, prefixes=[[0, 1], [], [0, 1]], prefix_caching=True
    )  # the last of a prompt is lost before its first
    assert service.requests["cached"].tolist() == [0, 0, 8]


def test_the_end_of_a_prompt_is_lost_before_its_beginning() -> None:
    asked = [(0, 8, 1), (100, 20, 1), (200, 9, 1)]
    service, _ = serve("vllm", asked, blocks=7, prefixes=[[0, 1], [], [0, 1]], prefix_caching=True)
    assert service.requests["cached"].tolist() == [0, 0, 4]


def test_priority_serves_the_smaller_number_first() -> None:
    service, _ = serve(
        "vllm", [(0, 5, 9), (1, 5, 1), (2, 5, 1)], priority=[0, 2, 1], policy="priority",
        max_num_seqs=1,
    )  # fmt: skip
    ends = times(service, "finish_ps")
    assert ends[0] < ends[2] < ends[1]


def test_drafts_that_are_right_come_at_once() -> None:
    service, steps = serve("vllm", [(0, 4, 7)], speculation=Speculation(2, 1))
    # one token, then two a step (one accepted of two): 1 + 2 + 2 + 2
    assert steps.found == [{0: 4}, {0: 3}, {0: 3}, {0: 3}]
    one = service.requests[0]
    assert (one["verifications"], one["accepted"], one["rejected"]) == (3, 3, 3)
    assert service.gaps[-1] == 6  # of seven tokens, those that come together with no time between
    assert gap_percentile(service.gaps, 0.5) == pytest.approx(6_500_000, rel=5e-4)


def test_drafts_accepted_with_a_probability() -> None:
    rules = Speculation(4, 0.7, seed=3).rules[0]
    found = [accepted_drafts(rules, 5, at, 4) for at in range(1, 20_001)]
    shares = np.bincount(found, minlength=5) / len(found)
    wanted = [0.3, 0.7 * 0.3, 0.49 * 0.3, 0.343 * 0.3, 0.7**4]
    assert shares.tolist() == pytest.approx(wanted, abs=0.012)
    assert found[:50] == [accepted_drafts(rules, 5, at, 4) for at in range(1, 51)]
    assert found[:50] != [accepted_drafts(rules, 6, at, 4) for at in range(1, 51)]


def test_v0_feeds_new_prompts_alone() -> None:
    _, steps = serve("vllm_v0", [(0, 6, 3), (1, 5, 2)], watermark=0.0)
    assert steps.found == [{0: 6}, {1: 5}, {0: 1, 1: 1}, {0: 1}]


def test_v0_pads_prompts_to_the_longest() -> None:
    asked = [(0, 2, 1), (0, 9, 1), (0, 2, 1)]
    _, steps = serve("vllm_v0", asked, watermark=0.0, max_tokens_in_batch=18)
    assert steps.found == [{0: 2, 1: 9}, {2: 2}]
    _, steps = serve("vllm_v0", asked, watermark=0.0, max_tokens_in_batch=27)
    assert steps.found == [{0: 2, 1: 9, 2: 2}]


def test_a_watermark_keeps_blocks_free() -> None:
    asked = [(0, 16, 1), (0, 16, 1)]
    _, steps = serve("vllm_v0", asked, blocks=8, watermark=0.0)
    assert steps.found == [{0: 16, 1: 16}]
    _, steps = serve("vllm_v0", asked, blocks=8, watermark=0.125)
    assert steps.found == [{0: 16}, {1: 16}]


def test_sarathi_fills_a_step_up_to_its_chunk() -> None:
    _, steps = serve("sarathi", [(0, 6, 3), (1, 20, 2)], chunk=8, watermark=0.0)
    assert steps.found == [{0: 6}, {0: 1, 1: 7}, {0: 1, 1: 7}, {1: 6}, {1: 1}]


def test_orca_reserves_the_longest_for_each() -> None:
    asked = [(0, 4, 2), (0, 4, 2), (0, 4, 2)]
    _, steps = serve("orca", asked, blocks=8, max_tokens=16)
    assert steps.found == [{0: 4, 1: 4}, {0: 1, 1: 1}, {2: 4}, {2: 1}]


def test_orca_holds_a_block_that_the_longest_fills_in_part() -> None:
    """Of blocks of 4 tokens five for 17; Vidur's holds four, and one of 17 feeds 16."""
    asked = [(0, 4, 2), (0, 4, 2)]
    _, steps = serve("orca", asked, blocks=9, max_tokens=17)
    assert steps.found == [{0: 4}, {0: 1}, {1: 4}, {1: 1}]
    _, steps = serve("vidur_orca", asked, blocks=9, max_tokens=17)
    assert steps.found == [{0: 4, 1: 4}, {0: 1, 1: 1}]
    serve("vidur_orca", [(0, 4, 13)], blocks=9, max_tokens=18)
    with pytest.raises(InputError, match=r"max_tokens is 18: blocks of 4 tokens hold 16 of each"):
        serve("vidur_orca", [(0, 4, 14)], blocks=9, max_tokens=18)


def test_lightllm_waits_some_steps_with_prompts() -> None:
    _, steps = serve("lightllm", [(0, 4, 6), (1, 4, 1)], block_tokens=1, max_waiting_iters=2)
    assert steps.found == [{0: 4}, {0: 1}, {0: 1}, {1: 4}, {0: 1}, {0: 1}, {0: 1}]


def test_lightllm_admits_by_the_most_that_all_will_hold() -> None:
    """Two of 4 + 6: 5 + 5 held when both are admitted, and four more each: 18 at most."""
    asked = [(0, 4, 6), (0, 4, 6)]
    _, steps = serve("lightllm", asked, blocks=19, block_tokens=1)
    assert steps.found[0] == {0: 4, 1: 4}
    _, steps = serve("lightllm", asked, blocks=18, block_tokens=1)
    assert steps.found[0] == {0: 4}


def test_static_lets_nobody_join() -> None:
    _, steps = serve("static", [(0, 4, 3), (0, 5, 1), (1, 6, 1)])
    assert steps.found == [{0: 4, 1: 5}, {0: 1}, {0: 1}, {2: 6}]


def test_micro_batches_follow_one_another_through_the_stages() -> None:
    """Of four slots two a step; each of two stages takes a step's time."""
    service, steps = serve("sarathi", [(0, 10, 2)] * 4, stages=2, batch_cap=4, watermark=0.0)
    assert steps.found == [{0: 10, 1: 10}, {2: 10, 3: 10}, {0: 1, 1: 1}, {2: 1, 3: 1}]
    # 30 us a prompt step, 12 us a step of two tokens; the second waits for the first stage
    assert steps.times == [(0, 0, 60), (0, 0, 90), (0, 60, 102), (0, 90, 114)]
    assert times(service, "finish_ps") == [102, 102, 114, 114]


def test_vllm_in_a_pipeline_has_a_request_in_one_step_at_a_time() -> None:
    _, steps = serve("vllm", [(0, 4, 3), (1, 4, 3)], stages=2)
    assert steps.found == [{0: 4}, {1: 4}, {0: 1}, {1: 1}, {0: 1}, {1: 1}]


def test_routers_by_hand() -> None:
    asked = [(at, 5, 40) for at in range(6)]
    turns, _ = serve("vllm", asked, replicas=3)
    assert turns.requests["replica"].tolist() == [0, 1, 2, 0, 1, 2]
    # the first of each replica runs at once and waits nowhere; the next one finds no shorter queue
    fewest, _ = serve("vllm", asked, replicas=3, router="lor")
    assert fewest.requests["replica"].tolist() == [0, 0, 1, 1, 2, 2]
    counted, _ = serve("vllm", [*asked, (500, 5, 1)], replicas=3, router="least_outstanding")
    assert counted.requests["replica"].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_prompt_goes_where_its_beginning_is() -> None:
    asked = [(0, 12, 1), (1, 12, 1), (200, 12, 1), (300, 12, 1), (400, 12, 1)]
    prefixes = [[0, 1], [5, 6], [5, 7], [0, 1], [5, 6]]
    service, _ = serve(
        "vllm", asked, replicas=3, router="prefix_aware", prefixes=prefixes, prefix_caching=True
    )
    assert service.requests["replica"].tolist() == [0, 1, 1, 0, 1]
    assert service.requests["cached"].tolist() == [0, 0, 4, 8, 8]
    with pytest.raises(InputError, match="needs scheduler vllm with prefix_caching true"):
        serve("vllm", asked, replicas=3, router="prefix_aware", prefixes=prefixes)


@pytest.mark.parametrize("router", module_names("router"))
def test_every_router_leaves_no_replica_idle_under_a_crowd(router: str) -> None:
    asked = [(at, 40, 20) for at in range(40)]
    service, _ = serve("vllm", asked, replicas=4, router=router, prefix_caching=True)
    assert service.finished == 40
    assert set(service.requests["replica"]) == {0, 1, 2, 3}


def test_a_call_comes_when_the_one_before_has_ended_and_its_tool_too() -> None:
    service, _ = serve("vllm", [(5, 10, 1), (0, 10, 1), (0, 10, 1)], follows={1: (0, 7), 2: (1, 0)})
    assert times(service, "arrival_ps") == [5, 5 + 20 + 7, 5 + 20 + 7 + 20]
    assert times(service, "finish_ps") == [25, 52, 72]


def test_a_request_that_fits_no_step_is_named_not_waited_for() -> None:
    with pytest.raises(InputError, match=r"request 1 waits for ever: its 4\d tokens"):
        serve(
            "vllm", [(0, 20, 30), (0, 40, 30)], blocks=20, max_num_batched_tokens=44,
            chunked_prefill=False,
        )  # fmt: skip


PROFILE = {
    "dense.csv": "layer,tokens,time_us\nembedding,1,1\nembedding,11,2\nlayernorm,1,3\n"
    "layernorm,11,3\nmlp,1,10\nmlp,11,30\n",
    "per_sequence.csv": "layer,sequences,time_us\nlm_head,1,100\nlm_head,4,100\n",
    "attention.csv": "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
    "0,0,1,8,4\n0,0,1,16,8\n0,0,4,8,16\n0,0,4,16,32\n"
    "8,0,0,0,20\n8,16,0,0,36\n8,0,1,8,24\n8,16,1,8,40\n8,0,1,16,28\n8,16,1,16,44\n",
}  # fmt: skip


def _profile(tmp_path: Path, **changed: str) -> Any:
    for name, text in {**PROFILE, **changed}.items():
        (tmp_path / name).write_text(text)
    return load_profile(tmp_path, 2)


def test_a_profile_by_hand(tmp_path: Path) -> None:
    profile = _profile(tmp_path)
    service, steps = serve("vllm", [(0, 6, 3)], step=profile)
    # 6 tokens: 1.5 once, norms twice a block of two, mlp of 20 in each; attention of 6 of 8 tokens
    prompt = 1_500_000 + 4 * 3_000_000 + 2 * 20_000_000 + 100_000_000 + 2 * 15_000_000
    # one token at a context of 7, measured from 8 on, and then of 8
    decode = 1_000_000 + 4 * 3_000_000 + 2 * 10_000_000 + 100_000_000 + 2 * 4_000_000
    assert service.requests["first_token_ps"][0] == prompt
    assert service.requests["finish_ps"][0] == prompt + 2 * decode
    assert len(steps.found) == 3


def test_a_piece_beside_more_than_were_measured_with_one_adds_what_it_adds(tmp_path: Path) -> None:
    profile = _profile(tmp_path)
    assert profile.beside == 1
    three = [(0, 1, 9)] * 3
    _, steps = serve("vllm", [*three, (1, 8, 1)], step=profile, max_num_batched_tokens=11)
    assert steps.found[1] == {0: 1, 1: 1, 2: 1, 3: 8}
    with pytest.raises(InputError, match=r"dense.csv: a step has 12 tokens; .* up to 11"):
        serve("vllm", [(0, 12, 1)], step=profile)
    with pytest.raises(InputError, match=r"attention.csv: a step has 9 tokens of prompts"):
        serve("vllm", [(0, 9, 1)], step=profile)
    with pytest.raises(InputError, match=r"attention.csv: a step has 17 tokens of mean context"):
        serve("vllm", [(0, 8, 20)], step=profile)
    with pytest.raises(InputError, match=r"per_sequence.csv: a step has 5 requests"):
        serve("vllm", [(0, 1, 2)] * 5, step=profile)


def test_a_profile_must_have_its_whole_grid(tmp_path: Path) -> None:
    text = PROFILE["attention.csv"].replace("8,16,1,8,40\n", "")
    with pytest.raises(InputError, match="no line for prefill_chunk 8, kv_prefill 16, n_decode 1"):
        _profile(tmp_path, **{"attention.csv": text})
    with pytest.raises(InputError, match=r"dense.csv:1: column 'tokens' is missing"):
        _profile(tmp_path, **{"dense.csv": "layer,token,time_us\na,1,1\n"})
    with pytest.raises(InputError, match=r"dense.csv:2: time_us is 'x'"):
        _profile(tmp_path, **{"dense.csv": "layer,tokens,time_us\na,1,x\n"})


def test_a_profile_of_prompts_alone_serves_one_token_each(tmp_path: Path) -> None:
    header, *lines = PROFILE["attention.csv"].splitlines(keepends=True)
    prompts = [line for line in lines if line.split(",")[2] == "0"]
    profile = _profile(tmp_path, **{"attention.csv": "".join([header, *prompts])})
    service, _ = serve("vllm", [(0, 6, 1)], step=profile)
    prompt = 1_500_000 + 4 * 3_000_000 + 2 * 20_000_000 + 100_000_000 + 2 * 15_000_000
    assert service.requests["finish_ps"][0] == prompt
    with pytest.raises(InputError, match=r"attention.csv: a step has 1 requests that decode"):
        serve("vllm", [(0, 6, 2)], step=profile)


@pytest.mark.parametrize(("table", "line"), [("dense.csv", 5), ("attention.csv", 3)])
def test_a_profile_s_times_are_times(tmp_path: Path, table: str, line: int) -> None:
    rows = PROFILE[table].splitlines()
    for wrong in ("-1", "1e+10"):
        rows[line - 1] = f"{rows[line - 1].rpartition(',')[0]},{wrong}"
        said = re.escape(f"{table}:{line}: time_us is {wrong}; 0 to 1e+09 is expected")
        with pytest.raises(InputError, match=said):
            _profile(tmp_path, **{table: "\n".join(rows) + "\n"})


def test_prefix_hits_are_of_all_prompts_that_were_admitted() -> None:
    """Eight of nine tokens of the second one; at 105 us it is in its step, at 90 not there yet."""
    asked, shared = [(0, 9, 1), (100, 9, 1)], [[0, 1], [0, 1]]
    for until_us, hits in ((None, 8 / 18), (105, 8 / 18), (90, 0.0)):
        service, _ = serve("vllm", asked, prefixes=shared, prefix_caching=True, until_us=until_us)
        figures = build_service_result(service, StepLog(), "chat", SloConfig(), {}).figures
        assert figures["kv"]["prefix_hits"] == hits


def test_percentiles_of_gaps_are_within_their_bins() -> None:
    draw = np.random.default_rng(1)
    values = (10 ** draw.uniform(0, 13, 20_000)).astype(np.int64)
    gaps = new_gaps()
    for value in values.tolist():
        note_gap(gaps, value, 1)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = np.quantile(values, share)
        assert gap_percentile(gaps, share) == pytest.approx(exact, rel=5e-4, abs=1)
    few = new_gaps()
    for value in (0, 1000, 3000, 7000):
        note_gap(few, value)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):  # between two of them, as all other percentiles
        exact = np.quantile([0, 1000, 3000, 7000], share)
        assert gap_percentile(few, share) == pytest.approx(exact, rel=5e-4)
    assert mean_gap_ps(gaps) == pytest.approx(values.mean())
    assert np.isnan(gap_percentile(new_gaps(), 0.5))


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        ({"ttft": 20_000_000}, 2), ({"ttft": 19_999_999}, 1), ({"tpot": 11_500_000}, 2),
        ({"tpot": 11_499_999}, 1), ({"itl": 12_000_000}, 2), ({"itl": 11_999_999}, 1),
        ({"e2e": 43_000_000}, 2), ({"e2e": 42_999_999}, 1), ({"ttft": 20_000_000, "itl": 1}, 1),
    ],
)  # fmt: skip
def test_goodput_counts_who_keeps_every_limit(slo: dict[str, int], kept: int) -> None:
    """The first: 20 us to a first token, then 12 and 11 us; the second has one token, at 10 us of
    the 12 (it comes 2 us into the first's second step)."""
    service, _ = serve("vllm", [(0, 10, 3), (18, 1, 1)])
    assert times(service, "finish_ps") == [43, 32]
    found = build_service_result(service, StepLog(), "x", SloConfig(**slo), {"warnings": []})
    share = found.to_dict()["goodput"]["share"]
    assert share == kept / 2


def test_steps_are_spread_over_intervals_that_join_when_there_are_too_many() -> None:
    log = StepLog()
    service = Service(
        Traffic(np.array([0]), np.array([1]), np.array([3 * INTERVALS])),
        Fleet(
            load_scheduler("vllm"), load_scheduler("vllm").Settings(name="vllm"), Linear(1000, 0),
            1000, 4, load_router("round_robin"),
        ),
    )  # fmt: skip
    service.run([log])
    log.flush()
    # 768 steps of a millisecond, from intervals of one: of four in the end
    assert log.interval_ps == 4 * 10**9
    assert log.columns["steps"].tolist() == [4.0] * 192 + [0.0] * 64
    assert log.steps == log.tokens == 3 * INTERVALS


def test_a_service_of_more_replicas_keeps_their_books_apart() -> None:
    service, _ = serve("vllm", [(at, 5, 4) for at in range(9)], replicas=3)
    assert [replica.steps for replica in service.replicas] == [
        max(service.requests["finish_step"][service.requests["replica"] == number])
        for number in range(3)
    ]
