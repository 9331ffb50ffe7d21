"""``pimsim report`` as a user types it, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def runs(run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory, tiny_card: Path) -> list[Path]:
    """Folders of two small runs."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for preset in ("neupims", "npu-only"):
        out = folder / preset
        done = run_cli("run", preset, "--model", tiny_card, "--batch", "4", "--out", out)
        assert done.returncode == 0, done.stderr
        made.append(out)
    return made


@pytest.fixture(scope="module")
def page(run_cli: RunCli, runs: list[Path]) -> Path:
    done = run_cli("report", *runs)
    assert (done.returncode, done.stderr) == (0, "")
    path = runs[0].with_name("neupims-report.html")
    assert str(path) in done.stdout
    return path


def test_the_page_is_self_contained_and_small(page: Path, runs: list[Path]) -> None:
    text = page.read_text()
    assert page.stat().st_size < 5_000_000
    outside_scripts = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#)', outside_scripts)
    assert "default-src 'none'" in text  # whatever a script asks for, nothing is loaded
    result = json.loads((runs[0] / "result.json").read_text())
    assert f"{result['tokens_per_s']:,.0f} tokens/s" in text
    for stage in {stage["name"] for stage in result["stages"]}:
        assert f"<td>{stage}</td>" in text
    assert result["provenance"]["config_sha256"][:16] in text


def test_names_from_a_config_are_shown_and_never_run(
    run_cli: RunCli, runs: list[Path], tmp_path: Path
) -> None:
    evil = "<script>document.title='run'</script>"
    folder = tmp_path / "evil"
    shutil.copytree(runs[0], folder)
    data = json.loads((folder / "result.json").read_text())
    data["name"] = data["model"] = data["operators"][0]["name"] = evil
    (folder / "result.json").write_text(json.dumps(data))
    done = run_cli("report", folder, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text()
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_figures_are_written_in_every_format_and_the_same_each_time(
    run_cli: RunCli, runs: list[Path], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        done = run_cli(
            "report", runs[0], "--out", tmp_path / "p.html", "--figures", tmp_path / name
        )
        assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {name.split(".")[1] for name in names} == {"png", "svg", "pdf"}
    assert "roofline.svg" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_is_no_run_is_refused(
    refused: Callable[..., str], runs: list[Path], tmp_path: Path
) -> None:
    assert "a result's JSON is expected" in refused("report", tmp_path / "missing")
    line = refused("report", runs[0], "--out", tmp_path / "p.html", "--stage", "Q")
    assert "no stage 'Q'" in line and "A, B" in line
    line = refused(
        "report", runs[0], "--out", tmp_path / "p.html", "--figures", tmp_path / "f",
        "--formats", "pgn",
    )  # fmt: skip
    assert "did you mean 'png'?" in line
    assert not (tmp_path / "p.html").exists()


def opened(browser: Any, page: Path, width: int) -> float:
    """Open the page and wait until its charts are drawn; seconds that it took."""
    browser.set_window_size(width, 900)
    start = time.monotonic()
    browser.get(page.as_uri())
    while browser.execute_script("return document.documentElement.dataset.ready") is None:
        assert time.monotonic() - start < 60
        time.sleep(0.02)
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    return time.monotonic() - start


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_renders_without_errors_and_fits_the_screen(
    browser: Any, page: Path, width: int
) -> None:
    opened(browser, page, width)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    charts = browser.find_elements("css selector", ".plot > div > *")
    assert len(charts) == 7
    sizes = [(chart.size["width"], chart.size["height"]) for chart in charts]
    assert all(across > 200 and down > 80 for across, down in sizes), sizes
    loaded = browser.execute_script("return performance.getEntriesByType('resource').length")
    assert loaded == 0
    wide = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide[0] <= wide[1]


def test_links_toggles_and_the_keyboard_work(browser: Any, page: Path) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    opened(browser, page, 1200)
    for link in browser.find_elements("css selector", "nav a"):
        target = link.get_attribute("href").split("#")[1]
        assert browser.find_elements("id", target), target
    button = browser.find_element("id", "theme")
    background = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(3):
        button.send_keys(keys.ENTER)
        seen.add((button.text, browser.execute_script(background)))
    assert len({colour for _, colour in seen}) == 2
    assert {text for text, _ in seen} == {f"Colours: {c}" for c in ("auto", "light", "dark")}
    summary = browser.find_element("css selector", "details > summary")
    details = "return document.querySelector('details').open"
    assert browser.execute_script(details) is False
    summary.send_keys(keys.SPACE)
    assert browser.execute_script(details) is True


def test_tables_are_sorted_filtered_and_saved_by_the_keyboard(browser: Any, page: Path) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    opened(browser, page, 1200)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    column = (
        "const t = document.querySelector('table:has(button.sort)');"
        "return Array.from(t.tBodies[0].rows).filter(r => !r.hidden)"
        ".map(r => r.children[1].textContent.trim())"
    )
    before = browser.execute_script(column)
    head = browser.find_elements("css selector", "button.sort")[1]
    head.send_keys(keys.ENTER)
    down = browser.execute_script(column)
    head.send_keys(keys.ENTER)
    up = browser.execute_script(column)
    assert sorted(before) == sorted(down) == sorted(up)
    assert down != up and down == sorted(down, key=worth, reverse=True)
    assert up == sorted(up, key=worth)
    assert head.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    field = browser.find_element("css selector", "input.filter")
    field.send_keys("no row says this")
    assert browser.execute_script(column) == []
    count = browser.find_element("css selector", ".count").text
    assert count == f"0 of {len(before)} rows"
    field.clear()
    field.send_keys("x", keys.BACKSPACE)
    assert len(browser.execute_script(column)) == len(before)
    saved = (
        "window.saved = []; const made = URL.createObjectURL;"
        "URL.createObjectURL = b => { b.text().then(t => window.saved.push(t)); return made(b); };"
    )
    browser.execute_script(saved)
    browser.find_element("css selector", "button.csv").send_keys(keys.ENTER)
    text = browser.execute_async_script(
        "const done = arguments[0]; setTimeout(() => done(window.saved[0]), 300)"
    )
    assert len(text.splitlines()) == len(before) + 1


def worth(text: str) -> tuple[int, float | str]:
    """How the page sorts a cell: by the number that it begins with, texts before numbers."""
    found = re.match(r"[-+]?[\d,]*\.?\d+", text)
    return (1, float(found[0].replace(",", ""))) if found else (0, text)
