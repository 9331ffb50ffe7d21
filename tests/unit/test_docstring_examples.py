"""Examples in the docstrings of the public API do what they say; results show as HTML."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import pimsim
from pimsim.result.types import Result

FUNCTIONS = [
    name for name in pimsim.__all__ if inspect.isfunction(inspect.unwrap(getattr(pimsim, name)))
]


def test_every_public_function_is_tried() -> None:
    assert {"run", "compare", "serve", "sweep", "load", "load_config", "plot_trade_off"} <= set(
        FUNCTIONS
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_an_example_that_holds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(inspect.unwrap(getattr(pimsim, name))) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    found = doctest.DocTestRunner().run(example, out=said.append)
    assert found.failed == 0, "".join(said)


@pytest.fixture(scope="module")
def result(tiny_card: Path) -> Result:
    return pimsim.run("npu-pim", model=tiny_card, batch=2, layers=1)


def text_of(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", "", html).split())


def test_a_result_shows_its_headline_its_causes_and_what_holds_it_back(result: Result) -> None:
    html = result._repr_html_()
    assert html.startswith("<pre") and "<script" not in html
    told = text_of(html)
    assert f"{result.tokens_per_s:,.1f} tokens/s" in told and "cycle stack" in told
    assert "What holds it back" in told


def test_names_in_a_result_are_no_markup(result: Result) -> None:
    from dataclasses import replace

    html = replace(result, name="<b>[red]x")._repr_html_()
    assert "<b>[red]" not in html and "&lt;b&gt;[red]x" in html


def test_a_service_and_a_figure_show_themselves(result: Result) -> None:
    service: Any = pimsim.serve("chat", max_requests=3)
    assert "TTFT" in text_of(service._repr_html_())
    picture = result.plot.cycle_stack()._repr_png_()
    assert picture.startswith(b"\x89PNG")
