"""Other projects' scenarios of serving, as their files have them: fleets, requests, steps."""

from __future__ import annotations

import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError, first_fault, near_miss
from pimsim.config.plugins import ModuleName
from pimsim.config.reading import parse_json, read_bytes, read_text
from pimsim.config.service import CacheConfig, LinearConfig, ReplicasConfig, SpeculationConfig
from pimsim.serving.ending import Speculation
from pimsim.serving.guesses import guesses
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import load_scheduler
from pimsim.serving.service import Fleet
from pimsim.serving.step_times.linear import Linear
from pimsim.validate.types import ReferenceLine, References, lines_of
from pimsim.workload.traffic import PrefixBlocks, Traffic, whole_ps

__all__ = [
    "FOLDER", "PS_PER_US", "prefixes_of", "scenario_fleet", "scenarios_of", "steps_of",
    "traffic_of",
]  # fmt: skip

FOLDER = "serving/"
PS_PER_US = 10**6
_VLLM = "vllm-v1"
_VIDUR = {
    "vllm": "vidur_vllm", "sarathi": "vidur_sarathi", "orca": "vidur_orca",
    "lightllm": "vidur_lightllm",
}  # fmt: skip
_RENAMED = {"chunked": "chunked_prefill"}
_MOST_BLOCK = 10_000_000
"""Number of a block of a prompt, at most."""


class _Scenario(ConfigModel):
    """Keys that are not of a scheduler."""

    engine: str
    scheduler: str = ""
    what: str = ""
    step_us: int
    token_us: int
    ctx_ns: int = 0
    num_blocks: int
    block_size: int
    replicas: int = 1
    pp: int = 1
    router: Annotated[str, ModuleName("router")] = "round_robin"
    k: int = Field(default=0, ge=0)
    accept: Any = 0


_SHARED = frozenset({"batch_cap", "max_tokens", "watermark"})
"""Keys of those schedulers that have a use for them: the scenarios of one engine give all the same
ones."""


def scenario_fleet(scenario: Mapping[str, Any], name: str, engine: str = "") -> Fleet:
    """What a scenario of the reference runs on.

    Parameters
    ----------
    scenario
        Its parameters, as ``serving_scenarios.json`` has them.
    name
        Its name, for messages.
    engine
        Who made its rows; of vLLM the version matters.

    Raises
    ------
    InputError
        For parameters that nobody here knows.
    """
    given = {_RENAMED.get(key, key): value for key, value in scenario.items()}
    try:
        own = {key: value for key, value in given.items() if key in _Scenario.model_fields}
        machine = _Scenario.model_validate(own)
        linear = LinearConfig(
            step_us=machine.step_us, token_us=machine.token_us, ctx_ns=machine.ctx_ns
        )
        cache = CacheConfig(blocks=machine.num_blocks, block_tokens=machine.block_size)
        replicas = ReplicasConfig(count=machine.replicas, stages=machine.pp, router=machine.router)
        said = SpeculationConfig(drafts=machine.k, accept=machine.accept) if machine.k else None
    except ValidationError as error:
        raise InputError(f"scenario {name}: {first_fault(error)}") from None
    if machine.engine == _VLLM:
        kind = "vllm"
        if engine.startswith("vllm-0.19"):
            given["version"] = "0.19"
    elif machine.scheduler in _VIDUR:
        kind = _VIDUR[machine.scheduler]
    else:
        raise InputError(
            f"scenario {name}: scheduler {machine.scheduler!r} of engine {machine.engine!r}"
        )
    scheduler = load_scheduler(kind)
    settings = scheduler.Settings.model_fields
    known = settings.keys() | _Scenario.model_fields.keys() | _SHARED
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(
            f"scenario {name}: unknown parameter {unknown[0]!r}{near_miss(unknown[0], settings)}"
        )
    own = {key: value for key, value in given.items() if key in settings}
    try:
        validated = scheduler.Settings(**{"name": kind, **own})
    except ValidationError as error:
        raise InputError(f"scenario {name}: {first_fault(error)}") from None
    if cache.blocks is None:
        raise InputError(f"scenario {name}: blocks is missing")
    # lightllm counts tokens
    block_tokens = 1 if machine.scheduler == "lightllm" else cache.block_tokens
    return Fleet(
        scheduler, validated, Linear(**linear.model_dump()), cache.blocks, block_tokens,
        load_router(replicas.router), replicas.count, replicas.stages,
        Speculation() if said is None else guesses(said, 0),
    )  # fmt: skip


