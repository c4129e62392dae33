"""What one arm gains over another with several seeds: against brute force, and how often intervals hold the truth."""

import itertools
import math

import numpy as np
import pytest

from trl_math.errors import UsageError
from trl_math.evaluation.compare_seeds import (
    arm_gain,
    arm_level,
    gain_p_value,
    hard_against_easy,
    newcombe,
    split_by_level,
    split_by_rate,
    t_estimate,
    t_quantile,
)
from trl_math.evaluation.intervals import mean_estimate
from trl_math.evaluation.paired import compare, difference_estimate


def drawn(seed, num_seeds=3, num_problems=60, gain=0.0, seed_spread=0.0, samples=8):
    """Two arms, (S, P) each: shares of right samples of problems of many difficulties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, num_problems)
    shifts = np.array([[gain], [0.0]]) + rng.normal(0, seed_spread, (2, num_seeds))
    own = rng.normal(0, 0.3, (2, num_seeds, num_problems))
    chances = 1 / (1 + np.exp(-(logits + shifts[..., None] + own)))
    return rng.binomial(samples, chances) / samples


# ---- Against brute force ----


@pytest.mark.parametrize(
    ("confidence", "degrees", "wanted"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.30265),
        (0.95, 3, 3.18245),
        (0.99, 4, 4.60409),
        (0.9, 10, 1.81246),
        (0.95, 1e6, 1.95997),
        (0.8, 1, 3.07768),
    ],
)
def test_quantiles_of_t_are_those_of_the_tables(confidence, degrees, wanted):
    assert t_quantile(confidence, degrees) == pytest.approx(wanted, rel=1e-5)


def test_the_t_interval_over_seeds_is_the_one_of_the_textbook():
    found = t_estimate([0.1, 0.2, 0.4])
    deviation = math.sqrt((0.1333333**2 + 0.0333333**2 + 0.1666667**2) / 2)
    assert found.value == pytest.approx(0.7 / 3)
    assert found.high - found.value == pytest.approx(4.30265 * deviation / math.sqrt(3), rel=1e-5)
    assert found.n == 3


def test_with_one_seed_everything_is_as_compare_says_and_the_spread_is_missing():
    first, second = drawn(0, num_seeds=1)
    found = arm_gain(second, first)
    ids = [f"p{index}" for index in range(first.shape[1])]
    plain = compare(dict(zip(ids, first[0], strict=True)), dict(zip(ids, second[0], strict=True)))
    assert found.problems == plain.difference
    assert found.seeds is None and found.both is None
    assert gain_p_value(second, first) == plain.p_value
    assert arm_level(first).problems == plain.first and arm_level(first).seeds is None


def test_seeds_are_averaged_before_problems_are_compared():
    first, second = drawn(1)
    found = arm_gain(second, first)
    means = [second[:, p].mean() - first[:, p].mean() for p in range(first.shape[1])]
    assert found.problems.value == pytest.approx(sum(means) / len(means))
    assert found.problems == difference_estimate(means)
    assert found.by_seed == pytest.approx([(second[s] - first[s]).mean() for s in range(3)])
    assert found.both.high - found.both.value == pytest.approx(
        math.hypot(found.problems.high - found.problems.value, found.seeds.high - found.seeds.value)
    )
    assert arm_level(second).problems == mean_estimate(second.mean(axis=0))


def test_the_interval_over_problems_is_that_of_drawing_problems_again():
    first, second = drawn(2, num_problems=200, gain=0.5)
    found = arm_gain(second, first).problems
    d = (second - first).mean(axis=0)
    rng = np.random.default_rng(0)
    means = d[rng.integers(0, len(d), (20_000, len(d)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    width = high - low
    assert abs(found.low - low) < 0.15 * width and abs(found.high - high) < 0.15 * width


def test_the_p_value_counts_all_signs():
    first, second = drawn(3, num_problems=12, gain=1.0)
    d = (second - first).mean(axis=0)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=12)]
    assert gain_p_value(second, first).value == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-9))


def test_the_shift_to_hard_problems_is_the_difference_of_two_gains():
    first, second = drawn(4, num_problems=400, gain=0.3)
    hard = np.arange(400) < 150
    easy = np.arange(400) >= 220
    found = hard_against_easy(second, first, hard, easy)
    assert found.hard == arm_gain(second[:, hard], first[:, hard])
    assert found.easy == arm_gain(second[:, easy], first[:, easy])
    d = (second - first).mean(axis=0)
    assert found.shift.problems.value == pytest.approx(d[:150].mean() - d[220:].mean())
    rng = np.random.default_rng(0)
    again = [
        d[:150][rng.integers(0, 150, 150)].mean() - d[220:][rng.integers(0, 180, 180)].mean() for _ in range(9000)
    ]
    low, high = np.quantile(again, [0.025, 0.975])
    assert abs(found.shift.problems.low - low) < 0.15 * (high - low)
    assert abs(found.shift.problems.high - high) < 0.15 * (high - low)
    wanted = t_estimate(np.subtract(found.hard.by_seed, found.easy.by_seed))
    assert found.shift.seeds[:3] == pytest.approx(wanted[:3])


def test_newcombe_keeps_uneven_intervals_apart():
    first, second = mean_estimate([0.0] * 9 + [1.0]), mean_estimate([1.0] * 10)
    found = newcombe(first, second)
    assert found.value == pytest.approx(-0.9)
    assert found.low == pytest.approx(-0.9 - math.hypot(0.1 - first.low, 0.0))
    assert found.high == pytest.approx(-0.9 + math.hypot(first.high - 0.1, 1.0 - second.low))


# ---- How often intervals hold the truth ----


def coverage(which, num_runs=400, **world):
    """Share of experiments whose interval holds 0, where neither arm is better."""
    found = [getattr(arm_gain(*drawn(1000 + run, **world)), which) for run in range(num_runs)]
    return np.mean([one.low <= 0 <= one.high for one in found])


def test_where_training_again_changes_models_only_the_intervals_that_know_it_hold():
    """Runs with luck of their own: problems alone are too sure, as a benchmark of one seed is."""
    world = {"num_seeds": 4, "num_problems": 120, "seed_spread": 0.4}
    assert coverage("problems", **world) < 0.75
    assert 0.91 < coverage("seeds", **world) < 0.985
    assert coverage("both", **world) > 0.93


def test_where_only_problems_differ_the_interval_over_problems_is_enough():
    world = {"num_seeds": 3, "num_problems": 120}
    assert 0.92 < coverage("problems", **world) < 0.985
    assert coverage("both", **world) > 0.95


def test_models_that_are_all_the_same_are_not_taken_for_certain():
    table = np.full((3, 20), 0.5)
    found = arm_gain(table, table)
    assert found.problems.value == 0 and found.problems.high > 0 and found.seeds.high == 0
    assert found.both.high == found.problems.high


# ---- Which problems are hard ----


def test_levels_are_split_in_halves_by_their_numbers():
    levels = [f"Level {level}" for level in (3, 1, 10, 2, 9, 1)]
    assert split_by_level([*levels, None]) == (["Level 1", "Level 2"], ["Level 9", "Level 10"])
    assert split_by_level(["1", "2", "3", "4"]) == (["1", "2"], ["3", "4"])
    assert split_by_level(["1", "1"]) is None, "one level is no split"
    assert split_by_level(["easy", "hard"]) is None, "words have no order"
    assert split_by_level(["grade 1 of 2", "grade 2 of 2"]) is None
    assert split_by_level(["a 1", "b 1"]) is None


def test_rates_are_split_near_the_middle_with_equal_ones_together():
    rates = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.25, "e": 0.75, "f": 1.0}
    assert split_by_rate(rates) == (["d", "e", "f"], ["a", "b", "c"])
    greedy = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0}
    assert split_by_rate(greedy) == (["d"], ["a", "b", "c"])
    assert split_by_rate({"a": 0.5, "b": 0.5}) is None


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UsageError, match="seed by seed on the same problems"):
        arm_gain(np.zeros((2, 5)), np.zeros((3, 5)))
    with pytest.raises(UsageError, match="one row for each seed"):
        arm_level(np.zeros(5))
    with pytest.raises(UsageError, match="from 0 to 1"):
        arm_level([[0.5, 1.5]])
    with pytest.raises(UsageError, match="hard and easy"):
        hard_against_easy(np.zeros((2, 3)), np.zeros((2, 3)), [True, False, True], [True, False, False])
    with pytest.raises(UsageError, match="confidence must be between 0 and 1"):
        t_quantile(1.0, 2)
