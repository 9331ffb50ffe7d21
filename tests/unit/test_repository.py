"""What stands beside the code says the same as the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pimsim import __version__

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "CHANGELOG.md").exists(), reason="these files are in a checkout only"
)


def test_the_version_is_one_and_its_changes_are_told() -> None:
    said = re.findall(
        r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert said[0] == (__version__, citation["date-released"])
    assert citation["version"] == __version__
    versions = [tuple(map(int, version.split("."))) for version, _ in said]
    assert versions == sorted(versions, reverse=True)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")
    )],
)  # fmt: skip
def test_files_that_a_page_links_to_exist(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" not in target and not target.startswith(("reference/", "traces.md")):
            assert (path.parent / target).exists(), target
