"""Pages of sweeps and comparisons in a real browser: on a phone, a tablet and a desk, light and
dark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from test_sweep_report import AXES, made_up, store_of

from pimsim.explore.comparison import compare_sweeps
from pimsim.report.comparisons import comparison_page
from pimsim.report.sweeps import read_sweep, sweep_page

LARGE: dict[str, list[object]] = {
    "workload.batch": [1, 2, 4, 8, 16], "memory.organization.channels": [8, 16, 32, 64],
    "npu.systolic.arrays": [1, 2, 4, 8, 16], "memory.timings.tFAW": list(range(10, 35)),
}  # fmt: skip


def stacks(*_values: object) -> dict[str, object]:
    return {
        "time_s": 1e-6, "layers_simulated": 1, "bound_cycles": {},
        "cycle_stack": {"npu": {"computing": 40, "weights": 60}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    first = store_of(folder / "first", AXES, made_up, stacks)
    second = store_of(folder / "second", AXES, lambda *a: 2.0 * made_up(*a), stacks)
    large = store_of(folder / "large", LARGE, lambda b, c, a, f: 1.0 * b * (c + a) - f, stacks)
    made = {
        "sweep": sweep_page(read_sweep(first)),
        "comparison": comparison_page(compare_sweeps([first, second], ["first", "second"])),
        "large": sweep_page(read_sweep(large)),
    }
    paths = {}
    for name, text in made.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(text)
    return paths


READY = """
const done = arguments[0];
(function wait() {
  const ready = document.documentElement.dataset.ready;
  ready === undefined ? setTimeout(wait, 20) : done(ready);
})();
"""
CONTRAST = """
function light(c) {
  c /= 255;
  return c <= 0.03928 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4);
}
function luminance(c) { return 0.2126 * light(c[0]) + 0.7152 * light(c[1]) + 0.0722 * light(c[2]); }
function parts(text) { return text.match(/[0-9.]+/g).map(Number); }
function behind(element) {
  for (; element; element = element.parentElement) {
    const c = parts(getComputedStyle(element).backgroundColor);
    if (c.length < 4 || c[3] > 0) { return c; }
  }
  return [255, 255, 255];
}
const faint = [];
document.querySelectorAll("body *").forEach(function (element) {
  if (element.closest(".plot") || !element.offsetParent) { return; }
  const own = Array.from(element.childNodes).some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.matches(".legend span")) { return; }
  const a = luminance(parts(getComputedStyle(element).color)), b = luminance(behind(element));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) { faint.push([element.textContent.slice(0, 40), ratio]); }
});
return faint;
"""
NAMELESS = """
return Array.from(document.querySelectorAll("a, button, input, summary, [tabindex]")).filter(
  e => !e.closest(".plot") && !(e.getAttribute("aria-label") || e.textContent.trim()
       || (e.labels && e.labels[0] && e.labels[0].textContent.trim()))
       && e.tagName !== "PRE"
).map(e => e.outerHTML.slice(0, 80));
"""
CUT = """
return Array.from(document.querySelectorAll(".scroll")).filter(e => e.offsetParent
  && e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute("aria-label"));
"""
REACHED = """
const bad = [];
document.querySelectorAll(".scroll").forEach(function (e) {
  if (!e.offsetParent) { return; }
  e.scrollLeft = 1e6;
  const last = e.querySelector("thead th:last-child").getBoundingClientRect();
  const end = e.getBoundingClientRect().right + 1;
  if (last.right > end || e.tabIndex !== 0) { bad.push(e.ariaLabel); }
});
return bad;
"""


def opened(browser: Any, page: Path, width: int, theme: str) -> None:
    """Open a page and wait until its charts are drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    colours = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
    browser.get_log("browser")  # what pages before said
    browser.get(page.as_uri())
    assert browser.execute_async_script(READY) == "yes"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1400])
@pytest.mark.parametrize("name", ["sweep", "comparison"])
def test_a_page_is_whole_and_readable(
    browser: Any, pages: dict[str, Path], name: str, width: int, theme: str
) -> None:
    opened(browser, pages[name], width, theme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0
    assert browser.execute_script(CONTRAST) == []
    assert browser.execute_script(NAMELESS) == []
    assert browser.execute_script(REACHED) == []
    if width == 1400:
        assert browser.execute_script(CUT) == []
    sizes = browser.execute_script(
        "return Array.from(document.querySelectorAll('.plot > div > *'))"
        ".map(e => [e.clientWidth, e.clientHeight])"
    )
    assert sizes and all(across > 200 and down > 80 for across, down in sizes), sizes


def test_the_keyboard_reaches_all_and_words_lead_to_their_points(
    browser: Any, pages: dict[str, Path]
) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    opened(browser, pages["sweep"], 1400, "light")
    link = browser.find_element("css selector", "main > p a")
    target = link.get_attribute("href").split("#")[1]
    unfolded = f"return document.getElementById('{target}').closest('details').open"
    assert not browser.execute_script(unfolded)
    link.send_keys(keys.ENTER)
    tries = (
        "const done = arguments[0]; let tries = 0; (function wait() {"
        f"const fold = document.getElementById('{target}').closest('details');"
        "fold.open || ++tries > 100 ? done(fold.open) : setTimeout(wait, 20); })()"
    )
    assert browser.execute_async_script(tries)
    stops = (
        "return Array.from(document.querySelectorAll('a, button, input, select, summary, .scroll'))"
        ".filter(e => !e.closest('.plot') && e.offsetParent && e.tabIndex < 0).length"
    )
    assert browser.execute_script(stops) == 0


def test_axes_are_chosen_in_the_page_by_the_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    for width in (390, 1400):
        opened(browser, pages["sweep"], width, "dark")
        drawing = browser.find_element("id", "free")
        count = int(drawing.get_attribute("aria-label").rpartition(", ")[2].split()[0])
        across = browser.find_element("id", "free-across")
        before = drawing.get_attribute("aria-label")
        across.send_keys(keys.END)
        after = drawing.get_attribute("aria-label")
        assert after != before and after.startswith(before.split(" over ")[0])
        up = browser.find_element("id", "free-up")
        label = browser.execute_script("return arguments[0].options[1].textContent", up)
        up.send_keys(keys.HOME)
        up.send_keys(keys.ARROW_DOWN)
        said = drawing.get_attribute("aria-label")
        assert said.startswith(f"{label} over ")
        places = browser.execute_script(
            "const box = document.getElementById('free').getBoundingClientRect();"
            "return Array.from(document.querySelectorAll('#free circle, #free text')).map(e => {"
            " const r = e.getBoundingClientRect();"
            " return [r.left - box.left, box.right - r.right, r.top - box.top]; })"
        )
        assert len(browser.find_elements("css selector", "#free circle title")) == count > 1
        assert all(left > -1 and right > -1 and top > -1 for left, right, top in places)
        assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


def test_a_sweep_of_thousands_is_small_and_has_no_error(
    browser: Any, pages: dict[str, Path]
) -> None:
    assert pages["large"].stat().st_size < 3_000_000
    opened(browser, pages["large"], 1400, "light")
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
    rows = "return document.querySelectorAll('#points tbody tr').length"
    assert 2000 <= browser.execute_script(rows) < 2100, "the fastest, and those of the words"
