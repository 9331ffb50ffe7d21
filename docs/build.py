"""Builds the site: ``python docs/build.py OUT [NOTEBOOKS]``. Pages that are made from the code, the
README and the notebooks are put beside the written ones in a temporary folder; a broken link fails.
NOTEBOOKS is a folder of notebooks that were run, whose pictures the site then has; without it they
are those of ``analysis/``, as they are committed: not run."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


FRONT = """
![Who works when: NPU, vector units, PIM, links](figures/gantt.svg)

![Where the cycles went, by unit](figures/cycle-stack.svg)
"""
"""Of the README's own run, below its first paragraph."""


def pictures(folder: Path) -> None:
    """Simulate what the front page shows."""
    import pimsim

    result = pimsim.run("neupims", layers=2)
    result.plot.gantt().savefig(folder / "gantt.svg")
    result.plot.cycle_stack().savefig(folder / "cycle-stack.svg")


def stage(folder: Path, studies: Path) -> None:
    """Write all sources of the site into ``folder``, with the notebooks of ``studies``."""
    from generate import pages

    shutil.copytree(HERE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in pages().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    pictures(folder / "figures")
    front = folder / "index.md"
    opening, heading, rest = front.read_text().partition("\n## ")
    front.write_text(opening + FRONT + heading + rest)
    notebooks = sorted(studies.glob("*.ipynb"))
    (folder / "analysis").mkdir()
    for notebook in notebooks:
        shutil.copy(notebook, folder / "analysis")
    names = "\n".join(f"analysis/{notebook.stem}" for notebook in notebooks)
    (folder / "notebooks.md").write_text(
        "# Notebooks\n\nStudies, each from its question to its answer; they run in CI and in "
        "`analysis/` of a checkout.\n\n```{toctree}\n:maxdepth: 1\n" + names + "\n```\n"
    )


def main(out: str, studies: Path) -> int:
    """Build; the exit code of Sphinx, whose warnings are errors."""
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder), studies)
        return build_main(["-b", "html", "-q", "-W", "--keep-going", folder, out])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python docs/build.py OUT [NOTEBOOKS]")
    sys.exit(main(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else HERE.parent / "analysis"))
