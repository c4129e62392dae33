"""Posteriors of pass rates against mpmath, against truth by exact sums, and against what a user may get wrong."""

import math

import mpmath
import numpy as np
import pytest

from trl_math.errors import UsageError
from trl_math.evaluation.beta import beta_cdf, beta_quantile, log_beta, log_gamma
from trl_math.evaluation.posterior import (
    FITTED,
    JEFFREYS,
    UNIFORM,
    Prior,
    find_prior,
    fit_prior,
    pass_rates,
    posterior_interval,
    posterior_mean,
    predictive,
    probability_at_least,
)


@pytest.mark.parametrize("x", [1e-3, 0.05, 0.5, 1.0, 2.5, 64.5, 2048.5])
def test_log_gamma(x):
    assert float(log_gamma(x)) == pytest.approx(float(mpmath.loggamma(x)), rel=1e-13, abs=2e-13)


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.1, 0.5, 0.97, 1 - 1e-6])
@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.05, 12.0), (3.2, 0.05), (20.5, 44.5), (1.0, 1.0), (700.0, 300.5)])
def test_cdf(x, a, b):
    with mpmath.workdps(30):
        reference = float(mpmath.betainc(a, b, 0, x, regularized=True))
    assert float(beta_cdf(x, a, b)) == pytest.approx(reference, rel=1e-9, abs=1e-13)


def test_cdf_at_and_beyond_the_ends():
    assert beta_cdf([0.0, 1.0], 0.5, 2.5).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("share", [0.001, 0.025, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("a", "b"), [(0.5, 8.5), (3.5, 61.5), (0.05, 3.0), (64.5, 0.5), (500.5, 500.5)])
def test_quantile_is_the_inverse(share, a, b):
    x = float(beta_quantile(share, a, b))
    if x < 1 - 1e-7:  # nearer to 1 than that, float64's x does not say
        assert float(beta_cdf(x, a, b)) == pytest.approx(share, abs=1e-9)


def test_interval_is_jeffreys_of_the_textbooks():
    """Brown, Cai and DasGupta's table for n = 10 at 95 %, to three figures, and its ends at 0 and 1."""
    low, high = posterior_interval([0, 1, 5, 10], 10)
    assert low == pytest.approx([0, 0.011, 0.224, 0.783], abs=6e-4)
    assert high == pytest.approx([0.217, 0.381, 0.776, 1], abs=6e-4)


def test_interval_has_its_probability():
    for right, total in ((1, 4), (7, 64), (40, 64)):
        low, high = posterior_interval(right, total, 0.9, UNIFORM)
        inside = probability_at_least(low, right, total, UNIFORM) - probability_at_least(high, right, total, UNIFORM)
        assert float(inside) == pytest.approx(0.9, abs=1e-9)


def test_probability_at_least_is_accurate_in_both_tails():
    with mpmath.workdps(40):
        low = float(mpmath.betainc(0.5, 64.5, 0.5, 1, regularized=True))
    assert float(probability_at_least(0.5, 0, 64)) == pytest.approx(low, rel=1e-9)
    assert float(probability_at_least(0.5, 64, 64)) == 1.0


def test_predictive_is_the_mean_of_binomials():
    """By quadrature over the posterior."""
    prior, right, total, further = Prior(0.7, 1.3), 2, 9, 5
    density = lambda p: p ** (right + prior.a - 1) * (1 - p) ** (total - right + prior.b - 1)  # noqa: E731
    whole = mpmath.quad(density, [0, 0.5, 1])
    for count, share in enumerate(predictive(right, total, further, prior)):
        ways = math.comb(further, count)
        mass = mpmath.quad(lambda p: ways * p**count * (1 - p) ** (further - count) * density(p), [0, 0.5, 1])  # noqa: B023
        assert share == pytest.approx(float(mass / whole), rel=1e-9)
    assert predictive(3, 7, 0) == pytest.approx([1.0])
    assert predictive(0, 0, 1, JEFFREYS)[1] == pytest.approx(float(posterior_mean(0, 0)))


def test_a_fit_finds_where_problems_come_from():
    generator = np.random.default_rng(0)
    for a, b in ((2.0, 5.0), (0.3, 0.9)):
        total = generator.integers(4, 33, 5_000)
        right = generator.binomial(total, generator.beta(a, b, 5_000))
        fitted = fit_prior(right, total)
        assert (fitted.a, fitted.b) == (pytest.approx(a, rel=0.1), pytest.approx(b, rel=0.1))
        assert fitted.name == FITTED


def test_a_fit_is_the_most_probable_prior():
    right, total = np.array([0, 0, 0, 1, 4, 4, 0, 2]), np.array([4, 4, 4, 4, 4, 4, 8, 4])

    def likelihood(a, b):
        # With the two samples that every fit counts: one right, one wrong.
        n, k = np.append(total, [1, 1]), np.append(right, [1, 0])
        return float((log_beta(a + k, b + n - k) - log_beta(a, b)).sum())

    best = fit_prior(right, total)
    generator = np.random.default_rng(1)
    for _ in range(300):
        a, b = best.a * np.exp(generator.normal(0, 0.3)), best.b * np.exp(generator.normal(0, 0.3))
        if 0.05 <= a + b <= 1000:
            assert likelihood(a, b) <= likelihood(best.a, best.b) + 1e-6


def test_nothing_solved_yet_does_not_make_it_certain():
    fitted = fit_prior([0] * 30, [4] * 30)
    assert 0.005 < fitted.a / (fitted.a + fitted.b) < 0.1
    mirrored = fit_prior([4] * 30, [4] * 30)
    assert (mirrored.a, mirrored.b) == (pytest.approx(fitted.b, rel=1e-3), pytest.approx(fitted.a, rel=1e-3))
    assert fit_prior([2] * 500, [4] * 500, max_weight=8).a + fit_prior([2] * 500, [4] * 500, max_weight=8).b <= 8.001


def test_estimators():
    assert pass_rates([0, 3], [8, 8]).tolist() == [0.0, 0.375]
    assert pass_rates([0, 3], [8, 8], "posterior_mean") == pytest.approx([0.5 / 9, 3.5 / 9])
    assert pass_rates([0], [8], "posterior_mean", Prior(2, 2)) == pytest.approx([2 / 12])


def test_priors_by_name():
    assert find_prior("jeffreys") is JEFFREYS and find_prior("uniform") is UNIFORM
    assert find_prior("0.3,2") == Prior(0.3, 2.0)
    for wrong, says in (("jefreys", "Did you mean 'jeffreys'"), ("0,1", "two numbers above 0"), ("a,b", "above 0")):
        with pytest.raises(UsageError, match=says):
            find_prior(wrong)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: posterior_mean([1, 9], [4, 8]), "problem 1 has 9 of 8"),
        (lambda: posterior_mean([-1], [4]), "problem 0 has -1 of 4"),
        (lambda: posterior_mean([0.5], [4]), "whole numbers"),
        (lambda: posterior_interval(1, 4, 1.0), "confidence must be between 0 and 1, got 1.0"),
        (lambda: pass_rates([0], [0]), "at least one sample"),
        (lambda: pass_rates([1], [4], "u_statistics"), "Unknown estimator 'u_statistics'"),
        (lambda: fit_prior([], np.array([], dtype=int)), "whole numbers|without samples"),
        (lambda: fit_prior([0], [0]), "without samples"),
        (lambda: predictive(1, 2, -1), "num_further must be 0 or above"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(UsageError, match=says):
        call()
