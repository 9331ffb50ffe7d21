"""What the pages of studies share: what is known of their points, tables, and what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pimsim.explore.designs import DesignGroup, DesignStudy, Place, found_at, places_of
from pimsim.explore.store import Store
from pimsim.report.design_figures import Outcome, outcome_of

__all__ = ["Outcomes", "left_out", "outcomes_of", "table_lines"]

Outcomes = Mapping[str, Mapping[Place, Outcome]]
"""Of a group: by design, then by place."""


def outcomes_of(study: DesignStudy, store: Store, group: DesignGroup) -> Outcomes:
    """What a store knows of a group's designs at all places.

    Parameters
    ----------
    study
        That the group is of.
    store
        Of ``run_study``.
    group
        One of the study's.
    """
    places = list(places_of(study))
    return {
        design.name: {
            place: outcome_of(found)
            for place, found in found_at(study, store, design, places).items()
        }
        for design in group.designs
    }


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table in Markdown.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells, as many each.
    """
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def left_out(study: DesignStudy) -> Iterator[str]:
    """The section on what a study does not have.

    Parameters
    ----------
    study
        Its ``left_out``.
    """
    yield "## What is not in it"
    yield ""
    for each in study.left_out:
        yield f"- {each.name}: {each.reason}."
