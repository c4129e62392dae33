"""Paired comparison: exact tests against enumeration, the interval's coverage, and runs over different problems."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.errors import UsageError
from trl_math.evaluation import compare, difference_estimate
from trl_math.evaluation.paired import mcnemar, sign_flip


DIFFERENCES = st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=10)


def run(values) -> dict[str, float]:
    return {f"p{i}": float(value) for i, value in enumerate(values)}


@settings(max_examples=150, deadline=None)
@given(DIFFERENCES)
def test_sign_flips_equal_enumeration(differences: list[float]) -> None:
    d = np.array(differences)
    sums = np.array([np.dot(signs, d) for signs in itertools.product((1, -1), repeat=len(d))])
    expected = (np.abs(sums) >= abs(d.sum()) - 1e-9).mean()
    result = sign_flip(differences)
    assert result.value == pytest.approx(expected, abs=1e-12)
    assert result.standard_error == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sign_flip_test_of_single_samples(better: int, worse: int) -> None:
    expected = sign_flip([1.0] * better + [-1.0] * worse + [0.0] * 3).value
    assert mcnemar(better, worse).value == pytest.approx(expected, rel=1e-10)
    assert mcnemar(better, worse).value == mcnemar(worse, better).value


def test_mcnemar_known_values() -> None:
    assert mcnemar(0, 0).value == 1
    assert mcnemar(5, 5).value == 1
    assert mcnemar(0, 6).value == pytest.approx(2 / 64)
    assert mcnemar(10, 2).value == pytest.approx(2 * sum(math.comb(12, i) for i in range(3)) / 2**12)
    assert mcnemar(0, 3000).value == 0  # below the smallest float
    assert mcnemar(20_000, 20_400).value == pytest.approx(0.0472, abs=1e-3)


def test_sampled_sign_flips_agree_with_exact_within_their_error() -> None:
    rng = np.random.default_rng(0)
    for d in (rng.integers(-16, 17, 60) / 64, rng.integers(-5, 20, 40) / 64):
        exact = sign_flip(d)
        # Irrational sizes have no common fraction, so they are sampled.
        sampled = sign_flip(d * (math.pi / 3.2), seed=1)
        assert exact.test == "sign flips, exact"
        assert sampled.test == "sign flips, 20000 sampled"
        assert abs(sampled.value - exact.value) < 4 * sampled.standard_error + 1e-4
        assert sampled == sign_flip(d * (math.pi / 3.2), seed=1)
        assert sampled.value > 0
    assert sign_flip(d, num_flips=10).test == exact.test


@settings(max_examples=150, deadline=None)
@given(DIFFERENCES, st.randoms(use_true_random=False))
def test_interval_contains_the_difference_and_mirrors(differences: list[float], random) -> None:
    estimate = difference_estimate(differences)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high
    mirrored = difference_estimate([-d for d in differences])
    assert (-mirrored.high, -mirrored.low) == pytest.approx((estimate.low, estimate.high), abs=1e-12)
    random.shuffle(differences)
    assert difference_estimate(differences)[:3] == pytest.approx(estimate[:3], abs=1e-12)


def test_bonett_price_of_single_samples() -> None:
    """Their interval, (n12 + 1, n21 + 1, n + 2), but centred at the difference and with n - 1."""
    n, better, worse = 50, 9, 3
    estimate = difference_estimate([1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse))
    p12, p21 = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = 1.959964 * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 1))
    assert estimate.value == pytest.approx(0.12)
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-6)


def test_no_difference_is_not_certainty() -> None:
    same = compare(run([1, 0] * 15), run([1, 0] * 15))
    assert same.difference.value == 0
    assert same.difference.high == -same.difference.low > 0.05
    assert (same.num_better, same.num_worse, same.num_equal) == (0, 0, 30)
    assert same.p_value.value == 1


def test_single_samples_are_compared_with_mcnemar_and_rates_with_sign_flips() -> None:
    first, second = run([1, 0, 0, 0, 1, 0]), run([1, 1, 1, 1, 0, 0])
    single = compare(first, second)
    assert single.p_value == mcnemar(3, 1)
    assert single.difference.value == pytest.approx(2 / 6)
    assert (single.num_better, single.num_worse, single.num_equal) == (3, 1, 2)
    assert (single.first.value, single.second.value) == pytest.approx((2 / 6, 4 / 6))
    assert compare(second, first).difference.value == -single.difference.value
    rates = compare(run([0.25, 0.5, 0]), run([0.5, 0.5, 1]))
    assert rates.p_value.test == "sign flips, exact"
    assert rates.p_value.value == 0.5
    assert all(estimate.n == 3 for estimate in rates[:3])


def test_pairing_is_by_problem_and_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, 200)
    first, second = run(rng.binomial(64, p) / 64), run(rng.binomial(64, np.clip(p + 0.03, 0, 1)) / 64)
    result = compare(first, dict(sorted(second.items(), reverse=True)))
    assert result.difference.low > 0
    assert result.first.high > result.second.low
    assert result.p_value.value < 0.01


def test_where_lower_is_better_fewer_are_better() -> None:
    """The difference stays second minus first; what is told of problems follows the metric's sense."""
    first, second = {"a": 0.5, "b": 0.5, "c": 0.0}, {"a": 0.0, "b": 0.25, "c": 0.0}
    found = compare(first, second, lower_is_better=True)
    assert (found.num_better, found.num_worse, found.num_equal) == (2, 0, 1)
    assert found.difference.value == pytest.approx(-0.25)
    plain = compare(first, second)
    assert (plain.num_better, plain.num_worse) == (0, 2) and plain.p_value == found.p_value


