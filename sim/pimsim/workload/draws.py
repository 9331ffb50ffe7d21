"""Random draws that are the same with every numpy: PCG64's raw words, transformed here.

numpy promises to keep the words of a bit generator with a given seed, not what ``Generator``'s
distributions make of them (NEP 19). So each law below is an inverse transform of the words, or
takes the smallest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomStream", "inverse"]

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Words = NDArray[np.uint64]

_DOUBLE_BITS = 53
"""Of a double's significand."""


class RandomStream:
    """Draws one after the other; streams of different seeds are independent (zeros at a seed's end
    make no other one).

    Parameters
    ----------
    *seed
        Whole numbers of at least 0: a run's seed, then what tells its streams apart.
    """

    def __init__(self, *seed: int) -> None:
        self._source = np.random.PCG64(seed)

    def words(self, *shape: int) -> Words:
        """Of 64 bits each."""
        found: Words = self._source.random_raw(shape)
        return found

    def uniform(self, *shape: int) -> Reals:
        """Even in [0, 1): the top 53 bits of each word."""
        top = self.words(*shape) >> np.uint64(64 - _DOUBLE_BITS)
        return top.astype(np.float64) * 2.0**-_DOUBLE_BITS

    def normal(self, *shape: int) -> Reals:
        """Of mean 0 and variance 1, by two uniform numbers each (Box and Muller 1958)."""
        radius, turn = self.uniform(2, *shape)
        found = np.sqrt(-2 * np.log(1 - radius)) * np.cos(2 * np.pi * turn)
        return np.asarray(found, dtype=np.float64)

    def gamma(self, shape: float, draws: int) -> Reals:
        """The gamma law of that shape and scale 1: of a cubed normal number, taken anew until it
        is accepted (Marsaglia and Tsang 2000); a shape below 1 is one more with a power of a
        uniform number."""
        raised = shape + 1 if shape < 1 else shape
        d = raised - 1 / 3
        c = 1 / np.sqrt(9 * d)
        found = np.empty(draws, dtype=np.float64)
        missing = np.arange(draws)
        while len(missing):
            x = self.normal(len(missing))
            v = (1 + c * x) ** 3
            u = 1 - self.uniform(len(missing))
            positive = np.maximum(v, np.finfo(np.float64).tiny)
            fits = (v > 0) & (np.log(u) < x * x / 2 + d - d * positive + d * np.log(positive))
            found[missing[fits]] = d * v[fits]
            missing = missing[~fits]
        if shape < 1:
            found *= (1 - self.uniform(draws)) ** (1 / shape)
        return found

    def below(self, bounds: int | Ints, *shape: int) -> Ints:
        """Whole numbers from 0 to ``bounds`` - 1, all as likely but for 2^-53 of ``bounds``.
        ``bounds`` is one for all, or one each."""
        found: Ints = np.floor(self.uniform(*shape) * bounds).astype(np.int64)
        return found

    def permutation(self, count: int) -> Ints:
        """The numbers 0 to ``count`` - 1 in random order."""
        return np.argsort(_ranked(self.words(count))).astype(np.int64)

    def subsets(self, rows: int, count: int, chosen: int) -> Ints:
        """Of 0 to ``count`` - 1, ``chosen`` different ones in each row, rising; every subset is as
        likely. Shape (rows, chosen)."""
        return _smallest(_ranked(self.words(rows, count)), chosen)

    def choices(self, shares: Sequence[float] | Reals, draws: int) -> Ints:
        """Of 0 to ``len(shares)`` - 1, each as often as its share; shares add up to 1."""
        below = np.add.accumulate(np.asarray(shares, dtype=np.float64))
        return inverse(below, self.uniform(draws))

    def weighted_subsets(self, rows: int, weights: Reals, chosen: int) -> Ints:
        """Of 0 to ``len(weights)`` - 1, ``chosen`` different ones in each row, rising: one after
        the other, each by its weight among those that are left. Weights are above 0. Shape
        (rows, chosen)."""
        left = np.repeat(weights[np.newaxis, :], rows, axis=0)
        found = np.empty((rows, chosen), dtype=np.int64)
        every = np.arange(rows)
        for at in range(chosen):
            below = np.add.accumulate(left, axis=1)
            # at most 1 - 2^-53 of the whole, which never rounds up to it
            drawn = self.uniform(rows) * below[:, -1]
            found[:, at] = np.argmax(below > drawn[:, np.newaxis], axis=1)
            left[every, found[:, at]] = 0
        return np.sort(found, axis=1)

    def arcsine(self, mean: float, draws: int) -> Reals:
        """The generalised arcsine law: the beta distribution of ``mean`` and 1 - ``mean``, which is
        above 0 and below 1. Of two powers of uniform numbers, taken anew until they add up to at
        most 1, the share of the first (Joehnk 1964); at least pi / 4 of the pairs do."""
        found = np.empty(draws, dtype=np.float64)
        missing = np.arange(draws)
        while len(missing):
            # never 0, so that the sum is not
            pairs = 1 - self.uniform(2, len(missing))
            x, y = pairs[0] ** (1 / mean), pairs[1] ** (1 / (1 - mean))
            fits = x + y <= 1
            found[missing[fits]] = x[fits] / (x[fits] + y[fits])
            missing = missing[~fits]
        return found


def _ranked(words: Words) -> Words:
    """Random words of which no two in a row are equal: their lowest bits give way to the column."""
    count = words.shape[-1]
    bits = np.uint64(max(count - 1, 0).bit_length())
    ranked: Words = (words >> bits << bits) | np.arange(count, dtype=np.uint64)
    return ranked


def _smallest(ranked: Words, chosen: int) -> Ints:
    """Columns of the ``chosen`` smallest in each row, rising."""
    if chosen == 0:
        return np.zeros((len(ranked), 0), dtype=np.int64)
    columns = np.argpartition(ranked, chosen - 1, axis=1)[:, :chosen]
    return np.sort(columns, axis=1).astype(np.int64)


def inverse(below: Sequence[float] | Reals, drawn: Reals) -> Ints:
    """Where each of ``drawn``, 0 to 1, falls in the cumulative shares ``below``.

    Parameters
    ----------
    below
        (classes,): rising to 1.
    drawn
        Numbers of any shape.

    Returns
    -------
    Ints
        Class of each, of the shape of ``drawn``.
    """
    found = np.searchsorted(below, drawn, side="right")
    return np.minimum(found, len(below) - 1).astype(np.int64)
