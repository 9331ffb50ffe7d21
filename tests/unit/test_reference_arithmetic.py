"""Datapaths bit for bit against slow oracles, and layouts that an error must break."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from pimsim.config.errors import InputError  # noqa: E402
from pimsim.config.loader import load_run  # noqa: E402
from pimsim.hardware.dram.device_memory import device_memory  # noqa: E402
from pimsim.hardware.pim.kv_layout import KvRows  # noqa: E402
from pimsim.hardware.pim.programs import AttentionShape  # noqa: E402
from pimsim.reference.arithmetic import (  # noqa: E402
    PimDatapath,
    exp_table,
    pim_dot,
    rounded,
    softmax,
    systolic_product,
)
from pimsim.reference.banks import BankArray, attend_in_banks, write_cache  # noqa: E402

numbers = st.floats(-100, 100, width=32, allow_subnormal=False)


def to_f32(x: float) -> float:
    return struct.unpack("f", struct.pack("f", x))[0]


def to_bf16(x: float) -> float:
    """Round to nearest, ties to even, on the bits."""
    if not math.isfinite(x):
        return x
    bits = struct.unpack("I", struct.pack("f", x))[0]
    bits += 0x7FFF + (bits >> 16 & 1)
    return struct.unpack("f", struct.pack("I", bits & 0xFFFF0000))[0]


def to_f16(x: float) -> float:
    try:
        return struct.unpack("e", struct.pack("e", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


ROUND = {"f32": to_f32, "bf16": to_bf16, "f16": to_f16}


@given(st.floats(width=32, allow_nan=False), st.sampled_from(["bf16", "f16"]))
def test_rounding_is_that_of_the_bits(x: float, dtype: str) -> None:
    got = float(rounded(torch.tensor([x], dtype=torch.float32), dtype))
    assert got == ROUND[dtype](x) or (dtype == "bf16" and abs(x) > 3.38e38)


def slow_dot(row: list[float], vector: list[float], path: PimDatapath) -> float:
    """One COMP after the other, one addition after the other."""
    tree, latch = ROUND[path.tree], ROUND[path.latch]
    total = 0.0
    for start in range(0, len(row), path.lanes):
        level = [
            tree(to_f32(a * b))
            for a, b in zip(row[start : start + path.lanes], vector[start : start + path.lanes],
                            strict=True)
        ]  # fmt: skip
        level += [0.0] * (path.lanes - len(level))
        while len(level) > 1:
            if len(level) % 2:
                level.append(0.0)
            level = [tree(to_f32(level[i] + level[i + 1])) for i in range(0, len(level), 2)]
        total = latch(to_f32(total + level[0]))
    return ROUND[path.output](total)


@settings(max_examples=50)
@given(
    st.integers(1, 40), st.sampled_from([1, 3, 4, 16]), st.sampled_from(["f32", "bf16", "f16"]),
    st.sampled_from(["f32", "bf16"]), st.sampled_from(["f32", "bf16", "f16"]), st.data(),
)  # fmt: skip
def test_pim_dot_is_the_oracles_to_the_bit(
    n: int, lanes: int, tree: str, latch: str, output: str, data: Any
) -> None:
    path = PimDatapath(lanes, tree, latch, output)
    rows = [
        [to_bf16(x) for x in data.draw(st.lists(numbers, min_size=n, max_size=n))] for _ in range(2)
    ]
    vector = [to_bf16(x) for x in data.draw(st.lists(numbers, min_size=n, max_size=n))]
    got = pim_dot(torch.tensor(rows), torch.tensor(vector), path)
    assert got.tolist() == [slow_dot(row, vector, path) for row in rows]


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 8), st.sampled_from(["f32", "bf16"]), st.data())
def test_the_systolic_product_is_the_oracles_to_the_bit(
    k: int, rows: int, accumulate: str, data: Any
) -> None:
    vectors = [
        [to_bf16(x) for x in data.draw(st.lists(numbers, min_size=k, max_size=k))] for _ in range(2)
    ]
    total = 0.0
    narrow = ROUND[accumulate]
    for start in range(0, k, rows):
        partial = 0.0
        for a, b in zip(vectors[0][start : start + rows], vectors[1][start : start + rows],
                        strict=True):  # fmt: skip
            partial = narrow(to_f32(partial + to_f32(a * b)))
        total = narrow(to_f32(total + partial))
    got = systolic_product(torch.tensor([vectors[0]]), torch.tensor([vectors[1]]), rows, accumulate)
    assert float(got) == total


@pytest.mark.parametrize(("segments", "worst"), [(64, 2e-5), (8, 1.1e-3), (2, 1.8e-2)])
def test_the_exponentials_table_is_as_good_as_its_pieces(segments: int, worst: float) -> None:
    x = torch.linspace(-60, 0, 20_001)
    error = (exp_table(x, segments).double() / torch.exp(x.double()) - 1).abs().max()
    assert worst / 4 < float(error) < worst
    # a chord's error falls with the square of its length
    assert float(exp_table(torch.zeros(1), segments)) == 1.0


def test_softmax_adds_up_and_leaves_hidden_positions_out() -> None:
    scores = torch.tensor([[1.0, -math.inf, 3.0, 3.0]])
    for segments in (None, 8):
        weights = softmax(scores, segments)
        assert float(weights.sum()) == pytest.approx(1)
        assert float(weights[0, 1]) == 0
        assert float(weights[0, 2]) == float(weights[0, 3])


CONFIG = load_run("neupims").config
MEMORY = device_memory(CONFIG.memory)


def case(heads: int, kv: int, dim: int, context: int) -> tuple[Any, ...]:
    assert CONFIG.pim is not None
    generator = torch.Generator().manual_seed(heads * 1000 + context)
    shape = AttentionShape.of(heads, kv, dim, MEMORY, CONFIG.pim, 2)
    query, key, value = (
        rounded(torch.randn(size, generator=generator), "bf16")
        for size in ((heads, dim), (kv, context, dim), (kv, context, dim))
    )
    return shape, rounded(query / dim**0.5, "bf16"), key, value


def exact(query: Any, key: Any, value: Any) -> Any:
    group = query.shape[0] // key.shape[0]
    keys, values = (each.repeat_interleave(group, 0).double() for each in (key, value))
    weights = torch.softmax(torch.einsum("hld,hd->hl", keys, query.double()), dim=-1)
    return torch.einsum("hl,hld->hd", weights, values)


def error_of(shape: Any, query: Any, key: Any, value: Any, array: Any = None) -> float:
    assert CONFIG.pim is not None
    path = PimDatapath(lanes=CONFIG.pim.elements_per_comp, output="f32")
    got = attend_in_banks(
        shape, MEMORY, query, key, value, softmax, path, CONFIG.pim.composite_gemv, array
    )
    expected = exact(query, key, value)
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("heads", "kv", "dim", "context"),
    [
        (4, 4, 64, 1),
        (9, 3, 64, 33),
        (8, 2, 128, 70),
        (32, 32, 128, 40),
        (2, 1, 64, 530),
        (4, 1, 128, 300),
    ],
)
def test_attention_through_the_mapped_rows_is_attention(
    heads: int, kv: int, dim: int, context: int
) -> None:
    """More tokens than banks, groups of queries, heads over several rows, values over two rows,
    tokens that share a row, the last of which is not full."""
    assert error_of(*case(heads, kv, dim, context)) < 1e-6


@pytest.mark.parametrize("damage", ["row", "bank", "column", "swap"])
def test_an_error_in_the_layout_is_a_wrong_number(damage: str) -> None:
    shape, query, key, value = case(8, 2, 128, 70)
    rows = KvRows.from_row(0, shape.kv_sections, 70)
    array = BankArray(MEMORY, rows.count)
    write_cache(array, shape, rows, key, value)
    assert error_of(shape, query, key, value, array) < 1e-6
    if damage == "row":
        array.cells = array.cells.roll(1, dims=0)
    elif damage == "bank":
        array.cells[:, [0, 1]] = array.cells[:, [1, 0]]
    elif damage == "column":
        array.cells[0] = array.cells[0].roll(1, dims=1)
    else:
        values = rows.values.rows()
        array.cells[values] = array.cells[values].flip(0)
    assert error_of(shape, query, key, value, array) > 1e-3


def test_heads_that_are_no_whole_comps_are_refused() -> None:
    with pytest.raises(InputError, match="whole COMPs"):
        error_of(*case(2, 1, 24, 5))


def test_an_error_at_its_limit_is_within_it() -> None:
    from pimsim.reference.limits import load_limits, over_limit
    from pimsim.reference.measure import OperatorError

    limits = load_limits()
    for datapath, limit in limits.operators.items():
        at, above = limit.limit, limit.limit * 1.001 + 1e-300
        assert over_limit(limits, [OperatorError(datapath, "fc1", at, 0.0)], [], []) == []
        (line,) = over_limit(limits, [OperatorError(datapath, "fc1", above, 0.0)], [], [])
        assert line.startswith(f"{datapath}, fc1: relative RMS ")


@pytest.mark.parametrize("segments", [None, 8, 64])
def test_softmax_is_of_differences(segments: int | None) -> None:
    """Scores beyond what an exponential in float32 can be, and masked ones."""
    scores = torch.tensor([[3.0, 1.0, -2.0, float("-inf")]])
    expected = softmax(scores, segments)
    assert expected[0, 3] == 0 and float(expected.sum()) == pytest.approx(1)
    for shift in (-4096.0, 4096.0):
        assert torch.equal(softmax(scores + shift, segments), expected)
