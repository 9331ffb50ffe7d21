"""Servers of GPUs with attention on AttAcc, beside AttAcc's own Python model (ASPLOS 2024).

Its options are ours under other names: ``--powerlimit`` chooses the capped PIM, ``--pipeopt`` is
``overlap: projections`` (without it transfers overlap all the same), ``--ffopt`` is ``ffn_split``.
What it does wrong is switched on (``cost_rules``, ``ffn_read_multiple``), so that the rest can be
compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pimsim.config.errors import InputError
from pimsim.config.loader import load_system
from pimsim.validate.gpu_steps import MeanStep, decoding
from pimsim.validate.types import References, Row
from pimsim.workload.cards import ModelCard, load_card

__all__ = ["TABLES", "overrides_of", "preset_of", "rows", "table_rows"]

TABLES = ("attacc_system.csv", "attacc_system_more.csv")

_MODELS = {"GPT-175B": "gpt3-175b", "LLAMA-65B": "llama-65b"}

_LOG = (
    "pim.attention.stage_rules=[attacc_drops_remainder, attacc_replays_first_head, "
    "attacc_repeats_softmax]",
    "pim.energy_pj.move=87.68",
    "pim.energy_pj.host_move=97.28",
)
"""The table was made with the log of attention that AttAcc ships, from an older trace generator
than its present one; and pJ/bit of moved operands are multiplied by bytes there, an eighth."""

_FFN_HIDDEN = {"llama-65b": 21848}
"""Theirs is 8/3 of 8,192, a fraction; here the next one that 8 GPUs share. Published: 22,016."""

_SCALES = {"bank": (16, 9), "bg": (8, 3), "buffer": (1, 1)}
"""Its bandwidth of FFN weights on PIM over that of the pins, without and with the power limit."""

_PARTS = {
    "g_matmul_ms": "attention",
    "g_fc_ms": "gemm",
    "g_comm_ms": "communication",
    "g_etc_ms": "elementwise",
}
"""Columns of the table and parts of our step; softmax has no column."""


def rows(references: References) -> Iterator[Row]:
    """Throughput, the parts of the step and its energy, for each row of the tables.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for name in TABLES:
        for record in references.table(name):
            yield from table_rows(record)


def table_rows(record: Mapping[str, str]) -> Iterator[Row]:
    """The comparisons of one row of a table.

    Parameters
    ----------
    record
        Row of the table, by column.
    """
    config = load_system(preset_of(record), overrides_of(record)).config
    card = _card(record)
    result = decoding(config, card, int(record["batch"]), int(record["lin"]), int(record["lout"]))
    case = _case(record)
    yield Row(
        "attacc.system_throughput",
        case,
        "tokens_per_s",
        float(record["throughput_tok_s"]),
        result.tokens_per_s,
    )
    yield from _part_rows(case, record, result)
    yield Row(
        "attacc.system_energy",
        case,
        "energy_j",
        float(record["g_energy_nJ"]) * 1e-9,
        result.dynamic_j,
    )


def _part_rows(case: str, record: Mapping[str, str], result: MeanStep) -> Iterator[Row]:
    for column, part in _PARTS.items():
        yield Row(
            _group(record, part),
            case,
            f"{part}_ms",
            float(record[column]),
            1e3 * result.parts_s[part],
        )


def _card(record: Mapping[str, str]) -> ModelCard:
    """The model of a row, as wide as it is there."""
    card = load_card(_MODELS[record["model"]])
    return card.model_copy(update={"ffn_hidden": _FFN_HIDDEN.get(card.name, card.ffn_hidden)})


def _group(record: Mapping[str, str], part: str) -> str:
    """Attention on PIM is scheduled here and looked up there; it hides transfers and projections.
    All else follows closed forms."""
    if record["system"] != "dgx-attacc":
        return "attacc.system_parts"
    if part == "attention":
        return "attacc.system_attention" + ("_bank" if record["pim"] == "bank" else "")
    hidden = {"communication"} | ({"gemm"} if "--pipeopt" in record["opts"] else set())
    return "attacc.system_exposed" if part in hidden else "attacc.system_parts"


def _case(record: Mapping[str, str]) -> str:
    unit = f"{record['system']}-{record['pim']}" if record["pim"] else record["system"]
    options = "".join(record["opts"].split()).replace("--", "+")
    lengths = f"{record['lin']}+{record['lout']}"
    return (
        f"{unit}{options}/{record['ngpu']}x{record['gpu']}/{record['model']}/{lengths}"
        f"/{record['batch']}"
    )


def preset_of(record: Mapping[str, str]) -> str:
    """Our system preset for a row of the table.

    Parameters
    ----------
    record
        Row of the table, by column.

    Raises
    ------
    InputError
        Where there is none for its GPU.
    """
    gpu = record["gpu"].lower()
    if record["system"] == "dgx-attacc":
        if gpu != "a100a":
            raise InputError(f"no preset for {record['system']} with {record['gpu']}")
        capped = record["pim"] != "bank" or "--powerlimit" in record["opts"]
        return f"dgx-attacc-{record['pim']}" + ("" if capped else "-npc")
    name = gpu if gpu == "a100a" else f"attacc-{gpu}"
    return f"dgx-{name}" + ("-cpu" if record["system"] == "dgx-cpu" else "")


def overrides_of(record: Mapping[str, str]) -> list[str]:
    """The row's options, and the artifact's defects.

    Parameters
    ----------
    record
        Row of the table, by column.

    Returns
    -------
    list[str]
        ``KEY=VALUE``, as ``--set`` takes them.
    """
    given = [f"devices={record['ngpu']}"]
    if record["system"] == "dgx-attacc":
        capped = "--powerlimit" in record["opts"]
        projections = "--pipeopt" in record["opts"]
        given += [
            f"overlap={'projections' if projections else 'transfers'}",
            f"ffn_split={'true' if '--ffopt' in record['opts'] else 'false'}",
            f"stacks.ffn_read_multiple={_SCALES[record['pim']][capped]}",
            *_LOG,
        ]
        rules = ["attacc_hiding_softmax"]
        if "--ffopt" in record["opts"]:
            rules.append("attacc_ffn_energy")
        given.append(f"cost_rules=[{', '.join(rules)}]")
    if record["system"] == "dgx-cpu":
        # energy of a host is not modelled there
        given += [
            "cost_rules=[attacc_host_per_device]", "host.memory_pj_per_bit=0", "host.flop_pj=0",
        ]  # fmt: skip
    return given