def test_different_problems_are_refused_or_intersected_with_numbers() -> None:
    first, second = run([1, 0, 1]), {"p1": 1.0, "p2": 1.0, "q": 0.0, "r": 0.0}
    with pytest.raises(
        UsageError,
        match=r"2 in both, 1 only in the first run \(such as p0\) and 2 only in the second run \(such as q, r",
    ):
        compare(first, second)
    result = compare(first, second, intersect=True)
    assert (result.difference.n, result.num_only_first, result.num_only_second) == (2, 1, 2)
    assert result.difference.value == 0.5
    with pytest.raises(UsageError, match="no problem in common"):
        compare(run([1]), {"q": 1.0}, intersect=True)
    with pytest.raises(UsageError, match=r"the second run's metric .* problem 1 has 2"):
        compare(run([1, 1]), run([1, 2]))
    with pytest.raises(UsageError, match=r"problem 1 has 3\."):
        difference_estimate([0.5, -3.0])


@pytest.mark.parametrize("num_samples", [1, 16])
@pytest.mark.parametrize(("mean", "shift"), [(0.5, 0.0), (0.5, 0.7), (0.1, 0.5)])
@pytest.mark.parametrize("num_problems", [100, 300])
def test_differences_cover_at_their_rate(num_problems: int, mean: float, shift: float, num_samples: int) -> None:
    """`benchmarks/metrics.py` has more; where few problems differ the interval is wide, and covers 97 to 100 %."""
    rng = np.random.default_rng(0)

    def pair(shape: tuple[int, ...]) -> np.ndarray:
        p = np.clip(rng.beta(mean, 1 - mean, shape), 1e-12, 1 - 1e-12)
        moved = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + shift + 0.5 * rng.normal(size=shape))))
        return (rng.binomial(num_samples, moved) - rng.binomial(num_samples, p)) / num_samples

    truth = pair((300_000,)).mean()
    estimates = [difference_estimate(row) for row in pair((1500, num_problems))]
    rate = 100 * np.mean([one.low <= truth <= one.high for one in estimates])
    assert 93 <= rate <= 97.5, rate
