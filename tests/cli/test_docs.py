"""The examples of the documentation, as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.config.base import ConfigModel

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RunCli = Callable[..., subprocess.CompletedProcess[str]]

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the documentation is in a checkout only")


PAGES = [
    "tutorial.md", "pim-design.md", "fidelity.md", "steps.md", "gpu.md", "serving.md", "fabric.md",
    "ci.md", "techniques.md",
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_files_and_commands_work_in_their_order(
    run_cli: RunCli, tmp_path: Path, page: str
) -> None:
    """What a block of ``text`` shows are lines of what the commands before it print."""
    ran = 0
    said: set[str] = set()
    for language, content in FENCE.findall((DOCS / page).read_text()):
        if language == "yaml":
            name = content.split("\n", 1)[0].removeprefix("# ")
            assert name.endswith(".yaml"), content
            (tmp_path / name).write_text(content)
        elif language == "text":
            shown = {" ".join(line.split()) for line in content.splitlines()}
            assert shown <= said, shown - said
        elif language == "console":
            said = set()
            for line in content.splitlines():
                assert line.startswith("$ pimsim "), line
                arguments = shlex.split(line.removeprefix("$ pimsim "), comments=True)
                done = run_cli(*arguments, cwd=tmp_path)
                assert done.returncode == 0, (line, done.stderr)
                assert done.stdout, line
                said |= {" ".join(line.split()) for line in done.stdout.splitlines()}
                ran += 1
    assert ran >= 2


def _generated() -> dict[str, Callable[..., object]]:
    space: dict[str, object] = {"__file__": str(DOCS / "generate.py"), "__name__": "g"}
    exec(compile((DOCS / "generate.py").read_text(), "generate.py", "exec"), space)
    return space  # type: ignore[return-value]


def test_the_reference_has_every_key_of_every_file() -> None:
    made = _generated()
    text = "".join(made["yaml_pages"]().values())  # type: ignore[attr-defined]
    for _, name, _ in made["SECTIONS"]:  # type: ignore[attr-defined]
        model = made["load"](name)
        assert issubclass(model, ConfigModel)  # type: ignore[arg-type]
        for key, field in model.model_fields.items():  # type: ignore[attr-defined]
            assert f"| `{field.alias or key}` |" in text, (name, key)
    assert "`memory.controller.row_hit_cap`" in text
    assert "<class" not in text


def test_the_command_reference_has_every_command_and_option() -> None:
    text = str(_generated()["cli_reference"]())
    for expected in ("## pimsim run", "## pimsim kernel dram", "`--max-error`", "`--timeline`"):
        assert expected in text


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if target.startswith(("http", "reference/", "traces.md")):  # made for the site
                continue
            assert (page.parent / target).exists(), (page.name, target)
