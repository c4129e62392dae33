"""Intervals: known values, invariances, and that they contain the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.errors import UsageError
from trl_math.evaluation import mean_estimate, mean_estimates, pass_at_k, proportion, wilson
from trl_math.evaluation.intervals import mean_interval, quantile


SHARES = st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.875, 1.0]), min_size=1, max_size=40)


def test_wilson_of_a_single_proportion() -> None:
    """The values of Newcombe (1998), table I."""
    for correct, samples, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)):
        estimate = proportion(correct, samples)
        assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)
        assert estimate.n == samples
    nothing = proportion(0, 20)
    assert (nothing.value, nothing.low, round(nothing.high, 4)) == (0, 0, 0.1611)
    low, high = wilson([0.0, 1.0], [20, 20])
    np.testing.assert_allclose([low[1], high[1]], [1 - nothing.high, 1])


def test_one_sample_a_problem_is_wilsons_interval() -> None:
    values = [1.0] * 15 + [0.0] * 133
    assert mean_estimate(values)[:4] == pytest.approx(proportion(15, 148)[:4])


@settings(max_examples=200, deadline=None)
@given(SHARES, st.randoms(use_true_random=False))
def test_interval_contains_the_mean_and_knows_no_order(values: list[float], random) -> None:
    value, low, high, n, method, confidence = mean_estimate(values)
    assert 0 <= low <= value <= high <= 1
    assert low < high
    assert (n, confidence) == (len(values), 0.95)
    assert "Wilson" in method
    random.shuffle(values)
    assert mean_estimate(values)[:3] == pytest.approx((value, low, high), abs=1e-12)
    mirrored = mean_estimate([1 - x for x in values])
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-9)
    wider = mean_estimate(values, 0.99)
    assert wider.low <= low
    assert wider.high >= high
    # Nothing in [0, 1] is less certain than as many single samples of the same mean.
    binary_low, binary_high = wilson(value, n)
    assert low >= binary_low - 1e-12
    assert high <= binary_high + 1e-12


def test_many_samples_of_few_problems_do_not_make_it_narrow() -> None:
    """Problems are what is sampled: 64 samples that agree say no more than one."""
    assert mean_estimate(pass_at_k(64, [64] * 10 + [0] * 20, 1)) == mean_estimate(pass_at_k(1, [1] * 10 + [0] * 20, 1))


def test_large_samples_have_the_normal_interval() -> None:
    values = np.random.default_rng(0).beta(2, 3, 5000)
    estimate = mean_estimate(values)
    half = quantile(0.95) * values.std(ddof=1) / np.sqrt(5000)
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 50)


def test_columns_are_estimated_one_by_one() -> None:
    table = pass_at_k(8, [0, 1, 3, 8, 5], [1, 2, 8])
    assert mean_estimates(table) == [mean_estimate(column) for column in table.T]


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "no problem"), ([0.5, np.nan], "problem 1 has nan"), ([1.5], "problem 0 has 1.5"), ([[0, 1], [0, -1]], "1")],
)
def test_nonsense_is_refused(values: list, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mean_estimates(values)
    with pytest.raises(UsageError, match="confidence"):
        mean_estimate([0.5], 95)
    with pytest.raises(UsageError, match="got 3 of 2"):
        proportion(3, 2)


# ---- Coverage: `benchmarks/metrics.py` has the whole table ----

REPETITIONS = 3000


def covered(values: np.ndarray, truth: float | np.ndarray) -> float:
    """Return the percentage of the columns' intervals that contain the truth."""
    _, low, high = mean_interval(values)
    return 100 * float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("mean", [0.03, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("num_problems", [30, 100, 1000])
def test_one_sample_covers_at_its_rate(num_problems: int, mean: float) -> None:
    """Coverage of whole numbers jumps with the mean, so it is the average over means around the one stated."""
    rng = np.random.default_rng(0)
    rare = min(mean, 1 - mean)
    truth = rng.uniform(0.8 * rare, 1.2 * rare, REPETITIONS)
    truth = truth if mean <= 0.5 else 1 - truth
    assert 93 <= covered((rng.random((num_problems, REPETITIONS)) < truth).astype(float), truth) <= 97


@pytest.mark.parametrize("mean", [0.03, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("concentration", [0.1, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("num_problems", [30, 100, 1000])
def test_mean_accuracy_covers_at_its_rate(num_problems: int, concentration: float, mean: float) -> None:
    """From problems always or never solved to problems alike, near 0, in the middle, and near 1."""
    rng = np.random.default_rng(1)
    repetitions = REPETITIONS if num_problems < 1000 else REPETITIONS // 2
    p = rng.beta(mean * concentration, (1 - mean) * concentration, (num_problems, repetitions))
    rate = covered(rng.binomial(64, p) / 64, mean)
    slack = 1 if num_problems < 100 else 0  # the simulation's own error; the true rates of 30 are nearly 93 to 97
    assert 93 - slack <= rate <= 97 + slack, rate


def test_where_the_normal_interval_fails() -> None:
    """Thirty problems of which few are ever solved: the reason for all this."""
    rng = np.random.default_rng(2)
    values = rng.binomial(64, rng.beta(0.015, 0.485, (30, REPETITIONS))) / 64
    half = quantile(0.95) * values.std(axis=0, ddof=1) / np.sqrt(30)
    assert (np.abs(values.mean(axis=0) - 0.03) <= half).mean() < 0.75
    assert covered(values, 0.03) > 93


@pytest.mark.parametrize("num_problems", [100, 1000])
@pytest.mark.parametrize(("num_samples", "k"), [(8, 4), (64, 16)])
def test_pass_at_k_covers_at_its_rate(num_samples: int, k: int, num_problems: int) -> None:
    rng = np.random.default_rng(3)
    for mean, concentration in ((0.1, 0.5), (0.3, 2.0)):
        parameters = (mean * concentration, (1 - mean) * concentration)
        truth = float(pass_at_k(num_samples, rng.binomial(num_samples, rng.beta(*parameters, 200_000)), k).mean())
        p = rng.beta(*parameters, (num_problems, REPETITIONS // 2))
        rate = covered(pass_at_k(num_samples, rng.binomial(num_samples, p), k), truth)
        assert 93 <= rate <= 97, rate
