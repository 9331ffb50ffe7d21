"""A golden check for machines that show checks: JUnit XML, and a Markdown summary."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pimsim.result.golden import Difference, GoldenCase

__all__ = ["junit", "markdown"]

Moved = Sequence[tuple[GoldenCase, Sequence[Difference]]]


def junit(golden: str, moved: Moved) -> str:
    """JUnit XML: one test a case, failed where cycles moved.

    Parameters
    ----------
    golden
        Name of the golden file.
    moved
        Differences by case, of all cases that were run.
    """
    failed = sum(bool(found) for _, found in moved)
    suite = Element(
        "testsuite", name=f"pimsim check {golden}", tests=str(len(moved)), failures=str(failed)
    )
    for case, found in moved:
        test = SubElement(suite, "testcase", classname=golden, name=case.name)
        if found:
            failure = SubElement(test, "failure", message=_line(found[0]))
            failure.text = "\n".join(map(_line, found))
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(golden: str, moved: Moved) -> str:
    """A summary for a pull request: what moved, or that nothing did.

    Parameters
    ----------
    golden
        Name of the golden file.
    moved
        Differences by case, of all cases that were run.
    """
    failed = [(case, found) for case, found in moved if found]
    lines = [f"### pimsim check: {golden}", ""]
    if not failed:
        return "\n".join([*lines, f"{len(moved)} golden cases, none moved.", ""])
    lines += [
        f"{len(failed)} of {len(moved)} golden cases moved.", "",
        "| case | stage | expected | found | change |", "|---|---|---:|---:|---:|",
    ]  # fmt: skip
    for case, found in failed:
        for at, one in enumerate(found):
            percent = "" if one.percent is None else f"{one.percent:+.3f} %"
            name = _cell(case.name) if at == 0 else ""
            lines.append(
                f"| {name} | {_cell(one.what)} | {_count(one.expected)} | {_count(one.found)} | "
                f"{percent} |"
            )
    return "\n".join([*lines, ""])


def _line(one: Difference) -> str:
    return f"{one.what}: expected {_count(one.expected)} cycles, found {_count(one.found)}"


def _count(cycles: int | None) -> str:
    return "none" if cycles is None else f"{cycles:,}"


def _cell(text: str) -> str:
    """Text that cannot end a cell or begin markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