def traffic_of(
    lines: Sequence[ReferenceLine], prefixes: Mapping[int, Sequence[int]], block_tokens: int
) -> Traffic:
    """The requests of some lines of a table, which must be there.

    Parameters
    ----------
    lines
        A request each.
    prefixes
        Blocks of their prompts, by their numbers.
    block_tokens
        Tokens of such a block.

    Raises
    ------
    InputError
        For requests that no service takes, with the line.
    """

    def column(name: str) -> Any:
        return np.array([line.whole(name) for line in lines])

    def optional(name: str) -> Any:
        return np.array([line.whole(name) if line.get(name) else 0 for line in lines])

    held = [prefixes.get(line.whole("id"), ()) if prefixes else () for line in lines]
    counts = np.array([len(each) for each in held])
    numbers = np.array([block for each in held for block in each], dtype=np.int32)
    found = Traffic(
        whole_ps(column("arrival_us"), PS_PER_US), column("prompt"), column("output"),
        id=column("id") if "id" in lines[0] else np.arange(len(lines)),
        priority=optional("priority"),
        prefixes=PrefixBlocks(block_tokens, numbers, np.cumsum(counts) - counts, counts),
        place=lambda row: lines[row].where,
    )  # fmt: skip
    return found.check_times().check()


def scenarios_of(references: References, name: str) -> dict[str, Any]:
    """Parameters of each scenario of a file, by its name.

    Parameters
    ----------
    references
        With the folder of ``--reference``.
    name
        Of the file.

    Raises
    ------
    InputError
        Where it is no object of objects.
    """
    path = references.file(FOLDER + name)
    assert path is not None
    found = parse_json(read_text(path, "scenarios, a JSON file,"), str(path))
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise InputError(f"{path}: an object of scenarios by name is expected")
    return found


class _Prefix(ConfigModel):
    """A line of the blocks of prompts."""

    scenario: str
    id: int
    blocks: list[Annotated[int, Field(ge=0, lt=_MOST_BLOCK)]]


def prefixes_of(references: References) -> dict[str, dict[int, list[int]]]:
    """Blocks of prompts by scenario and request.

    Parameters
    ----------
    references
        With the folder of ``--reference``.

    Raises
    ------
    InputError
        With the line that is wrong.
    """
    path = references.file(f"{FOLDER}serving_prefix_blocks.jsonl")
    assert path is not None
    found: dict[str, dict[int, list[int]]] = defaultdict(dict)
    check = TypeAdapter(_Prefix)
    for number, line in enumerate(
        read_text(path, "blocks of prompts, JSON lines,").splitlines(), 1
    ):
        try:
            one = check.validate_python(parse_json(line, str(path), number))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {first_fault(error)}") from None
        found[one.scenario][one.id] = one.blocks
    return found


def steps_of(references: References) -> Iterator[ReferenceLine]:
    """Lines of the table of steps.

    Parameters
    ----------
    references
        With the folder of ``--reference``.

    Raises
    ------
    InputError
        For a table that is damaged.
    """
    path = references.file(f"{FOLDER}serving_steps.csv.gz")
    assert path is not None
    try:
        text = gzip.decompress(read_bytes(path, "a compressed table")).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: no compressed table: {error}") from None
    yield from lines_of(text, path)
