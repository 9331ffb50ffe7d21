"""Forms are found exactly, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pimsim.workload.fit_forms import fit_form

SAMPLES = [{"T": 7, "B": 1}, {"T": 11, "B": 1}, {"T": 10, "B": 2}, {"T": 12, "B": 3}]
SYMBOLS = ("1", "T", "B")
coefficients = st.integers(0, 10**12)


def value(form: dict[str, int], sample: dict[str, int]) -> int:
    return sum(c * (1 if s == "1" else sample[s]) for s, c in form.items())


@given(st.fixed_dictionaries({symbol: coefficients for symbol in SYMBOLS}))
def test_the_form_that_made_the_values_is_found(form: dict[str, int]) -> None:
    values = [value(form, sample) for sample in SAMPLES]
    assert fit_form(values, SAMPLES, SYMBOLS) == {s: c for s, c in form.items() if c}


@given(st.fixed_dictionaries({symbol: coefficients for symbol in SYMBOLS}), st.integers(1, 1000))
def test_a_value_that_is_off_is_never_fitted_by_a_wrong_form(
    form: dict[str, int], off: int
) -> None:
    values = [value(form, sample) for sample in SAMPLES]
    values[-1] += off
    found = fit_form(values, SAMPLES, SYMBOLS)
    assert found is None or [value(found, sample) for sample in SAMPLES] == values


def test_symbols_that_the_samples_do_not_tell_apart_are_not_guessed() -> None:
    assert fit_form([1, 2], [{"T": 1, "B": 1}, {"T": 2, "B": 2}], ("T", "B")) is None


def test_halves_and_negatives_are_no_sizes() -> None:
    assert fit_form([1, 2], [{"T": 2}, {"T": 4}], ("1", "T")) is None
    assert fit_form([4, 2], [{"T": 2}, {"T": 4}], ("1", "T")) is None
