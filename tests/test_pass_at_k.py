"""pass@k against all subsets, against exact fractions, and what it refuses."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.errors import UsageError
from trl_math.evaluation import pass_at_k


@st.composite
def counts(draw: st.DrawFn, largest: int = 9) -> tuple[int, int, int]:
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


def exact(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


@settings(max_examples=200, deadline=None)
@given(counts())
def test_equals_the_share_of_all_subsets(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-14)


@settings(max_examples=200, deadline=None)
@given(counts(3000))
def test_equals_exact_fractions(case: tuple[int, int, int]) -> None:
    assert pass_at_k(*case) == pytest.approx(float(exact(*case)), rel=1e-11, abs=0)


@pytest.mark.parametrize("k", [1, 2, 10, 50_000, 99_999, 100_000])
@pytest.mark.parametrize("c", [0, 1, 3, 50_000, 99_999, 100_000])
def test_a_hundred_thousand_samples_neither_overflow_nor_cancel(c: int, k: int) -> None:
    assert pass_at_k(100_000, c, k) == pytest.approx(float(exact(100_000, c, k)), rel=1e-10, abs=0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.data())
def test_bounds_monotonicity_and_ends(n: int, data: st.DataObject) -> None:
    c = np.arange(n + 1)
    table = pass_at_k(n, c, np.arange(1, n + 1))  # (C, K)
    assert ((table >= 0) & (table <= 1)).all()
    assert (np.diff(table, axis=0) >= -1e-15).all()  # more right samples
    assert (np.diff(table, axis=1) >= 0).all()  # more attempts
    assert (table[0] == 0).all()
    assert (table[1:, -1] == 1).all()
    np.testing.assert_array_equal(table[:, 0], c / n)  # pass@1 is the mean, to the last bit
    order = data.draw(st.permutations(range(n + 1)))
    np.testing.assert_array_equal(pass_at_k(n, c[order], [1, n]), table[order][:, [0, -1]])


def test_samples_may_differ_between_problems_and_k_comes_in_any_order() -> None:
    values = pass_at_k([4, 10, 4], [1, 3, 1], [4, 1, 2])
    expected = [[float(exact(n, c, k)) for k in (4, 1, 2)] for n, c in ((4, 1), (10, 3), (4, 1))]
    np.testing.assert_allclose(values, expected, rtol=1e-14)
    assert pass_at_k([4, 10], [1, 3], 2).shape == (2,)
    assert pass_at_k([[4, 10]], [[1, 3]], [1, 2]).shape == (1, 2, 2)
    assert pass_at_k(np.array([], dtype=int), np.array([], dtype=int), 1).shape == (0,)


def test_is_unbiased() -> None:
    p, n, k = 0.2, 6, 3
    chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert pass_at_k(n, np.arange(n + 1), k) @ chance == pytest.approx(1 - (1 - p) ** k, rel=1e-13)


@pytest.mark.parametrize("correct", [0, 3])
def test_k_above_n_is_refused_by_the_name_of_the_problem(correct: int) -> None:
    """Neither a failure (lighteval#771) nor a success (human-eval#35)."""
    with pytest.raises(UsageError, match=r"pass@4 needs at least 4 samples .*problem 1 has 3\. .*k of at most 3"):
        pass_at_k([8, 3], [8, correct], [1, 4])
    with pytest.raises(UsageError, match=r"problem 0 \(gsm8k-7\) has 2, and 1 more problems have fewer than 3\."):
        pass_at_k([2, 1], [1, 1], 3, names=["gsm8k-7", "gsm8k-8"])
    with pytest.raises(UsageError, match=r"problem 0 has 0\..*leave out"):
        pass_at_k([0, 1], [0, 1], 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([4], [5], 1), "problem 0 has 5 correct of 4"),
        (([4, 4], [0, -1], 1), "problem 1 has -1 correct"),
        (([4], [0.5], 1), "whole numbers"),
        (([4], [1], 0), "k must be"),
        (([4], [1], 1.5), "k must be"),
        (([4], [1], []), "k must be"),
        (([4], [1], [[1]]), "k must be"),
    ],
)
def test_nonsense_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pass_at_k(*arguments)
