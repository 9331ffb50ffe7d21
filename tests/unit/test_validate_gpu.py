"""The suite of measured GPU kernels: which lines become which rows, and ours by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.validate.gpu import rows
from pimsim.validate.judge import judge, verdict_of
from pimsim.validate.types import References

ATTENTION = (
    "device,version,phase,batch_size,isl,step,num_heads,num_key_value_heads,head_dim,latency_us\n"
)
GEMM = "m,n,k,device,version,latency_us\n"
CHUNKS = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
DENSE = "layer,tokens,time_us\n"
PROFILE = "rtx4090_llama31_8b_profile"


def references(
    folder: Path, attention: str = "", gemm: str = "", chunks: str = "", dense: str = ""
) -> References:
    (folder / "gpu" / PROFILE).mkdir(parents=True)
    for name, text in {
        "attention_bf16.csv": ATTENTION + attention,
        "gemm_bf16.csv": GEMM + gemm,
        f"{PROFILE}/attention.csv": CHUNKS + chunks,
        f"{PROFILE}/dense.csv": DENSE + dense,
    }.items():
        (folder / "gpu" / name).write_text(text)
    return References(folder, folder)


def test_prompts_are_rows_and_decoding_is_not(tmp_path: Path) -> None:
    found = references(
        tmp_path,
        "a100_sxm,1,generation,1,1,1,8,8,128,10.9\n"
        "a100_sxm,1,context,2,64,4032,108,1,128,5.5\n"
        "h200_sxm,1,context,1,2048,0,8,8,128,90\n",
    )
    short, long = rows(found)
    assert (short.group, short.reference) == ("gpu.short_prompts_a100", 5.5)
    assert long.group == "gpu.long_prompts_h200"
    # 64 new tokens after 4032: 32 tiles of 64 x 128 for each of 216 heads, two waves of 108 cores
    assert short.ours == pytest.approx(2 * 32 * 4 * 128 * 64 * 128 / (312e12 * 0.8 / 108) * 1e6)
    # 16 tiles of 128 queries and 8 heads fit one wave of 132 cores; the longest has 16 of keys
    assert long.ours == pytest.approx(16 * 4 * 128 * 128 * 128 / (989.4e12 * 0.8 / 132) * 1e6)


def test_chunks_are_rows_where_nothing_decodes(tmp_path: Path) -> None:
    chunks = "0,0,1,16,9.3\n16,112,0,0,9.5\n16,112,1,16,9.7\n"
    [row] = rows(references(tmp_path, chunks=chunks))
    assert (row.group, row.case) == ("gpu.chunks_rtx4090", "rtx4090/16/128")
    # 32 heads, a block each: one tile of 64 x 128
    assert row.ours == pytest.approx(4 * 128 * 64 * 128 / (165.2e12 * 0.8 / 128) * 1e6)


def test_products_are_rows_by_how_many_rows_they_have(tmp_path: Path) -> None:
    found = references(
        tmp_path,
        gemm="127,4096,4096,b200_sxm,1,9\n128,4096,4096,b200_sxm,1,9\n",
        dense="act_fn,2,3\nqkv_proj,2048,500\ndown_proj,1,120\n",
    )
    groups = {row.group: row for row in rows(found)}
    assert list(groups) == [
        "gpu.products_few_rows_b200", "gpu.products_many_rows_b200",
        "gpu.products_many_rows_rtx4090", "gpu.products_few_rows_rtx4090",
    ]  # fmt: skip
    least = 2 * 2048 * 6144 * 4096 / (165.2e12 * 0.8) * 1e6
    assert least <= groups["gpu.products_many_rows_rtx4090"].ours < 1.1 * least
    weights_us = 4096 * 14336 * 2 / (1008e9 * 0.85) * 1e6
    assert weights_us <= groups["gpu.products_few_rows_rtx4090"].ours < 1.1 * weights_us
    assert {verdict_of(each) for each in judge(groups.values())} == {"reported"}


def test_without_the_folder_there_are_no_rows(tmp_path: Path) -> None:
    assert list(rows(References(tmp_path, None))) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a100,1,context,1,64,0,8,8,128,5", r"csv:2: device: unknown 'a100'; did you mean"),
        ("a100_sxm,1,context,1,x,0,8,8,128,5", r"csv:2: isl: a whole number is expected"),
        ("a100_sxm,1,context,1,64,0,8,8,128,fast", r"csv:2: latency_us: a number is expected"),
        ("a100_sxm,1,context,1,64,0,8,8,128,5us", r"csv:2: latency_us: a number is expected"),
        ("a100_sxm,1,context,1,64,0,8,8,128", r"csv:2: 10 fields are expected"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(rows(references(tmp_path, f"{line}\n")))
