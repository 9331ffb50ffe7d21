"""Wrong config files at the command line: one clear line, exit 2, whatever the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("command", ["show", "run"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "values with aliases expanded"),
        ("extends: neupims\nseed: 1\nseed: 2\n", "bad.yaml:3: duplicate key 'seed'"),
        ("extends: neupims\nnpu: {frequncy: 1GHz}\n", "bad.yaml:2: unknown key 'npu.frequncy'"),
        ("extends: neupims\nlink: {latency_ns: .nan}\n", "bad.yaml:2: found .nan"),
        (
            "extends: neupims\nmemory:\n  organization: {banks_per_group: 3}\n",
            "bad.yaml:3: memory.organization.banks_per_group is 3, but",
        ),
        ("extends: ./bad.yaml\n", "extends goes in a circle: bad.yaml -> bad.yaml"),
        ("extends: neupimss\n", "unknown hardware 'neupimss'; did you mean 'neupims'?"),
        ("", "bad.yaml: is empty"),
        ("[1, 2]\n", "the top level must be a mapping"),
        ("a: !!python/name:os.system\n", "tags are not allowed"),
        ("a: {\n", "not valid YAML"),
        ("extends: neupims\nworkload: {batch: -1}\n", "workload.batch: found -1; allowed"),
        (f"extends: neupims\nworkload: {{batch: {10**30}}}\n", "workload.batch: found 1000"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    refused: Refused, tmp_path: Path, command: str, text: str, message: str
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert message in refused(command, "bad.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("command", ["show", "run"])
def test_a_file_that_cannot_be_read_is_refused(
    refused: Refused, tmp_path: Path, command: str
) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\n")
    assert "none.yaml: no such file" in refused(command, "none.yaml")
    assert "folder.yaml: is a directory" in refused(command, "folder.yaml")
    assert "bytes.yaml:1: not UTF-8" in refused(command, "bytes.yaml")


@pytest.mark.parametrize("command", ["show", "run"])
def test_a_wrong_override_is_refused(refused: Refused, command: str) -> None:
    line = refused(command, "neupims", "--set", "schedule.sub_batchs=true")
    assert "unknown key 'schedule.sub_batchs'; did you mean 'sub_batches'?" in line


@pytest.mark.parametrize(
    ("preset", "override", "said"),
    [
        ("neupims-artifact-main", "npu.prefetch_weights=true", "prefetch_weights"),
        ("neupims-artifact-main", "npu.operand_layout=row-major", "operand_layout"),
        ("neupims-artifact-main", "npu.tiling=least-time", "tiling"),
        ("neupims-artifact-main", "npu.cores=2", "cores"),
        ("neupims-artifact-main", "memory.controller.model=channel-queues", "requests_per_cycle"),
        (
            "neupims",
            "memory.controller.model=channel-queues",
            "memory.controller.model: channel-queues does not act beside PIM (neupims)",
        ),
        ("onnxim-tpuv4", "memory.controller.requests_in_flight=2", "requests_in_flight"),
        ("onnxim-tpuv4", "memory.controller.fabric_latency=9", "fabric_latency"),
    ],
)
def test_what_cannot_meet_is_refused(
    preset: str, override: str, said: str, refused: Callable[..., str]
) -> None:
    assert said in refused("run", preset, "--set", override)
